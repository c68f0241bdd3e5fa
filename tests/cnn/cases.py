"""The cases of every layer, by family."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from cnn.layers import LAYERS
from tests.cnn.case import Case, Strategy, batches, normal, off_three, off_zero, per_axis, shapes
from tests.cnn.oracle import Entry
from tests.cnn.window_cases import convolutions, pools, transposed


@st.composite
def batch_norms(draw: st.DrawFn) -> Case:
    channels, size = draw(st.integers(1, 4)), draw(st.lists(st.integers(1, 4), max_size=3))
    batch = draw(st.integers(-(-8 // int(torch.Size(size).numel())), 12))
    arguments = {"momentum": draw(st.sampled_from([0.1, 0.0, 0.7])), "eps": draw(st.sampled_from([1e-5, 1e-2]))}
    return Case("batch_norm", arguments, (channels, *size), batch, train=draw(st.booleans()))


@st.composite
def example_norms(draw: st.DrawFn, kind: str) -> Case:
    """At least four values in each group: of two values the normalised ones are -1 and 1, whatever x is."""
    eps, affine = draw(st.sampled_from([1e-5, 1e-2])), draw(st.booleans())
    if kind == "layer_norm":
        shape = draw(shapes.filter(lambda shape: torch.Size(shape).numel() >= 4))
        return Case(kind, {"eps": eps, "elementwise_affine": affine}, shape, draw(batches))
    if kind == "instance_norm":
        size = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda s: torch.Size(s).numel() >= 4))
        return Case(kind, {"eps": eps, "affine": affine}, (draw(st.integers(1, 3)), *size), draw(batches))
    groups, each, size = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.lists(st.integers(1, 4), max_size=3))
    assume(each * torch.Size(size).numel() >= 4)
    return Case(kind, {"num_groups": groups, "eps": eps, "affine": affine}, (groups * each, *size), draw(batches))


@st.composite
def linears(draw: st.DrawFn) -> Case:
    arguments = {"out_features": draw(st.integers(1, 7)), "bias": draw(st.booleans())}
    return Case("linear", arguments, (draw(st.integers(1, 7)),), draw(batches))


@st.composite
def embeddings(draw: st.DrawFn) -> Case:
    count = draw(st.integers(2, 6))
    arguments = {"num_embeddings": count, "embedding_dim": draw(st.integers(1, 4))}
    if draw(st.booleans()):
        arguments["padding_idx"] = draw(st.integers(-count, count - 1))

    def indices(shape: tuple[int, ...], seed: int) -> Tensor:
        """Numbers near whole ones, to which they are rounded."""
        numbers = LAYERS["embedding"](**arguments).example(normal(shape, seed))
        return numbers + 0.3 * normal(shape, seed + 1).clamp(-1, 1)

    return Case("embedding", arguments, draw(shapes), draw(batches), indices)


@st.composite
def elementwise(draw: st.DrawFn, kind: str) -> Case:
    drawn: dict[str, Any] = {
        "leaky_relu": {"negative_slope": draw(st.sampled_from([0.01, 0.3, -0.5]))},
        "elu": {"alpha": draw(st.sampled_from([1.0, 0.3]))},
        "gelu": {"approximate": draw(st.sampled_from(["none", "tanh"]))},
        "softplus": {"beta": draw(st.sampled_from([1, 0.5, 3.0])), "threshold": draw(st.sampled_from([20, 0.0]))},
    }
    draw_x = off_three if kind == "hard_swish" else off_zero  # where a softplus with threshold 0 jumps
    return Case(kind, drawn.get(kind, {}), draw(shapes), draw(batches), draw_x)


@st.composite
def prelus(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    arguments = {"num_parameters": draw(st.sampled_from([1, shape[0]])), "init": draw(st.sampled_from([0.25, -0.5]))}
    return Case("prelu", arguments, shape, draw(st.sampled_from([2, 3, 5])), off_zero)


@st.composite
def over_features(draw: st.DrawFn, kind: str) -> Case:
    shape = draw(shapes)  # over one class the gradient is 0, and so is what errors are measured by
    return Case(kind, {}, (shape[0] + 1, *shape[1:]), draw(batches))


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    shape = draw(shapes)
    given = list(draw(st.permutations(shape)))
    if draw(st.booleans()):
        given[draw(st.integers(0, len(given) - 1))] = -1
    return Case("reshape", {"shape": given}, shape, draw(batches))


@st.composite
def upsamples(draw: st.DrawFn) -> Case:
    shape = draw(shapes.filter(lambda shape: len(shape) > 1))
    arguments: dict[str, Any] = {"scale_factor": draw(per_axis(len(shape) - 1, 1, 3))}
    if draw(st.booleans()):
        arguments |= {"mode": ["linear", "bilinear", "trilinear"][len(shape) - 2], "align_corners": draw(st.booleans())}
    return Case("upsample", arguments, shape, draw(batches))


@st.composite
def pixel_shuffles(draw: st.DrawFn) -> Case:
    factor, (channels, *size) = draw(st.integers(1, 3)), draw(st.tuples(*[st.integers(1, 3)] * 3))
    return Case("pixel_shuffle", {"upscale_factor": factor}, (factor * factor * channels, *size), draw(batches))


@st.composite
def dropouts(draw: st.DrawFn, kind: str) -> Case:
    rank = {"dropout2d": 3, "dropout3d": 4}.get(kind)
    shape = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank).map(tuple) if rank else shapes)
    return Case(
        kind, {"p": draw(st.sampled_from([0.0, 0.2, 0.5, 0.9]))}, shape, draw(batches), train=draw(st.booleans())
    )


@st.composite
def graphs(draw: st.DrawFn, kind: str) -> Case:
    """Smooth layers inside: whole numbers of kinks can't be avoided by drawing the outermost input."""
    channels, size = draw(st.integers(1, 3)), draw(st.integers(3, 6))
    width, stride = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))

    def conv(out_channels: int, stride: int = 1, kernel: int = 3) -> Entry:
        return {
            "conv2d": {"out_channels": out_channels, "kernel_size": kernel, "stride": stride, "padding": kernel // 2}
        }

    body: list[Entry] = [conv(width, stride), "batch_norm", "tanh", conv(width)]
    shortcut: Any = draw(st.sampled_from(["auto", [conv(width, stride, kernel=1)]]))
    nested: dict[str, dict[str, Any]] = {
        "sequential": {"layers": [conv(width), "silu", {"sequential": {"layers": ["batch_norm"]}}]},
        "repeat": {"times": draw(st.integers(1, 3)), "layers": ["batch_norm", conv(channels), "tanh"]},
        "residual": {"body": body, "shortcut": shortcut},
        "concat": {
            "branches": [["identity"], [conv(width), "tanh"], ["sigmoid", conv(2, kernel=1)]][draw(st.integers(0, 1)) :]
        },
    }
    arguments: dict[str, Any] = nested[kind]
    if draw(st.booleans()):  # one of the others inside
        other = draw(st.sampled_from(["repeat", "residual", "concat"]))
        inside: Entry = {other: nested[other]}
        wrapped: dict[str, dict[str, Any]] = {
            "sequential": {"layers": [inside, "tanh"]},
            "repeat": {"times": 2, "layers": [inside, conv(channels), "tanh"]},
            "residual": {"body": [inside, conv(width)], "shortcut": "auto"},
            "concat": {"branches": [[inside], [{**inside} if isinstance(inside, dict) else inside, "tanh"]]},
        }
        arguments = wrapped[kind]
    return Case(kind, arguments, (channels, size, size), draw(st.integers(2, 4)), train=draw(st.booleans()))


@st.composite
def spectral_norms(draw: st.DrawFn) -> Case:
    """Of weights with several values: a single one becomes 1 or -1 whatever it is."""
    axes = draw(st.sampled_from(AXES))
    inner = draw(st.one_of(linears(), convolutions(axes), transposed(axes)))
    layer = LAYERS[inner.kind](**inner.arguments)
    assume(math.prod(layer.declare(inner.input_shape)["weight"].shape) > 1)
    arguments = {"layers": [inner.entry], "n_power_iterations": draw(st.integers(1, 3))}
    return Case("spectral_norm", arguments, inner.input_shape, inner.batch, train=draw(st.booleans()))


AXES = (1, 2, 3)
ELEMENTWISE = ("relu", "leaky_relu", "elu", "softplus", "gelu", "silu", "hard_swish", "sigmoid", "tanh")

FAMILIES: dict[str, dict[str, Strategy]] = {
    "convolution": {f"conv{n}d": convolutions(n) for n in AXES},
    "transposed convolution": {f"conv_transpose{n}d": transposed(n) for n in AXES},
    "pooling": {
        **{f"{kind}_pool{n}d": pools(n, kind) for kind in ("max", "avg") for n in AXES},
        "global_avg_pool": shapes.filter(lambda shape: len(shape) > 1).flatmap(
            lambda shape: batches.map(lambda batch: Case("global_avg_pool", {}, shape, batch))
        ),
    },
    "linear": {"linear": linears()},
    "embedding": {"embedding": embeddings()},
    "normalisation": {
        "batch_norm": batch_norms(),
        **{kind: example_norms(kind) for kind in ("group_norm", "instance_norm", "layer_norm")},
    },
    "activation": {
        **{kind: elementwise(kind) for kind in ELEMENTWISE},
        "prelu": prelus(),
        **{kind: over_features(kind) for kind in ("softmax", "log_softmax")},
    },
    "dropout": {kind: dropouts(kind) for kind in ("dropout", "dropout2d", "dropout3d")},
    "shape": {
        "reshape": reshapes(),
        "pixel_shuffle": pixel_shuffles(),
        "upsample": upsamples(),
        **{kind: elementwise(kind) for kind in ("flatten", "identity")},
    },
    "spectral normalisation": {"spectral_norm": spectral_norms()},
    "graph": {kind: graphs(kind) for kind in ("sequential", "repeat", "residual", "concat")},
}
