"""The sides that are compared on a GPU: our captured step, and torch.nn's in the ways in which people run it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.sides import LR, Case, Way
from benchmarks.timing import Step
from cnn import Mode, Sequential, build_model
from cnn.losses import CrossEntropy
from cnn.ops import Precision, set_precision
from cnn.optimizers import Adam
from cnn.schedules import Constant, RunLength
from runners.data.batches import Batch
from runners.tasks.classification import Classification
from runners.tasks.task import Step as TrainingStep
from runners.training.capturing import Steps

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
DEVICE = "cuda"
"""Tests without a GPU put another one here."""

WARM_UP = 5
"""Steps before anything is timed: our third one checks what the second one captured."""

STAGE_BLOCKS, STAGES, WIDTH = 3, 3, 16
"""Of resnet20: residual blocks of a stage, and channels of the first one; each stage after it doubles them."""


def resnet20_peer() -> nn.Module:
    """He et al. 2015, "Deep residual learning", section 4.2, with 1x1 convolutions where the shape changes."""
    layers: list[nn.Module] = [nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    inputs = WIDTH
    for outputs, stride in stages():
        layers.append(peers.Residual(inputs, outputs, stride))
        inputs = outputs
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, peers.CLASSES)
    return nn.Sequential(*layers, *head)


def resnet20_layers() -> list[Any]:
    """The same network of ours."""

    def convolution(outputs: int, stride: int = 1) -> list[Any]:
        arguments = {"out_channels": outputs, "kernel_size": 3, "stride": stride, "padding": 1, "bias": False}
        return [{"conv2d": arguments}, "batch_norm"]

    layers: list[Any] = [*convolution(WIDTH), "relu"]
    for outputs, stride in stages():
        body = [*convolution(outputs, stride), "relu", *convolution(outputs)]
        layers += [{"residual": {"body": body}}, "relu"]
    return [*layers, "global_avg_pool", {"linear": {"out_features": peers.CLASSES}}]


def stages() -> Iterator[tuple[int, int]]:
    """Channels and stride of each residual block of resnet20."""
    for stage in range(STAGES):
        for block in range(STAGE_BLOCKS):
            yield WIDTH << stage, 2 if stage and not block else 1


@dataclass(frozen=True)
class GpuCase(Case):
    """What is measured: one of the models of `benchmarks.peers`, or resnet20."""

    def network(self) -> Sequential:
        if self.model != "resnet20":
            return super().network()
        return build_model({"layers": resnet20_layers()}, self.input_shape)

    def our_network(self) -> Sequential:
        """Our network on the GPU."""
        return moved(self.network())

    def peer(self) -> nn.Module:
        return resnet20_peer() if self.model == "resnet20" else super().peer()

    def batch_there(self) -> Batch:
        batch = self.draw()
        return Batch(batch.x.to(DEVICE), batch.targets.to(DEVICE))


MODELS = (*peers.MODELS, "resnet20")


def moved(network: Sequential) -> Sequential:
    """Move a network to the GPU, in place."""
    network.bind(dtype=torch.float32, device=DEVICE)
    return network


@dataclass
class Ours:
    """Our step of a case in one precision, captured: as the training loop takes it, and its graph alone."""

    case: GpuCase
    precision: Precision
    steps: Steps = field(init=False)

    def __post_init__(self) -> None:
        self.prepare()
        task, self.batch = Classification(), self.case.batch_there()
        task.build({"model": self.case.our_network()}, CrossEntropy())
        task.train_with({"model": (Adam(LR), Constant())})
        mode = Mode(train=True, generator=torch.Generator(DEVICE))
        self.steps, self.only = Steps(task), TrainingStep(0, RunLength(1, 1), mode)

    def prepare(self) -> None:
        set_precision(self.precision)

    def take(self) -> None:
        self.steps.take([self.batch], self.only)

    def warm(self) -> None:
        """Take steps until they are replayed. Raises RuntimeError if they can't be."""
        for _ in range(WARM_UP):
            self.take()
        self.steps.wait()
        if self.steps.refused:
            raise RuntimeError(f"not replayed: {next(iter(self.steps.refused.values()))}")

    @property
    def replay(self) -> Callable[[], None]:
        """The graph of the step, without what Python does in each step."""
        [recorded] = [each for each in self.steps._seen.values() if each is not None]
        tape: Any = recorded.tape
        replay: Callable[[], None] = tape.replay
        return replay


@dataclass(frozen=True)
class Peer:
    """A way to run torch.nn: eager, with torch.compile, or eager and captured by hand as one graph of the whole step.

    `precision`: of products; bf16 is autocast.
    """

    how: str
    precision: Precision
    channels_last: bool = True

    @property
    def kind(self) -> str:
        return f"{self.how} {self.precision}"

    @property
    def name(self) -> str:
        return f"{self.kind}, channels last" if self.channels_last else self.kind

    def prepare(self) -> None:
        allowed = self.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = True

    def step(self, case: GpuCase) -> Step:
        """The training step of a case, ready to be timed."""
        self.prepare()
        way = Way(channels_last=self.channels_last)
        network, batch = way.network(case.peer().to(DEVICE)), case.draw()
        images, labels = there(way, batch.x), batch.targets.to(DEVICE)
        captured = self.how == "graph"
        optimizer = torch.optim.Adam(network.parameters(), LR, fused=True, capturable=captured)
        autocast = torch.autocast(DEVICE, torch.bfloat16, cache_enabled=False) if self.precision == "bf16" else None

        def loss(images: Tensor) -> Tensor:
            return nn.functional.cross_entropy(network(images), labels)

        run = torch.compile(loss, dynamic=False, mode="reduce-overhead") if self.how == "compile" else loss

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast or nullcontext():
                value = run(images)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return whole_graph(step) if captured else warmed(step)


def there(way: Way, x: Tensor) -> Tensor:
    """Our images as torch.nn's, on the GPU and in a memory format; see `Way.images`."""
    first = x.movedim(-1, 0)
    return torch.empty(first.shape, memory_format=way.format, device=DEVICE).copy_(first)


def warmed(step: Step) -> Step:
    for _ in range(WARM_UP):
        step()
    return step


def whole_graph(step: Step) -> Step:
    """The step as one graph. What it does at first, such as choosing algorithms, it does before, on another stream."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warmed(step)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    vars(graph)["kept"] = step  # with the memory that the graph uses
    return graph.replay


PEERS = {
    "eager": [Peer("eager", precision, last) for precision in ("float32", "tf32") for last in (False, True)],  # type: ignore[arg-type]
    "graph": [Peer("graph", precision) for precision in PRECISIONS],
    "compile": [Peer("compile", "float32"), Peer("compile", "tf32")],
}


def chosen_peers(hows: Sequence[str], precisions: Sequence[str]) -> list[Peer]:
    """The peers of these ways; the one of bf16 only if ours is measured in it."""
    wanted = [peer for how in hows for peer in PEERS[how]]
    return [peer for peer in wanted if peer.precision != "bf16" or "bf16" in precisions]
