"""The files of a user's own that tests give by `extensions=`, and what makes the program forget them."""

from __future__ import annotations

from pathlib import Path

from runners.config import extensions

FILES = Path(__file__).parent / "extensions"
LAYERS_OF_ONE = (
    "model.layers=[{conv2d:{out_channels:4,kernel_size:3}},batch_norm,relu,flatten,{linear:{out_features:1}}]"
)
TASK = [f"extensions=[{FILES / 'brightness.py'}]", "task.name=brightness", "task.scale=2.0", "loss=l2", LAYERS_OF_ONE]
LAYER = [
    f"extensions={FILES / 'scale.py'}",
    "model.layers=[{scale:{power:2}},{conv2d:{out_channels:4,kernel_size:3}},scale,flatten,{linear:{out_features:3}}]",
]


def forget() -> None:
    extensions._loaded.clear()
    for base, kind in extensions._owners:
        dict(extensions.REGISTRIES)[base].pop(kind, None)
    extensions._owners.clear()
