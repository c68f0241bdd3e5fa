"""The space of a search, from overrides in Hydra's sweep syntax.

`a,b` and `choice(a,b)` are categories, `interval(0,1)` are numbers between two, `int(interval(1,9))` whole ones with
both ends, `range(1,9,2)` those that a grid would have, and `tag(log, ...)` makes small numbers as likely as large ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from cnn.faults import ConfigError, Fault
from cnn.text import short
from runners.config.folders import groups
from runners.training import study

TAGS = ("log", "int", "float")
MAX_LISTED = 100_000
"""Values of a range."""


@dataclass(frozen=True)
class Dimension:
    """The values that one key can have. `step`: of an int, or of a float that has one."""

    kind: Literal["categorical", "int", "float"]
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    def distribution(self) -> Any:
        """This dimension for Optuna."""
        distributions = study.optuna().distributions
        if self.kind == "categorical":
            return distributions.CategoricalDistribution(self.choices)
        if self.kind == "int":
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def text(self, value: Any) -> str:
        """A value as it is given in an override, from which a job reads the same number."""
        if self.kind == "float":
            return repr(float(f"{value:.12g}") if self.step else float(value))
        return str(value)

    def values(self) -> list[Any] | None:
        """All values, or None if there is no end to them."""
        if self.kind == "categorical":
            return list(self.choices)
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        return [self.low + self.step * number for number in range(count)]

    def record(self) -> dict[str, Any]:
        """What is recorded of it."""
        if self.kind == "categorical":
            return {"kind": self.kind, "choices": list(self.choices)}
        step = {} if self.step is None else {"step": self.step}
        return {"kind": self.kind, "low": self.low, "high": self.high, **step, "log": self.log}


@dataclass(frozen=True)
class Space:
    """The overrides that all trials share, and for each searched key its dimension, and what precedes it for Hydra."""

    fixed: tuple[str, ...] = ()
    searched: Mapping[str, Dimension] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of the trial with these values."""
        texts = {key: self.searched[key].text(value) for key, value in values.items()}
        return [*self.fixed, *(f"{self.prefixes.get(key, '')}{key}={text}" for key, text in texts.items())]

    def size(self) -> int | None:
        """The number of different trials, or None if there is no end to them."""
        lists = [dimension.values() for dimension in self.searched.values()]
        return None if None in lists else math.prod(len(values or ()) for values in lists)

    def record(self) -> dict[str, Any]:
        """What is recorded of it."""
        searched = {key: dimension.record() for key, dimension in self.searched.items()}
        return {"fixed": [text.lstrip("+") for text in self.fixed], "space": searched}


def parse(arguments: Sequence[str], params: Mapping[str, Any] | None = None, loader: Any = None) -> Space:
    """The space of these overrides, and of `hydra.sweeper.params`, over which the overrides of the same key win.

    `loader`: Hydra's, which knows what `glob(*)` matches. Raises ConfigError with every fault.
    """
    parser = OverridesParser.create(config_loader=loader)
    overrides = {override.key_or_group: override for override in map(parser.parse_override, arguments)}
    faults = []
    for key, value in (params or {}).items():
        try:
            prefix = "" if key in groups() or "/" in key else "++"
            parsed = parser.parse_override(f"{prefix}{key}={value}")
            overrides = {parsed.key_or_group: parsed} | overrides
        except HydraException as error:
            faults.append(Fault(f"hydra.sweeper.params.{key}", f"can't be read: {short(error)}"))
    fixed, searched, prefixes = [], {}, {}
    for key, override in overrides.items():
        if not override.is_sweep_override():
            fixed.append(f"{override.get_key_element()}={override.get_value_element_as_str()}")
            continue
        dimension = _dimension(override)
        faults += [Fault(key, problem) for problem in _problems(dimension, _tags(override))]
        searched[key] = dimension
        prefixes[key] = override.get_key_element().removesuffix(key)
    if not searched and not faults:
        problem = "there is nothing to search, give several values, such as optimizer.lr=tag(log, interval(1e-4,1e-1))"
        faults.append(Fault("hydra/sweeper", problem))
    if faults:
        raise ConfigError(faults)
    return Space(tuple(fixed), searched, prefixes)


def _tags(override: Override) -> set[str]:
    return set(getattr(override.value(), "tags", ()))


def _dimension(override: Override) -> Dimension:
    value, tags = override.value(), _tags(override)
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        whole = "int" in tags or isinstance(value.start, int)
        low, high = (int(end) if whole else float(end) for end in (value.start, value.end))
        step = 1 if whole else None
        return Dimension("int" if whole else "float", low=low, high=high, step=step, log="log" in tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _range(value, log="log" in tags)
    return Dimension("categorical", tuple(dict.fromkeys(override.sweep_string_iterator())))


def _range(value: RangeSweep, *, log: bool) -> Dimension:
    """The values of a range, without its stop, as in Python and in a grid."""
    assert value.start is not None
    assert value.stop is not None
    whole = all(isinstance(number, int) for number in (value.start, value.stop, value.step))
    count = max(0, math.ceil(round((value.stop - value.start) / value.step, 9))) if value.step else 0
    last = value.start + (count - 1) * value.step
    low, high = sorted((value.start, last)) if count else (value.start, value.start - 1)
    if whole:
        return Dimension("int", low=low, high=high, step=abs(value.step), log=log)
    return Dimension("float", low=float(low), high=float(high), step=abs(float(value.step)), log=log)


def _problems(dimension: Dimension, tags: set[str]) -> Iterator[str]:
    for tag in sorted(tags.difference(TAGS)):
        yield f"unknown tag {tag}, known: {', '.join(TAGS)}"
    if dimension.kind == "categorical":
        if "log" in tags:
            yield "log is for numbers between two: tag(log, interval(1e-4,1e-1))"
        if not dimension.choices:
            yield "gives no value"
        return
    if not all(map(math.isfinite, (dimension.low, dimension.high))):
        yield "its ends must be finite"
    elif dimension.low > dimension.high:
        yield "gives no value: it ends before it begins"
    elif dimension.log and dimension.low <= 0:
        yield f"with log it must begin above 0, not at {dimension.low:g}"
    elif dimension.log and dimension.step not in (None, 1 if dimension.kind == "int" else None):
        yield "with log it can't have a step, give tag(log, interval(...))"
    elif dimension.step and (dimension.high - dimension.low) / dimension.step > MAX_LISTED:
        yield f"has more than {MAX_LISTED:,} values, give an interval"
