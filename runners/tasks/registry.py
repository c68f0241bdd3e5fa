"""The registry of tasks, by `task.name`. A task is built from plain values, of a config or of a checkpoint."""

from __future__ import annotations

from cnn import ConfigError
from cnn.arguments import construct_named
from cnn.losses import LOSSES
from runners.data import Description
from runners.errors import CheckpointError, short
from runners.files import checkpoint
from runners.files.content import Checkpoint
from runners.tasks.classification import Classification
from runners.tasks.gan import GAN
from runners.tasks.regression import Regression
from runners.tasks.task import Task
from runners.tasks.vae import VAE

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classification, Regression, VAE, GAN)}


def saved_task(content: Checkpoint) -> Task:
    """The task of a checkpoint with its networks, ready to predict and evaluate. Raises CheckpointError."""
    try:
        task: Task = construct_named(TASKS, content.task, "task")
        loss = construct_named(LOSSES, content.loss, "loss")
        missing = [name for name in task.networks if name not in content.networks]
        if missing:
            raise CheckpointError(f"{content.place}: it has no network {missing[0]}, which its task needs")
        graphs = checkpoint.rebuild(content)
        classes = len(content.data.class_names)
        if task.predicts == "classes" and not classes:
            raise CheckpointError(f"{content.place}: it has no class names, which its task needs")
        faults = task.faults(graphs, loss, Description(tuple(content.data.input_shape), classes or None))
    except ConfigError as error:
        raise CheckpointError(f"{content.place}: its task can't be rebuilt{content.hint}: {error.faults[0]}") from None
    if faults:
        raise CheckpointError(f"{content.place}: its network can't be used: {faults[0]}")
    task.build(graphs, loss)
    try:
        task.load_state(content.task_state)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{content.place}: the state of its task can't be used: {short(error)}") from None
    return task
