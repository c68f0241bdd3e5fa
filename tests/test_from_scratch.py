"""What a linter can't see: which torch names are used at all, and who imports whom.

`torch` gives tensors: creation, views, elementwise arithmetic, reductions, matrix products, devices, random numbers. A
name is allowed by standing in the list below; operators that are ready made can't hide behind `x.relu()` either.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "cnn").rglob("*.py"), *(ROOT / "runners").rglob("*.py"), ROOT / "run.py", ROOT / "predict.py"])

ALLOWED = {
    # types and devices
    *("Tensor", "Generator", "Size", "device", "dtype", "finfo", "contiguous_format"),
    *("float32", "float64", "int64", "int32", "uint8", "inf", "__version__"),
    *("cuda.is_available", "backends.mps.is_available", "set_num_threads"),
    # creation and views
    *("arange", "empty", "empty_like", "from_numpy", "full", "full_like", "ones", "randn", "zeros", "zeros_like"),
    # arithmetic and reductions
    *("exp", "log", "where", "mm", "bincount", "cat"),
}
READY_MADE = set(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d alpha_dropout
    avg_pool1d avg_pool2d avg_pool3d batch_norm binary_cross_entropy_with_logits celu conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_embedding_loss cross_entropy ctc_loss dropout
    elu embedding feature_dropout fold gelu group_norm hardshrink hinge_embedding_loss huber_loss instance_norm kl_div
    l1_loss layer_norm leaky_relu log_sigmoid log_softmax logsigmoid logsumexp max_pool1d max_pool2d max_pool3d mish
    mkldnn_convolution mse_loss native_batch_norm native_dropout native_group_norm native_layer_norm nll_loss
    pixel_shuffle prelu relu relu6 relu_ rms_norm rrelu selu sigmoid sigmoid_ silu smooth_l1_loss softmax softplus
    softshrink tanh tanh_ threshold unfold upsample_nearest2d
    """.split()
)
AUTOGRAD = {"requires_grad", "requires_grad_", "grad_fn", "retain_grad", "is_leaf", "set_grad_enabled", "enable_grad"}
OURS = {"ops", "reference", "compiled", "kernels", "self"}
"""What may have a member of such a name: our own operators."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; empty for anything that isn't a chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def faults(source: str) -> list[str]:
    """Everything in a source that isn't from scratch."""
    tree = ast.parse(source)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"import {a.name} as {a.asname}"
                for a in node.names
                if a.name.startswith("torch.") or (a.name == "torch" and a.asname)
            ]
            found += [
                f"import {a.name}"
                for a in node.names
                if a.name in ("importlib", "ctypes") or a.name.startswith("torchvision")
            ]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            found += [
                f"from {node.module} import {a.name}"
                for a in node.names
                if node.module != "torch" or a.name != "Tensor" or a.asname
            ]
        elif isinstance(node, ast.Attribute):
            name = dotted(node)
            if name.startswith("torch.") and id(node) not in inner and name.removeprefix("torch.") not in ALLOWED:
                found.append(name)
            if node.attr in READY_MADE and dotted(node.value) not in OURS:
                found.append(f"{name or '...'}.{node.attr}")
            if node.attr in AUTOGRAD or (node.attr == "backward" and not (node_has_arguments(tree, node))):
                found.append(f".{node.attr}")
        elif isinstance(node, ast.Name) and node.id == "torch" and id(node) not in inner:
            found.append("torch as a value")
        elif isinstance(node, ast.Name) and node.id == "__import__":
            found.append("__import__")
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func) in ("getattr", "vars")
            and node.args
            and dotted(node.args[0]) == "torch"
        ):
            found.append("getattr(torch, ...)")
    return found


def node_has_arguments(tree: ast.AST, attribute: ast.Attribute) -> bool:
    """Our `backward` always takes a gradient or a cache; autograd's takes nothing."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.func is attribute]
    return bool(calls) and bool(calls[0].args)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_ready_made_is_used(file: Path) -> None:
    assert faults(file.read_text(encoding="utf-8")) == []


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
    ],
)
def test_the_check_sees_what_is_ready_made(source: str) -> None:
    assert faults(source)


def test_the_check_lets_our_own_pass() -> None:
    source = "import torch\nfrom torch import Tensor\nops.relu(x)\nlayer.backward(dy, cache)\ntorch.exp(x)"
    assert faults(source) == []


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
            assert not {name.split(".")[0] for name in names} & forbidden, file
            assert not (isinstance(node, ast.Name) and node.id == "open"), file


def test_no_device_is_named_in_layers_and_losses() -> None:
    for file in [*(ROOT / "cnn" / "layers").glob("*.py"), ROOT / "cnn" / "losses.py", ROOT / "cnn" / "optimizers.py"]:
        strings = [
            n.value for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)
        ]
        assert not {"cpu", "cuda", "mps"} & {value for value in strings if isinstance(value, str)}
