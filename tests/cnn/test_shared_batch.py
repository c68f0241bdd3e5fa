"""A batch that several processes share: with `Mode.reduce` batch norm computes what one process does on all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn import Layer, Mode, Sequential, build_model, ops
from cnn.gradients.finite_differences import relative_error
from cnn.graphs.fusion import fuse
from cnn.layers import LAYERS
from tests.cnn.case import distinct, normal
from tests.cnn.oracle import Entry, bound, randomised

POOL: Entry = {"max_pool2d": {"kernel_size": 3, "stride": 2, "padding": 1}}
CONV: Entry = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
NETWORKS: dict[str, list[Entry]] = {
    "batch_norm": ["batch_norm"],
    "without parameters": [{"batch_norm": {"affine": False}}],
    "with ReLU": ["batch_norm", "relu"],
    "with pool": ["batch_norm", POOL],
    "with both": ["batch_norm", POOL, "relu"],
    "a residual network": [CONV, "batch_norm", "relu", {"residual": {"body": [CONV, "batch_norm"]}}, POOL, "relu"],
}


class Threads:
    """Threads in the place of processes: `reduce` adds up what each of them brings, in the order of their ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = Barrier(size, timeout=60)
        self.brought: dict[int, Tensor] = {}

    def reduce(self, rank: int) -> Callable[[Tensor], None]:
        def add_up(tensor: Tensor) -> None:
            self.brought[rank] = tensor.clone()
            self.barrier.wait()
            total = sum(self.brought[other] for other in range(self.size))
            self.barrier.wait()
            tensor.copy_(torch.as_tensor(total))

        return add_up

    def run(self, work: Callable[[int, Callable[[Tensor], None]], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(lambda rank: work(rank, self.reduce(rank)), range(self.size)))


def twice(tensor: Tensor) -> None:
    """The sum over this process and another one that has the same."""
    tensor.mul_(2)


def trained(network: Sequential, x: Tensor, dy: Tensor, mode: Mode) -> dict[str, Tensor]:
    """What a forward and a backward pass give, of the network as it is trained: fused."""
    fused = fuse(network)
    network.flat.grad.zero_()
    y, cache = fused.forward(x, mode)
    dx = fused.backward(dy, cache)
    assert dx is not None
    return {"y": y, "dx": dx, "gradients": network.flat.grad.clone(), **buffers(network)}


def buffers(network: Sequential) -> dict[str, Tensor]:
    return {name: buffer.data.clone() for name, buffer in network.named_buffers()}


def shared(make: Callable[[], Sequential], x: Tensor, dy: Tensor, sizes: Sequence[int]) -> list[dict[str, Tensor]]:
    """The same of each process, which has a network of its own and a part of the batch."""
    xs, dys = x.split(list(sizes), -1), dy.split(list(sizes), -1)
    networks = [make() for _ in sizes]

    def work(rank: int, reduce: Callable[[Tensor], None]) -> dict[str, Tensor]:
        return trained(networks[rank], xs[rank], dys[rank], Mode(train=True, reduce=reduce))

    return Threads(len(sizes)).run(work)


def check(make: Callable[[], Sequential], x: Tensor, sizes: Sequence[int], tolerance: float = 1e-10) -> None:
    y, _ = make().forward(x, Mode(train=False, keep_cache=False))
    dy = normal(tuple(y.shape), 4).to(x.dtype)
    whole = trained(make(), x, dy, Mode(train=True))
    parts = shared(make, x, dy, sizes)
    for name in ("y", "dx"):
        assert relative_error(torch.cat([part[name] for part in parts], -1), whole[name]) <= tolerance, name
    if whole["gradients"].numel():
        total = torch.stack([part["gradients"] for part in parts]).sum(0)
        assert relative_error(total, whole["gradients"]) <= tolerance
    for name in buffers(make()):
        for part in parts:
            assert relative_error(part[name], whole[name]) <= tolerance, name


@pytest.mark.parametrize("sizes", [(6, 6), (3, 9), (1, 11), (0, 12), (5, 3, 4)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_a_batch_compute_what_the_whole_batch_does(name: str, sizes: Sequence[int]) -> None:
    """On the reference: numba's threads aren't everywhere made for being called by several threads at once."""

    def make() -> Sequential:
        return randomised(build_model({"layers": NETWORKS[name]}, (4, 7, 6)))

    with ops.kernels("reference"):
        check(make, distinct((4, 7, 6, 12), 1), sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_on_one_process_are_one_step(name: str, kernel_set: str) -> None:
    """On every backend: a batch of which this process has everything, and a sum over one process."""
    network = randomised(build_model({"layers": NETWORKS[name]}, (4, 7, 6)))
    x = distinct((4, 7, 6, 17), 1)
    y, _ = network.forward(x, Mode(train=False, keep_cache=False))
    dy = normal(tuple(y.shape), 4)
    before = buffers(network)
    found = []
    for reduce in (None, lambda tensor: None):
        for buffer_name, buffer in network.named_buffers():
            buffer.data.copy_(before[buffer_name])
        found.append(trained(network, x, dy, Mode(train=True, reduce=reduce)))
    for quantity, value in found[0].items():
        assert not value.numel() or relative_error(found[1][quantity], value) <= 1e-10, quantity


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_that_is_there_twice_has_the_same_statistics(name: str, kernel_set: str) -> None:
    """A second process with the same part: sums double, means and variances stay, and so do y and dx."""
    network = randomised(build_model({"layers": NETWORKS[name]}, (4, 7, 6)))
    x = distinct((4, 7, 6, 17), 1)
    y, _ = network.forward(x, Mode(train=False, keep_cache=False))
    dy = normal(tuple(y.shape), 4)
    one = trained(network, x, dy, Mode(train=True))
    two = trained(network, x, dy, Mode(train=True, reduce=twice))
    for quantity in ("y", "dx", "gradients"):
        assert not one[quantity].numel() or relative_error(two[quantity], one[quantity]) <= 1e-10, quantity


def test_large_means_stay_exact_in_single_precision() -> None:
    """Mean 1000, deviation 1: sums of squares would lose all their digits here."""

    def make() -> Sequential:
        return bound(LAYERS["batch_norm"](), (2,), torch.float32)

    x = (normal((2, 20000), 0) + 1000).float()
    with ops.kernels("reference"):
        (first, second) = shared(make, x, normal((2, 20000), 1).float(), (5000, 15000))
        whole = trained(make(), x, normal((2, 20000), 1).float(), Mode(train=True))
    assert relative_error(torch.cat([first["y"], second["y"]], -1), whole["y"]) <= 1e-4


def test_gradients_of_parameters_are_those_of_the_part(kernel_set: str) -> None:
    """They are added up later with all the others: adding them up here as well would count them twice."""
    layer: Layer = LAYERS["batch_norm"]()
    network = bound(layer, (3,))
    x, dy = normal((3, 8), 0), normal((3, 8), 1)
    found = trained(network, x, dy, Mode(train=True, reduce=twice))
    weight, bias = found["gradients"].view(2, 3)
    assert torch.allclose(bias, dy.sum(1))
    xhat = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(weight, (dy * xhat).sum(1))


def test_one_value_a_channel_in_the_whole_batch_is_refused() -> None:
    network = bound(LAYERS["batch_norm"](), (3,))
    with pytest.raises(ValueError, match="one value per channel in the whole batch"):
        network.forward(normal((3, 1), 0), Mode(train=True, reduce=lambda tensor: None))
    y, _ = network.forward(normal((3, 1), 0), Mode(train=True, reduce=twice))
    assert y.shape == (3, 1)


def test_evaluation_shares_nothing() -> None:
    network = bound(LAYERS["batch_norm"](), (3,))

    def refuse(tensor: Tensor) -> None:
        raise AssertionError

    y, cache = network.forward(normal((3, 4), 0), Mode(train=False, reduce=refuse))
    network.backward(y, cache)
