"""Plain data: values to JSON and back as they were, and a digest of them.

JSON has no tuples and no infinities, and would turn the keys of a dict into texts. What can be kept is written so that
it comes back equal and of the same types; anything else is refused rather than changed.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import json
import math
import pathlib
import uuid
from typing import Any

__all__ = ["NotPlainError", "decode", "digest", "encode"]

_TUPLE, _FLOAT, _DICT = "$tuple", "$float", "$dict"
_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, pathlib.PurePath, uuid.UUID)


class NotPlainError(TypeError):
    """A value is no plain data; the message names its type."""


def encode(value: Any) -> Any:
    """A JSON value that `decode` turns back into `value`. A subclass of str comes back as a str.

    Raises:
        NotPlainError: there is none.
    """
    if value is None or isinstance(value, str) or type(value) in (bool, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if type(value) is list:
        return [encode(item) for item in value]
    if type(value) is tuple:
        return {_TUPLE: [encode(item) for item in value]}
    if type(value) is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {_DICT: [[encode(key), encode(item)] for key, item in value.items()]}
    raise NotPlainError(f"{type(value).__name__} is no plain data")


def decode(value: Any) -> Any:
    """What `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TUPLE in value:
        return tuple(decode(item) for item in value[_TUPLE])
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _DICT in value:
        return {decode(key): decode(item) for key, item in value[_DICT]}
    return {key: decode(item) for key, item in value.items()}


def digest(value: Any) -> str:
    """The same text for equal data, also in another process; another for other data.

    Besides JSON values: tuples, sets, bytes, enums, dates, paths, decimals, UUIDs, dataclasses and pydantic models.

    Raises:
        NotPlainError: `value` has something else in it.
    """
    text = json.dumps(_ordered(value), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _ordered(value: Any) -> Any:
    """A JSON value that stands for `value`; other types than JSON's are named in it."""
    if value is None or (isinstance(value, (str, bool, int, float)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    if isinstance(value, dict):
        return {f"{type(key).__name__} {key}": _ordered(item) for key, item in value.items()}
    name = type(value).__qualname__
    if isinstance(value, (set, frozenset)):
        return {name: sorted(json.dumps(_ordered(item), sort_keys=True) for item in value)}
    if isinstance(value, bytes):
        return {name: value.hex()}
    if isinstance(value, enum.Enum):
        return {name: value.name}
    if isinstance(value, _AS_TEXT):
        return {name: str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: {each.name: _ordered(getattr(value, each.name)) for each in dataclasses.fields(value)}}
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return {name: _ordered(dump())}
    raise NotPlainError(f"{name} is no plain data")
