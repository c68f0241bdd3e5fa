"""Convert checkpoints of format version 1, which had one network and one task, to the current version.

Nothing is lost, so that their runs can be resumed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnn.faults import ConfigError, Fault

NETWORK_KEYS = ("model", "input_shape", "weights", "optimizer", "schedule")
DATA_KEYS = ("preparation", "mean", "std", "class_names")
UNCHANGED_KEYS = ("dtype", "config", "epoch", "step")


def converted(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a version 1 checkpoint in the form of version 2. Raises ConfigError if it isn't version 1."""
    known = [*NETWORK_KEYS, *DATA_KEYS, *UNCHANGED_KEYS, "loss", "progress", "data_fingerprint"]
    unknown = [Fault(str(name), "unknown") for name in old if name not in known]
    missing = [Fault(name, "missing") for name in known if name not in old]
    progress, totals = old.get("progress"), None
    if isinstance(progress, Mapping):
        totals = progress.get("totals")
        if not isinstance(totals, Mapping) or totals.keys() != {"loss", "share", "correct", "count"}:
            missing.append(Fault("progress.totals", "not the sums of version 1"))
    elif progress is not None or "progress" in old:
        missing.append(Fault("progress", "must be a mapping"))
    config = old.get("config")
    if "config" in old and not isinstance(config, Mapping):
        missing.append(Fault("config", "must be a mapping"))
    if unknown or missing:
        raise ConfigError([*unknown, *missing])
    assert isinstance(progress, Mapping)
    assert isinstance(totals, Mapping)
    assert isinstance(config, Mapping)
    return {
        "version": 2,
        "task": config.get("task") or {"name": "classification"},
        "task_state": {},
        "networks": {"model": {name: old[name] for name in NETWORK_KEYS}},
        "loss": _loss(old["loss"], config.get("loss")),
        "data": {
            "input_shape": old["input_shape"],
            **{name: old[name] for name in DATA_KEYS},
            "fingerprint": old["data_fingerprint"],
        },
        **{name: old[name] for name in UNCHANGED_KEYS},
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
    """The loss as a config section: the saved config's, which has the arguments too, if there is one."""
    if isinstance(section, Mapping) and section:
        if section.get("name") != name:
            raise ConfigError([Fault("config.loss.name", "not the checkpoint's loss")])
        return dict(section)
    return {"name": name}


def _float(value: Any) -> Any:
    return float(value) if type(value) is int else value
