"""Values of half-written JSON, for consumers that show an output while it is written.

    {"name": "Ann", "age": 3       {"name": "Ann"}     User(name='Ann', age=None)
    {"name": "Ann", "age": 31}     {"name": "Ann", "age": 31}      User(name='Ann', age=31)

A string grows; a number is there when it is whole, for its digits so far would be another number. Models and
dataclasses are made without running their validators, which would refuse what is not there yet: a field that is still
to come has its default, or ``None``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, NotRequired, Required, Union, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict

from sgl_like.frontend.outputs.adapters import adapter

__all__ = ["NOTHING", "partial_json", "partial_value"]

NOTHING: Final = type("Nothing", (), {"__repr__": lambda self: "NOTHING"})()
"""There is no value yet; ``None`` would be one."""

_OPEN_NUMBER = re.compile(r"(^|(?<=[\s:,\[]))[-+.eE0-9]+$")


def partial_json(text: str) -> Any:
    """The JSON value that `text` begins, as far as it is there, or `NOTHING`."""
    from pydantic_core import from_json

    try:
        return from_json(_OPEN_NUMBER.sub("", text), allow_partial="trailing-strings")
    except ValueError:
        return NOTHING


def partial_value(annotation: Any, value: Any) -> Any:
    """A JSON value, of which parts may still be to come, as far as possible in the types of `annotation`.

    Does not raise; what cannot be read as its type yet is ``None``.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Annotated, Required, NotRequired):
        return partial_value(arguments[0], value)
    if origin in (Union, UnionType):
        return _one_of(arguments, value)
    if isinstance(value, dict):
        return _from_object(annotation, origin, arguments, value)
    if isinstance(value, list) and origin in (list, Sequence):
        return [partial_value(arguments[0], each) for each in value]
    if isinstance(value, list) and _is_model(annotation):
        return _model(annotation, value)  # a RootModel
    return _leaf(annotation, value)


def _from_object(annotation: Any, origin: Any, arguments: tuple[Any, ...], value: dict[str, Any]) -> Any:
    if _is_model(annotation):
        return _model(annotation, value)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _dataclass(annotation, value)
    if is_typeddict(annotation):
        hints = get_type_hints(annotation)
        return {key: partial_value(hints.get(key, Any), each) for key, each in value.items()}
    if origin in (dict, Mapping):
        return {key: partial_value(arguments[1], each) for key, each in value.items()}
    return _leaf(annotation, value)


def _one_of(arms: tuple[Any, ...], value: Any) -> Any:
    """As the first of the types that has a place for all of the value, else as the first that makes something of it."""
    found = [made for made in (partial_value(arm, value) for arm in arms) if made is not None]
    return next((made for made in found if _holds(made, value)), found[0] if found else None)


def _holds(made: Any, value: Any) -> bool:
    if not isinstance(value, dict) or isinstance(made, dict):
        return True
    return all(getattr(made, key, None) is not None for key, each in value.items() if each is not None)


def _is_model(annotation: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model(model: Any, value: Any) -> Any:
    """A pydantic model of the fields that are there."""
    from pydantic import RootModel

    if issubclass(model, RootModel):
        return model.model_construct(partial_value(model.model_fields["root"].annotation, value))
    given: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = field.validation_alias if isinstance(field.validation_alias, str) else name
        if key in value:
            given[name] = partial_value(field.annotation, value[key])
        elif field.is_required():
            missing[name] = None
    return model.model_construct(set(given), **given, **missing)


def _dataclass(cls: Any, value: dict[str, Any]) -> Any:
    """A dataclass of the fields that are there; its ``__init__`` is not called."""
    hints = get_type_hints(cls)
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in value:
            each = partial_value(hints[field.name], value[field.name])
        elif field.default is not dataclasses.MISSING:
            each = field.default
        else:
            each = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        object.__setattr__(made, field.name, each)
    return made


def _leaf(annotation: Any, value: Any) -> Any:
    try:
        return adapter(annotation).validate_python(value)
    except Exception:  # it is not whole yet, or never will be: the end of the output tells
        return None
