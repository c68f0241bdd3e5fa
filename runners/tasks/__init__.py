"""Tasks by the name that `task.name` gives: what one training step and one evaluation are."""

from runners.tasks.classification import Classification

TASKS: dict[str, type[Classification]] = {"classification": Classification}

__all__ = ["TASKS", "Classification"]
