"""Cases of what a step does between and after its layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from cnn.ops import capture
from cnn.ops.reference import activation, counts, examples, guard, loss, optimizer, rows
from tests.cnn.gpu.trying import FUNCTIONS, Numbers, Tensors, Where, case, exact


class Flagged:
    """Where a recorded step would note faults."""

    def __init__(self, fault: Tensor) -> None:
        self.fault = fault

    def note_live(self, function: Callable[[Any], object], argument: Any) -> None: ...

    def note_kernel(self, kernel: Any, arguments: Any, fault: Any) -> None: ...

    def undone_at_a_fault(self, tensors: Any) -> nullcontext[None]:
        return nullcontext()


@case("activations")
def _(where: Where) -> tuple[Tensors, Tensors]:
    random = Numbers(where)
    a, b = random(3, 7, where.batch), random(3, 7, where.batch)
    a[0, 0, 0] = math.nan
    y = activation.relu(a.double())
    right = {
        "relu": y,
        "relu backward": activation.relu_backward(b.double(), y),
        "leaky": activation.leaky_relu(a.double(), 0.01),
        "leaky backward": activation.leaky_relu_backward(b.double(), a.double(), 0.2),
        "sum": a.double() + b.double(),
        "sum and relu": activation.add_relu(*exact(a, b)),
    }
    a, b = random.there(a, b)
    y = FUNCTIONS["relu"](a)
    return {
        "relu": y,
        "relu backward": FUNCTIONS["relu_backward"](b, y),
        "leaky": FUNCTIONS["leaky_relu"](a, 0.01),
        "leaky backward": FUNCTIONS["leaky_relu_backward"](b, a, 0.2),
        "sum": FUNCTIONS["add"](a, b),
        "sum and relu": FUNCTIONS["add_relu"](a, b),
    }, right


@case("cross entropy")
def _(where: Where) -> tuple[Tensors, Tensors]:
    found: Tensors = {}
    right: Tensors = {}
    for classes in (2, 10, 300):
        random = Numbers(where)
        logits, target = random(classes, where.batch) * 5, random.integers(classes, where.batch)
        logits[-1, 0] = -math.inf
        target[0] = 0
        for name, weight, smoothing in (
            ("plain", None, 0.0),
            ("weighted", random(classes).abs(), 0.0),
            ("weighted and smoothed", random(classes).abs(), 0.1),
            ("all weights 0", torch.zeros(classes, dtype=where.dtype), 0.0),
        ):
            logits = logits if not smoothing else logits.clamp(min=-50)
            wide = None if weight is None else weight.double()
            value, gradient = loss.cross_entropy(logits.double(), target, wide, smoothing)
            right |= {f"{classes} {name}": value, f"{classes} {name} gradient": gradient}
            there = None if weight is None else random.there(weight)[0]
            value, gradient = FUNCTIONS["cross_entropy"](*random.there(logits, target), there, smoothing)
            found |= {f"{classes} {name}": value, f"{classes} {name} gradient": gradient}
    return found, right


@case("targets that aren't classes")
def _(where: Where) -> tuple[Tensors, Tensors]:
    """A recorded step notes them, in many classes as well, for which another function computes."""
    found, right = {}, {}
    for classes in (10, 2000):
        for name, stray in (("none", None), ("too large", classes), ("negative", -1)):
            random = Numbers(where)
            logits, target = random(classes, where.batch), random.integers(classes, where.batch)
            if stray is not None:
                target[where.batch // 2] = stray
            faults = Flagged(torch.zeros((), dtype=torch.int32, device=where.device))
            with capture.noting(faults):
                FUNCTIONS["cross_entropy"](*random.there(logits, target), None, 0.0)
            found[f"{classes} classes, {name}"] = faults.fault
            right[f"{classes} classes, {name}"] = torch.tensor(int(stray is not None), dtype=torch.int32)
    return found, right


@case("hits")
def _(where: Where) -> tuple[Tensors, Tensors]:
    random = Numbers(where)
    scores, target = (random(10, where.batch) * 2).round(), random.integers(10, where.batch)
    target = torch.where(random(where.batch) > 0, counts.argmax(scores), target)
    scores[3, -1], target[-1] = math.nan, 3
    right = {"hits": counts.count_hits(scores.double(), target)}
    return {"hits": FUNCTIONS["count_hits"](*random.there(scores, target))}, right


@case("adam")
def _(where: Where) -> tuple[Tensors, Tensors]:
    random, count = Numbers(where), 3001
    given = torch.zeros(count, dtype=where.dtype), random(count), random(count), random(count).abs()
    names = "data", "gradient", "mean", "square"

    def both(function: Callable[..., None], vectors: tuple[Tensor, ...]) -> Tensors:
        for number in (1, 2, 3):
            step = torch.tensor(0.01 / (1 - 0.9**number)).to(vectors[0])
            correction = torch.tensor(1 / math.sqrt(1 - 0.999**number)).to(vectors[0])
            function(*vectors, (0.9, 0.999), 1e-8, step, correction)
        return dict(zip(names, vectors, strict=True))

    return both(FUNCTIONS["adam"], random.there(*given)), both(optimizer.adam, exact(*given))


@case("examples")
def _(where: Where) -> tuple[Tensors, Tensors]:
    random = Numbers(where)
    rows, chosen = random.integers(256, 9, 100).to(torch.uint8), random.integers(9, where.batch)
    x = torch.full((100, where.batch), math.nan, dtype=where.dtype)
    right = x.double().clone()
    examples.take_examples(right, rows, chosen)
    x, rows, chosen = random.there(x, rows, chosen)
    FUNCTIONS["take_examples"](x, rows, chosen)
    return {"x": x}, {"x": right}


@case("rows")
def _(where: Where) -> tuple[Tensors, Tensors]:
    random = Numbers(where)
    table, index, added = random(7, 5), random.integers(7, where.batch), random(where.batch, 5)
    right = table.double().clone()
    rows.add_rows(right, index, added.double())
    table, index, added = random.there(table, index, added)
    FUNCTIONS["add_rows"](table, index, added)
    return {"table": table}, {"table": right}


@case("faults")
def _(where: Where) -> tuple[Tensors, Tensors]:
    """Flags, and what is put back: vectors of two dtypes, of which one is longer than a block."""
    random, found, right = Numbers(where), {}, {}
    for name, spoilt in (("none", None), ("NaN", math.nan), ("infinity", -math.inf)):
        x = random(3, 1500)
        if spoilt is not None:
            x[1, 700] = spoilt
        flag = torch.zeros((), dtype=torch.int32)
        guard.note_not_finite(x, flag)
        right[f"flag with {name}"] = flag
        (there,) = random.there(x)
        flag = torch.zeros((), dtype=torch.int32, device=where.device)
        FUNCTIONS["note_not_finite"](there, flag)
        found[f"flag with {name}"] = flag
        homes = [torch.arange(2000, dtype=torch.float32), torch.arange(5, dtype=torch.float32)]
        there_too = [*random.there(*homes)]
        copies = [torch.full_like(home, -1) for home in there_too]
        rows = [[a.data_ptr(), b.data_ptr(), len(a)] for a, b in zip(there_too, copies, strict=True)]
        table = torch.tensor(rows, device=where.device)
        FUNCTIONS["save"](there_too, copies, table)
        for home in there_too:
            home.mul_(2)
        FUNCTIONS["put_back"](there_too, copies, table, flag)
        for number, (home, there_now) in enumerate(zip(homes, there_too, strict=True)):
            found[f"vector {number} with {name}"] = there_now
            right[f"vector {number} with {name}"] = home if spoilt is not None else home * 2
    for name, numbers in (("known", [0, 4, 2]), ("too large", [0, 5]), ("negative", [-1, 2])):
        flag = torch.zeros((), dtype=torch.int32, device=where.device)
        FUNCTIONS["note_strays"](torch.tensor(numbers, device=where.device), 5, flag)
        found[f"flag with {name}"] = flag
        right[f"flag with {name}"] = torch.tensor(int(name != "known"), dtype=torch.int32)
    return found, right
