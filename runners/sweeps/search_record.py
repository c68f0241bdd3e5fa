"""`search.yaml`: what a search is, for its jobs and for a start that goes on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cnn.faults import ConfigError, Fault
from cnn.text import short
from runners.errors import RunDirectoryError, print_to_stderr
from runners.files import atomic
from runners.sweeps.objectives import Objective
from runners.sweeps.search_settings import PLACE, SearchSettings
from runners.sweeps.space import Space
from runners.training.study import SEARCH


def update(sweep: Path, settings: SearchSettings, space: Space, objectives: Sequence[Objective]) -> None:
    """Write the file. A search that goes on may change its space a little, which is said; its objectives it can't.

    Raises ConfigError if the study can't go on with what is asked for now.
    """
    now = {
        "version": 1,
        "objectives": [objective.name for objective in objectives],
        "directions": [objective.direction for objective in objectives],
        **settings.model_dump(include={"sampler", "pruner", "seed", "n_trials"}),
        **space.record(),
    }
    file = sweep / SEARCH
    before = _read(file) if file.exists() else {}
    if before:
        faults = [*_faults(before, now)]
        if faults:
            raise ConfigError(faults)
        changed = [*_changed(before["space"], now["space"])]
        if before["fixed"] != now["fixed"]:
            changed += sorted({_key(text) for text in {*before["fixed"]} ^ {*now["fixed"]}})
        changed += [f"{PLACE}.{key}" for key in ("sampler", "pruner", "seed") if before[key] != now[key]]
        if changed:
            print_to_stderr(f"warning: this differs from what the earlier trials were asked with: {', '.join(changed)}")
    atomic.write(file, yaml.safe_dump(now, sort_keys=False, allow_unicode=True).encode())


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if content["version"] > 1:
            raise RunDirectoryError(f"{file}: written by a newer version of this program")
        if not all(isinstance(content[key], kind) for key, kind in (("space", dict), ("fixed", list))):
            raise TypeError("space or fixed has another form")
        return {"sampler": None, "pruner": None, "seed": None, **content}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise RunDirectoryError(f"{file}: can't be read: {short(str(error))}") from None


def _faults(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Fault]:
    faults = [
        Fault(f"{PLACE}.{key}", f"a search keeps its {key}, which are {', '.join(map(str, before.get(key, ())))}")
        for key in ("objectives", "directions")
        if before.get(key) != now[key]
    ]
    for key, dimension in now["space"].items():
        earlier = before["space"].get(key, dimension)
        if any(earlier.get(part) != dimension.get(part) for part in ("kind", "choices", "log")):
            problem = "a search can change the ends of a range, but not its kind or choices, give another sweep_dir"
            faults.append(Fault(key, problem))
    return faults


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {**before, **now} if before.get(key) != now.get(key))


def _key(text: str) -> str:
    return text.partition("=")[0]
