"""What a linter can't see: which torch names are used at all, and who imports whom.

`torch` gives tensors: creation, views, elementwise arithmetic, reductions, matrix products, devices, random numbers. A
name is allowed if it is in the list below; ready-made operators can't hide in `x.relu()` either.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.peers import PEERS
from cnn import Mode, build_model, ops
from cnn.arguments import construct
from cnn.losses import LOSSES
from cnn.optimizers import OPTIMIZERS
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from runners.tasks.task import Task
from tests import generators
from tests.classifier import classifier, train_step
from tests.cnn.cases import FAMILIES
from tests.cnn.test_layers import KERNEL_SETS
from tests.cnn.test_optimizers import EVERYTHING
from tests.cnn.test_trajectory import shipped

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "cnn").rglob("*.py"), *(ROOT / "runners").rglob("*.py"), ROOT / "run.py", ROOT / "predict.py"])

ALLOWED = {
    # types and devices
    *("Tensor", "Generator", "device", "dtype", "finfo", "contiguous_format"),
    *("bool", "float32", "float64", "int64", "int32", "uint8", "inf", "__version__"),
    *("cuda.is_available", "cuda.mem_get_info", "backends.mps.is_available", "get_num_threads", "set_num_threads"),
    # creation and views
    *(
        "arange",
        "empty",
        "empty_like",
        "from_numpy",
        "full",
        "full_like",
        "ones",
        "ones_like",
        *("rand", "randn", "randperm", "get_rng_state", "set_rng_state"),
    ),
    *("as_tensor", "equal", "index_select", "tensor", "zeros", "zeros_like"),
    # arithmetic and reductions
    *("add", "div", "exp", "expm1", "erf", "erfc", "log", "log1p", "sqrt", "where"),
    *("addmm", "mm", "bmm", "bincount", "cat"),
}
READY_MADE = set(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm binary_cross_entropy_with_logits celu conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_embedding_loss cross_entropy
    ctc_loss dropout elu embedding feature_dropout fold gelu group_norm hardshrink hardsigmoid hardswish hardtanh
    hinge_embedding_loss huber_loss instance_norm kl_div l1_loss layer_norm leaky_relu log_sigmoid log_softmax logit
    logsigmoid logsumexp max_pool1d max_pool2d max_pool3d mish mkldnn_convolution mse_loss native_batch_norm
    native_dropout native_group_norm native_layer_norm nll_loss pixel_shuffle prelu relu relu6 relu_ rms_norm rrelu
    selu sigmoid sigmoid_ silu smooth_l1_loss softmax softplus softshrink tanh tanh_ threshold unfold
    upsample_nearest2d
    """.split()
)
AUTOGRAD = {"requires_grad", "requires_grad_", "grad_fn", "retain_grad", "is_leaf", "set_grad_enabled", "enable_grad"}
OURS = {"ops", "reference", "kernels", "activation", "loss", "norm"}
"""What may have a member of a ready-made operator's name: our own operators."""
STANDARD = set(
    """
    __future__ collections contextlib copy dataclasses difflib functools inspect itertools logging math os re statistics
    time types typing weakref
    """.split()
)
FILES_AND_PROCESSES = set(
    """
    argparse base64 concurrent csv datetime errno filelock fnmatch gzip hashlib html http io json logging pathlib
    pickle pickletools platform secrets shlex shutil signal stat struct sys tarfile tempfile threading time traceback
    urllib warnings zlib
    """.split()
)
MODULES: dict[str, set[str]] = {
    "cnn": {
        *STANDARD,
        *(
            "ctypes",
            "hashlib",
            "shutil",
            "signal",
            "sys",
            "sysconfig",
            "threading",
            "warnings",
        ),  # to compile and replay
        *("cnn", "llvmlite", "numba", "numpy", "pydantic", "torch", "triton"),
    },
    "runners": {
        *STANDARD,
        *FILES_AND_PROCESSES,
        *("PIL", "cnn", "hydra", "matplotlib", "numpy", "omegaconf", "pydantic", "runners", "torch", "tqdm"),
        "yaml",
    },
}
"""The modules that each package may import."""
MODULES |= {
    "runners/sweeps": {*MODULES["runners"], "site", "subprocess", "ray", "submitit"},
    "runners/trackers": {
        *MODULES["runners"],
        *("importlib", "queue", "select", "socket", "struct", "subprocess", "mlflow", "tensorboard", "wandb"),
    },
}
"""Wings that start processes, and that are about libraries of others."""
MAY_IMPORT = {"digits.py": "scipy", "compiler.py": "pathlib", "requirements.py": "pathlib"}
"""What single files may import besides: to find the digit on a picture, to keep compiled kernels on the disk, to find a
header that kernels are compiled with."""
MAY_USE = {
    "capture.py": {"from torch.utils._python_dispatch import TorchDispatchMode"},
    "commands.py": {"import gc"},
    "devices.py": {
        "torch.cuda.get_device_name",
        "torch.cuda.max_memory_allocated",
        "torch.cuda.reset_peak_memory_stats",
    },
    "extensions.py": {"import importlib.util", "sys.modules"},
    "graphs.py": {"torch.cuda.CUDAGraph", "torch.cuda.Event", "torch.cuda.graph"},
    "inspection.py": {"from torch.utils._python_dispatch import TorchDispatchMode", "torch.Tag.dynamic_output_shape"},
    "origin.py": {"import subprocess"},
    "requirements.py": {"torch.cuda.get_device_capability", "torch.cuda.get_device_name"},
    "study.py": {"import cmaes", "import optuna"},
}
"""What single files may do besides: see the operations of a step, to record them; start and end in less time; import a
user's own files; record a step as a CUDA graph, which computes nothing itself; ask whether a GPU is new enough, what it
is called and how much of its memory is used; let Optuna choose a sweep's values."""


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; empty for anything that isn't a chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def imports(tree: ast.AST, modules: set[str], may_import: str | None) -> Iterator[str]:
    """Imports of modules that aren't listed, and torch under another name or through another door."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] not in modules or alias.name.startswith("torch."):
                    yield f"import {alias.name}"
                if alias.name == "torch" and alias.asname:
                    yield "torch under another name"
        elif isinstance(node, ast.ImportFrom):
            root = (node.module or "").split(".")[0]
            names = {alias.name for alias in node.names}
            renamed = any(alias.asname for alias in node.names)
            if root not in {*modules, may_import}:
                yield f"from {node.module}"
            if root == "torch" and (node.module != "torch" or names != {"Tensor"} or renamed):
                yield f"from {node.module} import {', '.join(names)}"
            if root != "torch" and "torch" in names:
                yield f"torch by way of {node.module}"


def uses(tree: ast.AST) -> Iterator[str]:
    """Names and attributes that are ready made, or lead to what is."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            if name.startswith("torch.") and id(node) not in inner and name.removeprefix("torch.") not in ALLOWED:
                yield name
            if node.attr in READY_MADE and dotted(node.value) not in OURS:
                yield f"{name or '...'}.{node.attr}"
            if node.attr in AUTOGRAD or node.attr == "torch" or name in ("sys.modules", "Tensor.__dict__"):
                yield name or f".{node.attr}"
        elif isinstance(node, ast.Name):
            if node.id == "torch" and id(node) not in inner:
                yield "torch as a value"
            if node.id in ("__import__", "eval", "exec", "globals", "methodcaller", "attrgetter"):
                yield node.id
        elif isinstance(node, ast.keyword) and node.arg in AUTOGRAD:
            yield f"{node.arg}="
        elif isinstance(node, ast.Call):
            if (
                dotted(node.func) == "getattr"
                and isinstance(node.args[1], ast.Constant)
                and node.args[1].value in READY_MADE
            ):
                yield f"getattr(..., {node.args[1].value!r})"
            backward = isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
            if backward and "cache" not in " ".join(
                map(ast.unparse, node.args)
            ):  # ours takes a cache, autograd's doesn't
                yield f"{ast.unparse(node)}"


