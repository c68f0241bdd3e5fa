"""PyTorch's layers as the oracle, made from the same configs and seen through our batch-last layout."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from cnn import Buffer, Graph, Layer, Mode, Parameter, Sequential
from cnn.gradients.finite_differences import relative_error

Entry = str | Mapping[str, Any]
AXES = (1, 2, 3)


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class Concat(nn.Module):
    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Reshaped(nn.Module):
    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)


class Embedding(nn.Embedding):
    """With numbers of any dtype, which get a gradient of zeros, and features first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.round().long()).movedim(-1, 1) + 0 * x.sum()


def residual(shape: Sequence[int], body: Sequence[Entry], shortcut: Any = "auto") -> nn.Module:
    inner = sequence(body, shape)
    if not isinstance(shortcut, str):
        return Residual(inner, sequence(shortcut, shape))
    after = shape_after(inner, shape)
    if after == tuple(shape):
        return Residual(inner, nn.Identity())
    assert shortcut == "auto"
    axes = len(shape) - 1
    if not axes:
        return Residual(inner, nn.Sequential(nn.Linear(shape[0], after[0], bias=False), nn.BatchNorm1d(after[0])))
    stride = [-(-before // a) for before, a in zip(shape[1:], after[1:], strict=True)]
    conv = getattr(nn, f"Conv{axes}d")(shape[0], after[0], 1, stride, bias=False)
    return Residual(inner, nn.Sequential(conv, getattr(nn, f"BatchNorm{axes}d")(after[0])))


MODULES: dict[str, Callable[..., nn.Module]] = {
    **{f"conv{n}d": lambda s, n=n, **a: getattr(nn, f"Conv{n}d")(s[0], **a) for n in AXES},
    **{f"conv_transpose{n}d": lambda s, n=n, **a: getattr(nn, f"ConvTranspose{n}d")(s[0], **a) for n in AXES},
    **{f"max_pool{n}d": lambda s, n=n, **a: getattr(nn, f"MaxPool{n}d")(**a) for n in AXES},
    **{f"avg_pool{n}d": lambda s, n=n, **a: getattr(nn, f"AvgPool{n}d")(**a) for n in AXES},
    "global_avg_pool": lambda s: nn.Sequential(getattr(nn, f"AdaptiveAvgPool{len(s) - 1}d")(1), nn.Flatten()),
    "linear": lambda s, **a: nn.Linear(s[0], **a),
    "embedding": lambda s, **a: Embedding(**a),
    "batch_norm": lambda s, **a: getattr(nn, f"BatchNorm{max(1, len(s) - 1)}d")(s[0], **a),
    "group_norm": lambda s, num_groups, **a: nn.GroupNorm(num_groups, s[0], **a),
    "instance_norm": lambda s, **a: getattr(nn, f"InstanceNorm{len(s) - 1}d")(s[0], **a),
    "layer_norm": lambda s, **a: nn.LayerNorm(s, **a),
    "relu": lambda s: nn.ReLU(),
    "leaky_relu": lambda s, **a: nn.LeakyReLU(**a),
    "elu": lambda s, **a: nn.ELU(**a),
    "prelu": lambda s, **a: nn.PReLU(**a),
    "softplus": lambda s, **a: nn.Softplus(**a),
    "hard_swish": lambda s: nn.Hardswish(),
    "gelu": lambda s, **a: nn.GELU(**a),
    "silu": lambda s: nn.SiLU(),
    "sigmoid": lambda s: nn.Sigmoid(),
    "tanh": lambda s: nn.Tanh(),
    "softmax": lambda s: nn.Softmax(dim=1),
    "log_softmax": lambda s: nn.LogSoftmax(dim=1),
    "flatten": lambda s: nn.Flatten(),
    "identity": lambda s: nn.Identity(),
    "reshape": lambda s, shape: Reshaped(shape),
    "pixel_shuffle": lambda s, **a: nn.PixelShuffle(**a),
    "upsample": lambda s, scale_factor, **a: nn.Upsample(
        scale_factor=tuple(map(float, scale_factor)) if isinstance(scale_factor, Sequence) else scale_factor, **a
    ),
    "dropout": lambda s, **a: nn.Dropout(**a),
    "dropout2d": lambda s, **a: nn.Dropout2d(**a),
    "dropout3d": lambda s, **a: nn.Dropout3d(**a),
    "sequential": lambda s, layers: sequence(layers, s),
    "repeat": lambda s, times, layers: sequence([{"sequential": {"layers": layers}}] * times, s),
    "residual": residual,
    "spectral_norm": lambda s, layers, **a: parametrizations.spectral_norm(sequence(layers, s)[0], **a),
    "concat": lambda s, branches: Concat([sequence(branch, s) for branch in branches]),
}


def sequence(entries: Sequence[Entry], shape: Sequence[int]) -> nn.Sequential:
    """The torch module that a list of layers of a config means, for inputs of this shape."""
    modules = []
    for entry in entries:
        kind, arguments = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
        own = {name: value for name, value in (arguments or {}).items() if name not in ("name", "init")}
        modules.append(MODULES[kind](tuple(shape), **own))
        shape = shape_after(modules[-1], shape)
    return nn.Sequential(*modules)


def shape_after(module: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(2, *shape, dtype=dtype)).shape[1:])


def bound(layer: Layer, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Sequential:
    """A network of one layer. Parameters that start as constants are made random: a bias of zero hides mistakes."""
    network = Sequential({"layer": layer})
    network.build(input_shape)
    return randomised(network, dtype, seed)


def randomised(network: Sequential, dtype: torch.dtype = torch.float64, seed: int = 0) -> Sequential:
    network.bind(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    for _, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(parameter.data + (0.5 * noise).to(dtype))
    for name, buffer in network.named_buffers():
        noise = torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
        buffer.data.copy_((noise + 0.5 if name.endswith("var") else noise).to(dtype))
    for _, layer in network.named_layers():
        layer.settle()
    return network


def theirs(x: Tensor) -> Tensor:
    """[C, *S, N] as [N, C, *S]."""
    return x.movedim(-1, 0).contiguous()


def ours(x: Tensor) -> Tensor:
    """[N, C, *S] as [C, *S, N]."""
    return x.movedim(0, -1).contiguous()


def tensors_of(network: Graph) -> Iterator[tuple[str, Parameter | Buffer]]:
    """Parameters and buffers layer by layer, which is the order of a torch module's state."""
    for path, layer in network.named_layers():
        for name, value in vars(layer).items():
            if isinstance(value, Parameter | Buffer):
                yield f"{path}.{name}", value


def their_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The same of a torch module; those of a spectral norm under our names."""
    for inner in module.modules():
        if parametrize.is_parametrized(inner):
            weight: Any = inner.get_submodule("parametrizations.weight")
            yield from (("u", weight[0]._u), ("v", weight[0]._v), ("weight", weight.original))
        elif isinstance(inner, parametrize.ParametrizationList) or hasattr(inner, "_u"):
            continue
        tensors = [*inner.named_parameters(recurse=False), *inner.named_buffers(recurse=False)]
        yield from ((name, tensor) for name, tensor in tensors if name != "num_batches_tracked")


def copy_state(network: Graph, module: nn.Module) -> None:
    """Our parameters and buffers into a torch module: same names within a layer, same shapes, same order of layers."""
    with torch.no_grad():
        for (key, target), (name, own) in zip(their_tensors(module), tensors_of(network), strict=True):
            assert key == name.split(".")[-1]
            target.copy_(own.data)


def compare(network: Sequential, module: nn.Module, x: Tensor, mode: Mode, *, as_one: bool = False) -> dict[str, float]:
    """The relative errors of output, input gradient, parameter gradients and buffers against torch's.

    `as_one` takes all parameter gradients for one vector, as is right for nets: within them some gradients cancel to
    nearly nothing, and in float32 their own size is then no measure.
    """
    module.to(x.dtype)
    copy_state(network, module)
    module.train(mode.train)
    network.flat.grad.zero_()
    y, cache = network.forward(x, mode)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    dx = network.backward(dy, cache)
    leaf = theirs(x).requires_grad_()
    expected = module(leaf)
    expected.backward(theirs(dy))
    assert dx is not None
    assert leaf.grad is not None
    errors = {"y": relative_error(y, ours(expected.detach())), "dx": relative_error(dx, ours(leaf.grad))}
    found = [(name, tensor) for name, tensor in tensors_of(network) if isinstance(tensor, Parameter)]
    tensors = [tensor for _, tensor in their_tensors(module)]
    wanted = [tensor.grad for tensor in tensors if isinstance(tensor, nn.Parameter) and tensor.grad is not None]
    if as_one and found:
        vectors = [
            torch.cat([gradient.flatten() for gradient in side]) for side in ([p.grad for _, p in found], wanted)
        ]
        errors["dparameters"] = relative_error(vectors[0], vectors[1])
    else:
        pairs = zip(found, wanted, strict=True)
        errors |= {f"d{name}": relative_error(parameter.grad, gradient) for (name, parameter), gradient in pairs}
    buffers = [tensor for tensor in tensors if not isinstance(tensor, nn.Parameter)]
    for (name, buffer), expected_buffer in itertools.zip_longest(network.named_buffers(), buffers):
        errors[name] = relative_error(buffer.data, expected_buffer)
    return errors
