"""Small runs: their data, their network, and what of one has to be the same in another that computes the same."""

from __future__ import annotations

import gc
import gzip
import io
import json
import struct
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from hydra._internal.hydra import Hydra
from hydra.types import RunMode

from runners.cli import train
from runners.files import checkpoint, metrics_csv

Array = np.ndarray[Any, Any]

SMALL_MODEL = "model.layers=[{conv2d:{out_channels:4,kernel_size:3}},batch_norm,relu,flatten,{linear:{out_features:3}}]"


def write_idx(file: Path, values: Array) -> None:
    """An IDX file of unsigned bytes, gzipped where the name ends so."""
    content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def stripes(count: int, shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """Noisy images whose class, 0 to 2, says along which of the first axes, or neither, they are striped."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    images = generator.integers(0, 80, (count, *shape))
    for image, label in zip(images, labels, strict=True):
        if label < 2:
            image[(slice(None),) * label + (slice(None, None, 2),)] += 120
    return images, labels


def write_dataset(folder: Path, shape: tuple[int, ...] = (10, 10), end: str = "", count: int = 150) -> Path:
    """The IDX files of a dataset of `stripes` whose names end so: `count` training images, 60 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, number, seed in (("train", count, 1), ("t10k", 60, 2)):
        images, labels = stripes(number, shape, seed)
        write_idx(folder / f"{prefix}-images-idx{images.ndim}-ubyte{end}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", labels)
    return folder


def given_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> RunMode:
    """For Hydra.get_mode, which composes the whole config to see a mode that our command always gives it."""
    (mode,) = (text.removeprefix("hydra.mode=") for text in overrides if text.startswith("hydra.mode="))
    return RunMode[mode]


def warm_up() -> None:
    """What a process does once, before it is forked: Hydra looks for its plugins, pydantic makes its validators."""
    sys.argv[:] = ["run.py"]
    with redirect_stderr(io.StringIO()):
        assert train.main(["epochs=0"]) == 2
    gc.freeze()  # else the first collection of a child copies every page


def without_times(value: Any) -> Any:
    """Everything that a run wrote but what depends on the clock; arrays as their bytes."""
    if isinstance(value, dict):
        timed = ("seconds", "step_seconds", "images_per_second", "run_dir")
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return (value.dtype.name, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def outcome(run: str | Path) -> dict[str, Any]:
    """Rows, summary and checkpoints."""
    return {
        "rows": without_times(metrics_csv.read(Path(run, "metrics.csv"))),
        "summary": without_times(json.loads(Path(run, "summary.json").read_text())),
        **{
            which: without_times(checkpoint.load(Path(run, f"checkpoints/{which}.pkl")).model_dump())
            for which in ("last", "best")
        },
    }
