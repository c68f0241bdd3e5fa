"""Arguments that come from configs: their types and ranges, and the check that names every mistake at once.

A constructor's signature is the one place where arguments stand; `model_of` turns it into a pydantic model, and `check`
turns what pydantic finds into faults that a person can act on.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)

LARGEST = 2**31 - 1
"""No size, count or stride is larger; left unsaid in messages."""

MOST_FAULTS = 100
"""Nobody reads more of them at once."""
LONGEST_LINE = 400
"""Characters that are shown of what may be any text."""
LONGEST_NAME = 60
"""Longer names aren't compared with those that are known."""

Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NonNegative = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
UnitInterval = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PositivePerAxis = Positive | Annotated[Sequence[Positive], Field(min_length=1, max_length=3)]
NonNegativePerAxis = NonNegative | Annotated[Sequence[NonNegative], Field(min_length=1, max_length=3)]

STRICT = ConfigDict(strict=True, extra="forbid")
OF_CONSTRUCTORS = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
Checked = TypeVar("Checked", bound=BaseModel)


def _without_nul(text: str) -> str:
    """No file can be named with it."""
    if "\0" in text:
        raise ValueError
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]


def printable(text: object) -> str:
    """On one line, and in characters that a terminal shows: names that aren't ours may hold any others too."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def short(text: object) -> str:
    """Printable, and cut in the middle where it is long."""
    line = printable(text)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]}...{line[-LONGEST_LINE // 2 :]}"


@dataclass(frozen=True)
class Fault:
    """One mistake: where it stands, as one would type it on the command line, and what to do about it."""

    place: str
    problem: str

    def __str__(self) -> str:
        return printable(f"{short(self.place)}: {self.problem}" if self.place else self.problem)

    def inside(self, place: str) -> Fault:
        """The same fault seen from one level further out."""
        return Fault(join(place, self.place), self.problem)


class ConfigError(ValueError):
    """A config that can't be used: all of its faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Fault]]]:
        return type(self), (self.faults,)  # BaseException would hand on the text, as if it were the faults

    def inside(self, place: str) -> ConfigError:
        return ConfigError(fault.inside(place) for fault in self.faults)


def join(*places: str) -> str:
    """Places put together with dots, empty ones left out."""
    return ".".join(place for place in places if place)


@cache
def model_of(constructor: Callable[..., Any]) -> type[BaseModel]:
    """A strict pydantic model with the arguments, annotations and defaults of a class's constructor."""
    hints = get_type_hints(constructor.__init__, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
    }
    return create_model(constructor.__name__, __config__=OF_CONSTRUCTORS, **fields)


def check(model: type[Checked], values: Mapping[str, Any], place: str = "") -> Checked:
    """The values as an instance of the model. Raises ConfigError with every fault, one for each argument."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_faults(model, values, place, error)) from None


def _faults(model: type[BaseModel], values: Mapping[str, Any], place: str, error: ValidationError) -> Iterator[Fault]:
    for details in error.errors():
        if not details["loc"]:  # what a model says of its values as a whole
            yield Fault(place, str(details.get("ctx", {}).get("error", details["msg"])))
    wrong = (str(details["loc"][0]) for details in error.errors() if details["loc"])
    names = [*islice(dict.fromkeys(wrong), MOST_FAULTS)]
    misspelled = {closest(name, model.model_fields) for name in names if name not in model.model_fields}
    for name in names:
        inner = _inner_model(model, name)
        if name in misspelled and name not in values:
            continue  # of a slip one fault, not two
        if inner and isinstance(values.get(name), Mapping):
            try:
                check(inner, values[name], join(place, name))
            except ConfigError as nested:
                yield from nested.faults
        else:
            yield Fault(join(place, name), _problem(model, values, name))


def _inner_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model that a field's values are checked by, if it has one."""
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def construct(constructor: Callable[..., Any], values: Mapping[str, Any], place: str = "") -> Any:
    """Call the constructor with checked arguments; a ValueError of its own becomes a fault of the place."""
    check(model_of(constructor), values, place)
    try:
        return constructor(**values)
    except ConfigError as error:
        raise error.inside(place) from None
    except ValueError as error:
        raise ConfigError([Fault(place, str(error))]) from None


def construct_named(known: Mapping[str, Callable[..., Any]], section: object, place: str) -> Any:
    """What a section's `name` names among the known ones, made from the section's other keys. Raises ConfigError."""
    if not isinstance(section, Mapping):
        hint = f"choose one with {place}=NAME" if section is None else "give keys with values"
        raise ConfigError([Fault(place, f"{show(section)} is not allowed, {hint}")])
    name = section.get("name")
    if not isinstance(name, str) or name not in known:
        raise ConfigError([Fault(join(place, "name"), f"unknown {show(name)}, {nearest(str(name), known)}")])
    return construct(known[name], {key: value for key, value in section.items() if key != "name"}, place)


def _problem(model: type[BaseModel], values: Mapping[str, Any], name: str) -> str:
    if name not in model.model_fields:
        return f"unknown, {nearest(name, model.model_fields)}"
    allowed = describe(model, name)
    if isinstance(values.get(name), int) and values[name] > LARGEST and "<=" not in allowed:
        allowed += f", at most {LARGEST:,}"
    return f"{show(values[name])} is not allowed, give {allowed}" if name in values else f"missing, give {allowed}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant, if one is similar."""
    if len(str(name)) > LONGEST_NAME:
        return None
    lower = {candidate.lower(): candidate for candidate in sorted(known)}
    close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the one that is probably meant, and all that are known."""
    known = sorted(known)
    likely = closest(name, known)
    if likely:
        return f"did you mean {likely}? (known: {', '.join(known)})"
    return f"known: {', '.join(known)}" if known else "nothing is known here"


def show(value: object) -> str:
    """A value as one would write it in YAML, cut where it is long."""
    names = {True: "true", False: "false", None: "null"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe(model: type[BaseModel], name: str) -> str:
    """What a field accepts, in words."""
    if _inner_model(model, name):
        return "a mapping"
    field = model.model_fields[name]
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    try:
        return _in_words(TypeAdapter(annotation, config=OF_CONSTRUCTORS).json_schema())
    except PydanticUserError:  # a type that JSON doesn't know
        return str(getattr(annotation, "__name__", annotation))


def _in_words(schema: Mapping[str, Any]) -> str:
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(_in_words(option) for option in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return _list_in_words(schema)
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
    text = words.get(schema.get("type", ""), "a text" if schema.get("type") == "string" else "a mapping")
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema and schema[key] != LARGEST]
    if "pattern" in schema:
        limits.append("made of letters, digits and _")
    return f"{text} {' and '.join(limits)}".strip()


def _list_in_words(schema: Mapping[str, Any]) -> str:
    shortest, longest = schema.get("minItems"), schema.get("maxItems")
    count = str(shortest) if shortest == longest else f"{shortest} to {longest}" if longest else f"{shortest} or more"
    if shortest is None:
        return f"a list of values, each {_in_words(schema.get('items', {}))}"
    return f"a list of {count} values, each {_in_words(schema.get('items', {}))}"