def faults(source: str, package: str = "cnn", may_import: str | None = None) -> list[str]:
    """Everything in a source that isn't from scratch."""
    tree = ast.parse(source)
    return [*imports(tree, MODULES[package], may_import), *uses(tree)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_ready_made_is_used(file: Path) -> None:
    wings = [package for package in MODULES if file.is_relative_to(ROOT / package)]
    package = max(wings, key=len, default="runners")
    found = faults(file.read_text(encoding="utf-8"), package, MAY_IMPORT.get(file.name))
    assert set(found) == MAY_USE.get(file.name, set())


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn",
        "import torch as t",
        "from torch import nn",
        "from torch.nn import functional as F",
        "from torch import conv2d",
        "import torch\ntorch.conv2d(x, w)",
        "import torch\ntorch.nn.functional.relu(x)",
        "import torch\ntorch.ops.aten.convolution(x)",
        "import torch\ntorch._C._nn.gelu(x)",
        "import torch\nt = torch\nt.relu(x)",
        "import torch\ngetattr(torch, 're' + 'lu')(x)",
        "import importlib",
        "x.relu()",
        "(x + y).softmax(0)",
        "x.sigmoid_()",
        "x.requires_grad_()",
        "loss.backward()",
        "x.unfold(0, 3, 1)",
        "from torch import Tensor as T",
        "import torch\nw = torch.zeros(3, requires_grad=True)",
        "y.backward(dy)",
        "from scipy.special import softmax",
        "from scipy.signal import correlate",
        "from functorch import grad",
        "from cnn.layer import torch as t",
        "from cnn import layer\nlayer.torch.exp(x)",
        "import sys\nsys.modules['torch'].nn",
        "from importlib import import_module",
        "from torchvision.ops import roi_align",
        "getattr(x, 'relu')()",
        "import operator",
        "eval('x')",
        "Tensor.__dict__['exp'](x)",
        "self.relu()",
        "x.hardtanh()",
        "x.logit()",
    ],
)
def test_the_check_sees_what_is_ready_made(source: str) -> None:
    assert faults(source)


