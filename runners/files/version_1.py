"""Checkpoints of the first version, which knew one network and one task, as the present version has them.

Everything that they held has a place in it, so that their runs are resumed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnn.faults import ConfigError, Fault

OF_THE_NETWORK = ("model", "input_shape", "weights", "optimizer", "schedule")
OF_THE_DATA = ("preparation", "mean", "std", "class_names")
AS_THEY_WERE = ("dtype", "config", "epoch", "step")


def converted(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint of version 1 as version 2 has it. Raises ConfigError for what isn't of version 1."""
    known = [*OF_THE_NETWORK, *OF_THE_DATA, *AS_THEY_WERE, "loss", "progress", "data_fingerprint"]
    unknown = [Fault(str(name), "unknown") for name in old if name not in known]
    missing = [Fault(name, "missing") for name in known if name not in old]
    progress, totals = old.get("progress"), None
    if isinstance(progress, Mapping):
        totals = progress.get("totals")
        if not isinstance(totals, Mapping) or totals.keys() != {"loss", "share", "correct", "count"}:
            missing.append(Fault("progress.totals", "not the sums of version 1"))
    elif progress is not None or "progress" in old:
        missing.append(Fault("progress", "a mapping is wanted"))
    config = old.get("config")
    if "config" in old and not isinstance(config, Mapping):
        missing.append(Fault("config", "a mapping is wanted"))
    if unknown or missing:
        raise ConfigError([*unknown, *missing])
    assert isinstance(progress, Mapping)
    assert isinstance(totals, Mapping)
    assert isinstance(config, Mapping)
    return {
        "version": 2,
        "task": config.get("task") or {"name": "classification"},
        "task_state": {},
        "networks": {"model": {name: old[name] for name in OF_THE_NETWORK}},
        "loss": _loss(old["loss"], config.get("loss")),
        "data": {
            "input_shape": old["input_shape"],
            **{name: old[name] for name in OF_THE_DATA},
            "fingerprint": old["data_fingerprint"],
        },
        **{name: old[name] for name in AS_THEY_WERE},
        "progress": {
            **{name: value for name, value in progress.items() if name != "totals"},
            "examples": totals["count"],
            "sums": {
                "loss": [totals["loss"], totals["share"]],
                "accuracy": [totals["correct"], _float(totals["count"])],
            }
            if progress.get("steps")
            else {},
        },
    }


def _loss(name: Any, section: Any) -> dict[str, Any]:
    """The section of the config, which has the arguments too, where it is that of this loss."""
    if isinstance(section, Mapping) and section:
        if section.get("name") != name:
            raise ConfigError([Fault("config.loss.name", "another one than the checkpoint's")])
        return dict(section)
    return {"name": name}


def _float(value: Any) -> Any:
    return float(value) if type(value) is int else value
