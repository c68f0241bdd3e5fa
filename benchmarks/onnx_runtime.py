"""ONNX Runtime as another peer of inference: a torch.nn network, exported and run with its default options.

Those have all graph optimisations on (batch normalisation and ReLU become part of the convolutions, layouts fit the
processor) and let threads wait for work by spinning.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.timing import Step

EXTRA = "benchmark"
"""The extra of pyproject.toml that installs it."""


def problem() -> str:
    """Why it can't be used, in one line; empty if it can."""
    try:
        import onnx  # noqa: F401 - the exporter needs it
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"{error}".splitlines()[0]
    return ""


def exported(network: nn.Module, images: Tensor) -> bytes:
    """The network as an ONNX model for images of exactly this shape.

    By torch's older exporter, which needs one package less and takes a quarter of the time; ONNX Runtime fuses the same
    operations of either exporter's model.
    """
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter
        file = Path(folder, "network.onnx")
        torch.onnx.export(network, (images,), str(file), input_names=["x"], output_names=["y"], dynamo=False)
        return file.read_bytes()


def forward_pass(network: nn.Module, images: Tensor, threads: int) -> Step:
    """A forward pass of the network, which is in evaluation mode."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(exported(network, images), options, providers=["CPUExecutionProvider"])
    x = images.numpy()
    return lambda: session.run(["y"], {"x": x})
