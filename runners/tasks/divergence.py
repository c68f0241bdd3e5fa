"""Find where in the networks of a task values first stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from cnn.ops import NotFinite
from runners.data.batches import Batch
from runners.tasks.sums import Sums
from runners.tasks.task import Step, Task
from runners.tasks.watching import finite


class Diverged(Exception):
    """A loss, a gradient or a weight is infinite or NaN."""

    @classmethod
    def at(cls, what: str, when: str) -> Diverged:
        return cls(f"{what} isn't finite {when}; a smaller optimizer.lr or clip_grad_norm may help")


def fault_in_training(task: Task, batches: Sequence[Batch], step: Step) -> str:
    """Run a step again, with the same noise, and return the first value that isn't finite."""
    if step.mode.generator is not None:
        step.mode.generator.manual_seed(step.mode.generator.initial_seed())

    def again(watched: Task) -> None:
        with suppress(NotFinite):
            watched.train_step(batches, step, Sums())

    return _first_fault(task, batches, again)


def fault_in_evaluation(task: Task, batches: Iterable[Batch]) -> str:
    """Evaluate batches again, and return the first value that isn't finite."""
    for batch in batches:

        def again(watched: Task, batch: Batch = batch) -> None:
            watched.evaluate(batch, Sums())

        fault = _first_fault(task, [batch], again)
        if fault != SUM:
            return fault
    return SUM


SUM = "the sum over the batches"


def _first_fault(task: Task, batches: Sequence[Batch], again: Callable[[Task], object]) -> str:
    if not finite(*(batch.x for batch in batches)):
        return "the batch's images"
    for network, graph in task.graphs.items():
        for name, parameter in graph.named_parameters():
            if not finite(parameter.data):
                return name if len(task.networks) == 1 else f"{network}.{name}"
    found: list[str] = []
    again(task.watched(found.append))
    return found[0] if found else SUM
