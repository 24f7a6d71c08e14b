"""Types by name: as JSON, and found again among the modules that are loaded, so that nothing is imported or run.

A class is its module and its name there; ``list[Order]``, ``Order | None`` and ``Literal["a"]`` are made of such. What
has no such name (a class within a function, a type with conditions attached) is refused.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any, Literal, Union, get_args, get_origin

from sgl_like.frontend.batches.plain import NotPlainError, decode, encode

__all__ = ["type_data", "type_named"]

_SPECIAL: Mapping[Any, str] = {Any: "Any", type(None): "None", Ellipsis: "..."}


def type_data(annotation: Any) -> Any:
    """A JSON value that `type_named` turns back into the type.

    Raises:
        NotPlainError: it has no name.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"literal": encode(list(args))}
    if origin in (Union, types.UnionType):
        return {"union": [type_data(each) for each in args]}
    if origin is not None:
        return {"of": type_data(origin), "args": [type_data(each) for each in args]}
    for special, name in _SPECIAL.items():
        if annotation is special:
            return name
    data = [getattr(annotation, "__module__", None), getattr(annotation, "__qualname__", None)]
    if not isinstance(annotation, type) or _found(data) is not annotation:
        raise NotPlainError(f"the type {annotation!r} has no name by which it can be found")
    return data


def type_named(data: Any) -> Any:
    """The type that `data` is from.

    Raises:
        NotPlainError: it is not there any more.
    """
    if isinstance(data, dict):
        if "literal" in data:
            return Literal[tuple(decode(data["literal"]))]
        if "union" in data:
            return reduce(or_, map(type_named, data["union"]))
        return type_named(data["of"])[tuple(map(type_named, data["args"]))]
    if not isinstance(data, list):
        return next(special for special, name in _SPECIAL.items() if name == data)
    found = _found(data)
    if not isinstance(found, type):
        raise NotPlainError(f"there is no type {data[0]}.{data[1]}")
    return found


def _found(name: list[Any]) -> Any:
    at: Any = sys.modules.get(name[0])
    for part in str(name[1]).split("."):
        at = getattr(at, part, None)
    return at