def test_the_check_lets_our_own_pass() -> None:
    source = "import torch\nfrom torch import Tensor\nops.relu(x)\nlayer.backward(dy, caches.pop())\ntorch.exp(x)"
    assert faults(source) == []


OPERATORS = set(
    """
    _local_scalar_dense
    _to_copy _unsafe_view abs add add_ addcdiv_ addcmul_ addmm addmm_ alias all amax arange argmax baddbmm_ bitwise_and
    bitwise_and_ bitwise_not bitwise_or bmm cat clamp clamp_ clone copy_ detach div div_ dot empty empty_like eq erf
    erfc exp expand expm1 fill_ full full_like gather ge gt index index_add_ index_put_ index_select isnan le lerp_
    lift_fresh log log1p lt masked_fill masked_fill_ mean mm mul mul_ mv ne neg new_empty new_full new_ones new_zeros
    ones ones_like permute pow rand randn reciprocal remainder round rsqrt rsub scatter_ scatter_add_ select sign sign_
    slice split sqrt sqrt_ sub sub_ sum t transpose unbind unsqueeze view where zero_ zeros zeros_like
    """.split()
)


class OnlyArithmetic(TorchDispatchMode):
    """Sees every operator that torch runs, by whatever name it was called."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name in OPERATORS, f"{name} is not on the list of arithmetic, views and reductions"
        return func(*args, **(kwargs or {}))


WEIGHTED: dict[str, dict[str, Any]] = {
    "cross_entropy": {"weight": [1.0] * 10, "label_smoothing": 0.1},
    "bce_with_logits": {"pos_weight": [1.0] * 10},
}


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        *((name, "cross_entropy") for name in OPTIMIZERS),
        *(("adam", name) for name, loss in LOSSES.items() if loss.targets != "real"),
    ],
)
@pytest.mark.parametrize("model", PEERS)
def test_a_training_step_runs_nothing_but_arithmetic(model: str, optimizer: str, loss: str, kernel_set: str) -> None:
    network = build_model(shipped(model), (1, 28, 28))
    rule = construct(OPTIMIZERS[optimizer], EVERYTHING[optimizer] | {"lr": 0.01})
    task = classifier(network, construct(LOSSES[loss], WEIGHTED.get(loss, {})), rule)
    batch = Batch(torch.randn(1, 28, 28, 4), torch.tensor([1, 2, 3, 4]))
    with OnlyArithmetic():
        train_step(task, [batch], max_norm=1.0)
        task.evaluate(batch, Sums())


@pytest.mark.parametrize("task", ["vae", *(name for name, loss in LOSSES.items() if loss.targets == "real")])
def test_a_generative_step_runs_nothing_but_arithmetic(task: str, kernel_set: str) -> None:
    trained: Task = generators.vae() if task == "vae" else generators.gan(task, conditional=True)
    batch = generators.pictures(4, low=0.0)
    trained.state()  # makes the generator's average, a copy
    with OnlyArithmetic():
        for index in range(2):
            trained.train_step([batch], generators.step(index), Sums())
            trained.evaluate(batch, Sums())


@pytest.mark.parametrize("kind", [kind for family in FAMILIES.values() for kind in family])
@settings(max_examples=10)
@given(data=st.data())
def test_every_layer_runs_nothing_but_arithmetic(kind: str, data: st.DataObject) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network = build_model({"layers": [case.entry]}, case.input_shape, dtype=torch.float64)
    x = case.x(0)
    for kernels in KERNEL_SETS:
        with ops.kernels(kernels), OnlyArithmetic():
            y, cache = network.forward(x, Mode(case.train))
            network.backward(y, cache)


def test_the_dispatch_check_sees_a_ready_made_operator() -> None:
    x = torch.randn(1, 4, 4)
    for call in (torch.relu, lambda x: x.softmax(0), lambda x: torch.nn.functional.max_pool2d(x, 2)):
        with OnlyArithmetic(), pytest.raises(AssertionError, match="is not on the list"):
            call(x)
    with OnlyArithmetic():
        ops.relu(x)


def test_the_network_knows_nothing_of_experiments() -> None:
    """`runners` imports `cnn` and never the reverse; `cnn` knows no files, no Hydra, no datasets, no progress bars."""
    forbidden = {
        "runners",
        "hydra",
        "omegaconf",
        "yaml",
        "tqdm",
        "PIL",
        "matplotlib",
        "pathlib",
        "pickle",
        "io",
        "csv",
        "json",
    }
    for file in (ROOT / "cnn").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & forbidden - {MAY_IMPORT.get(file.name)}, file
            assert not (isinstance(node, ast.Name) and node.id == "open"), file


def test_no_device_is_named_in_layers_and_losses() -> None:
    for file in [
        *(ROOT / "cnn" / "layers").glob("*.py"),
        *(ROOT / "cnn" / "losses").glob("*.py"),
        ROOT / "cnn" / "optimizers.py",
    ]:
        strings = [
            n.value for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)
        ]
        assert not {"cpu", "cuda", "mps"} & {value for value in strings if isinstance(value, str)}
