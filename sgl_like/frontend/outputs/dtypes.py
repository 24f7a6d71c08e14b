"""``dtype``: outputs that are an int, a float, a str or a bool, held by a regex and read back by Python.

The regexes are SGLang's (`REGEX_INT` and so on), but for two: a float may have an exponent, as Python writes it, and a
str is any string literal of JSON, not only letters, digits and blanks. The blanks after a number let a model end it its
own way; they are stop strings, and never part of the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import SamplingParamsError

__all__ = [
    "PARSERS",
    "REGEX_BOOL",
    "REGEX_FLOAT",
    "REGEX_INT",
    "REGEX_STR",
    "constraint",
    "dtype_name",
    "dtype_of_regex",
]

REGEX_INT = r"[-+]?[0-9]+[ \n]*"
REGEX_FLOAT = r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?[ \n]*"
REGEX_BOOL = r"(True|False)"
REGEX_STR = r'"([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'

_REGEXES: Mapping[str, str] = {"int": REGEX_INT, "float": REGEX_FLOAT, "str": REGEX_STR, "bool": REGEX_BOOL}
_STOPS = (" ", "\n")

PARSERS: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": json.loads,
    "bool": {"True": True, "False": False}.__getitem__,
}
"""From the text of each to its value; they raise ValueError or KeyError."""


def dtype_name(dtype: type | str) -> str:
    """``int`` or ``"int"`` and so on, as text.

    Raises:
        SamplingParamsError: it is none of int, float, str and bool.
    """
    name = dtype.__name__ if isinstance(dtype, type) else dtype
    if not isinstance(name, str) or name not in _REGEXES:
        raise SamplingParamsError(f"dtype must be int, float, str or bool, not {dtype!r}")
    return name


def dtype_of_regex(regex: str) -> str | None:
    """The dtype that this regex is the constant of, if it is one."""
    return next((name for name, own in _REGEXES.items() if own == regex), None)


def constraint(dtype: str, stop: Any) -> dict[str, Any]:
    """The parameters that hold an output to `dtype`, which has these stop strings besides."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    added = _STOPS if dtype in ("int", "float") else ()
    return {"regex": _REGEXES[dtype], "stop": (*stops, *(each for each in added if each not in stops))}
