"""Compile for a GPU what the shipped models' steps launch, without one.

    python -m tests.cnn.gpu.compiled CAPABILITY PRECISIONS BATCHES MODELS

CAPABILITY is 80 or 90, as in sm_90, and the others are lists with commas between; as a model, `cases` are those that
kernels are tried on elsewhere. Prints a JSON line for each kernel
that is compiled: registers, bytes of shared memory and of the stack, which is where registers are spilled to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton
from omegaconf import OmegaConf
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from cnn import Mode, build_model, ops
from cnn.graphs.fusion import fuse
from cnn.losses import CrossEntropy
from cnn.ops import Backend, cuda
from cnn.ops.cuda.launching import launched_by
from cnn.optimizers import Adam
from runners.config import composition, folders
from tests.cnn.gpu.cases import CASES
from tests.cnn.gpu.trying import Where

DISASSEMBLER = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class NoDevice:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, *_: Any) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return torch.cuda

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


class Compiler:
    """Compiles each kernel for its arguments instead of launching it."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: int) -> None:
        compiled = kernel.warmup(*arguments, grid=grid, **options)
        if compiled.hash in self._seen:
            return
        self._seen.add(compiled.hash)
        row = {"kernel": kernel.__name__, "shared": compiled.metadata.shared, **resources(compiled.asm["cubin"])}
        constants = [value for value in arguments if isinstance(value, (int, str, tuple))]
        print(json.dumps({**row, "arguments": constants, "options": options}), flush=True)


def resources(binary: bytes) -> dict[str, int]:
    """What a compiled kernel uses."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = subprocess.run(
            [DISASSEMBLER, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK):(\d+)", text))
    return {"registers": int(found["REG"]), "stack": int(found["STACK"])}


def run_steps(models: Sequence[str], batches: Sequence[int]) -> None:
    """A training step of each model and batch, and an evaluation, whose kernels aren't run."""
    for model in models:
        if model == "cases":
            run_cases(batches)
            continue
        layers = OmegaConf.load(folders.CONFIGS / "model" / f"{model}.yaml")
        config: Any = OmegaConf.to_container(OmegaConf.create({"model": layers}), resolve=True)
        network = build_model(config["model"], (1, 28, 28))
        scored, loss, optimizer = fuse(network.without_last("softmax")), CrossEntropy(), Adam()
        for batch in batches:
            x, target = torch.zeros(1, 28, 28, batch), torch.zeros(batch, dtype=torch.int64)
            y, cache = scored.forward(x, Mode(train=True))
            _, kept = loss.forward(y, target)
            scored.backward(loss.backward(kept), cache, need_dx=False)
            optimizer.step(network.flat)
            ops.count_hits(scored.forward(x, Mode(train=False, keep_cache=False))[0], target)


def run_cases(batches: Sequence[int]) -> None:
    """Every case, whose kernels aren't run, in both dtypes."""
    for dtype in (torch.float32, torch.float64):
        for batch in batches:
            for case in CASES.values():
                case(Where("cpu", dtype, batch))


def main(capability: str, precisions: str, batches: str, models: str) -> None:
    torch.set_num_threads(1)
    driver.set_active(NoDevice(int(capability)))
    composition.register_resolvers()
    ops.register(Backend("compiled only", lambda device, dtype: True, cuda.BACKEND.functions, priority=9))
    with launched_by(Compiler()):
        for precision in precisions.split(","):
            ops.set_precision(precision)  # type: ignore[arg-type]
            run_steps(models.split(","), [int(batch) for batch in batches.split(",")])


if __name__ == "__main__":
    main(*sys.argv[1:])
