"""Arguments from configs: their types and ranges, and a check that reports every mistake at once.

Arguments are defined in one place, the signature of a constructor. `model_of` turns it into a pydantic model, and
`check` turns pydantic's errors into faults that a person can act on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from cnn.faults import MAX_FAULTS, ConfigError, Fault, join
from cnn.text import closest, nearest, show

LARGEST = 2**31 - 1
"""The largest size, count or stride. Messages don't mention it."""

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
CONSTRUCTOR = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
Checked = TypeVar("Checked", bound=BaseModel)


def _without_nul(text: str) -> str:
    """File names can't contain NUL."""
    if "\0" in text:
        raise ValueError
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]


@cache
def model_of(constructor: Callable[..., Any]) -> type[BaseModel]:
    """A strict pydantic model of a constructor: its arguments, annotations and defaults."""
    hints = get_type_hints(constructor.__init__, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
    }
    return create_model(constructor.__name__, __config__=CONSTRUCTOR, **fields)


def check(model: type[Checked], values: Mapping[str, Any], place: str = "") -> Checked:
    """Validate values against a model. Raises ConfigError with one fault for each wrong argument."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_faults(model, values, place, error)) from None


def _faults(model: type[BaseModel], values: Mapping[str, Any], place: str, error: ValidationError) -> Iterator[Fault]:
    for details in error.errors():
        if not details["loc"]:  # from a validator of the whole model
            yield Fault(place, str(details.get("ctx", {}).get("error", details["msg"])))
    wrong = (str(details["loc"][0]) for details in error.errors() if details["loc"])
    names = [*islice(dict.fromkeys(wrong), MAX_FAULTS)]
    misspelled = {closest(name, model.model_fields) for name in names if name not in model.model_fields}
    for name in names:
        inner = _inner_model(model, name)
        if name in misspelled and name not in values:
            continue  # one mistake, one fault: not 'unknown' and 'missing'
        if inner and isinstance(values.get(name), Mapping):
            try:
                check(inner, values[name], join(place, name))
            except ConfigError as nested:
                yield from nested.faults
        else:
            yield Fault(join(place, name), _problem(model, values, name))


def _inner_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a field that is a model itself, else None."""
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def construct(constructor: Callable[..., Any], values: Mapping[str, Any], place: str = "") -> Any:
    """Call the constructor with checked arguments. A ValueError that it raises becomes a fault at `place`."""
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


def describe(model: type[BaseModel], name: str) -> str:
    """What a field accepts, in words."""
    if _inner_model(model, name):
        return "a mapping"
    field = model.model_fields[name]
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    try:
        return _describe_schema(TypeAdapter(annotation, config=CONSTRUCTOR).json_schema())
    except PydanticUserError:  # a type without a JSON schema
        return str(getattr(annotation, "__name__", annotation))


def _describe_schema(schema: Mapping[str, Any]) -> str:
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(_describe_schema(option) for option in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return _describe_list(schema)
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
    text = words.get(schema.get("type", ""), "a text" if schema.get("type") == "string" else "a mapping")
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema and schema[key] != LARGEST]
    if "pattern" in schema:
        limits.append("made of letters, digits and _")
    return f"{text} {' and '.join(limits)}".strip()


def _describe_list(schema: Mapping[str, Any]) -> str:
    shortest, longest = schema.get("minItems"), schema.get("maxItems")
    count = str(shortest) if shortest == longest else f"{shortest} to {longest}" if longest else f"{shortest} or more"
    if shortest is None:
        return f"a list of values, each {_describe_schema(schema.get('items', {}))}"
    return f"a list of {count} values, each {_describe_schema(schema.get('items', {}))}"
