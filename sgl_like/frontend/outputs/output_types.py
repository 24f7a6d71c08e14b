"""What a gen's text means: which JSON Schema holds it, and how it becomes a Python value, whole or half written.

Types are pydantic's business: whatever `pydantic.TypeAdapter` takes (models, dataclasses, TypedDicts, ``list[T]``,
``dict[str, T]``, Literals, Enums, unions) is an output type. A plain JSON Schema stands for the JSON value itself.
"""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sgl_like.errors import OutputError, SamplingParamsError
from sgl_like.frontend.outputs.adapters import adapter, is_type, json_schema, problems, type_name
from sgl_like.frontend.outputs.dtypes import PARSERS, dtype_name, dtype_of_regex
from sgl_like.frontend.outputs.partial import NOTHING, partial_json, partial_value

__all__ = ["DtypeOutput", "JsonOutput", "OutputType", "gen_type", "json_output"]


class OutputType(ABC):
    """How the text of an output is read."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value of a whole output.

        Raises:
            OutputError: the text is not one.
        """

    @abstractmethod
    def parse_partial(self, text: str) -> Any:
        """The value of the beginning of an output, as far as it is there, or `NOTHING`. Does not raise."""


class DtypeOutput(OutputType):
    """An output of ``dtype`` int, float, str or bool."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def parse(self, text: str) -> Any:
        """See `OutputType.parse`."""
        try:
            value = PARSERS[self.dtype](text)
        except (ValueError, KeyError):
            raise OutputError(f"{_shown(text)} is no {self.dtype}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise OutputError(f"{_shown(text)} is too large for a float")
        return value

    def parse_partial(self, text: str) -> Any:
        """See `OutputType.parse_partial`; only a str grows."""
        return partial_json(text) if self.dtype == "str" else NOTHING


class JsonOutput(OutputType):
    """An output in JSON.

    Args:
        schema: what holds it.
        annotation: the type of the value; ``Any`` for the JSON value itself.
    """

    def __init__(self, schema: dict[str, Any] | bool | str, annotation: Any = Any) -> None:
        self.schema = schema
        self.annotation = annotation

    def parse(self, text: str) -> Any:
        """See `OutputType.parse`."""
        if self.annotation is Any:
            try:
                return json.loads(text)
            except (ValueError, RecursionError) as error:
                raise OutputError(f"{_shown(text)} is not JSON: {error}") from error
        from pydantic import ValidationError

        try:
            return adapter(self.annotation).validate_json(text)
        except ValidationError as error:
            name = type_name(self.annotation)
            raise OutputError(f"{_shown(text)} is no {name}: {problems(error)}") from error

    def parse_partial(self, text: str) -> Any:
        """See `OutputType.parse_partial`."""
        value = partial_json(text)
        return value if value is NOTHING else partial_value(self.annotation, value)


def json_output(source: Any, *, role: str = "json_schema") -> JsonOutput:
    """The output type of a ``json_schema`` argument: a type, or a JSON Schema as a dict or as JSON text.

    Args:
        source: the argument.
        role: its name, for errors.

    Raises:
        SamplingParamsError: it is neither, or pydantic makes no schema of the type.
    """
    if isinstance(source, str | bool):
        return JsonOutput(source)
    if isinstance(source, Mapping):
        return JsonOutput(dict(source))
    if not is_type(source):
        raise SamplingParamsError(
            f"{role} must be a JSON Schema (a dict or its JSON text) or a type (a pydantic model, a dataclass, a"
            f" TypedDict, an Enum, list[...], Literal[...] and so on), not {source!r}"
        )
    return JsonOutput(json_schema(source), source)


def gen_type(dtype: Any, regex: Any, json_schema: Any) -> tuple[OutputType | None, dict[str, Any]]:
    """The output type of a gen with these arguments, and the parameters that hold its text.

    A type or a JSON Schema given as ``regex``, an often-copied mistake, is taken for a ``json_schema``.

    Raises:
        SamplingParamsError: an argument is of the wrong type.
    """
    held: dict[str, Any] = {}
    found: OutputType | None = None
    if regex is not None and not isinstance(regex, str):
        if json_schema is not None:
            raise SamplingParamsError("regex must be a string; give a schema as json_schema, and only once")
        as_json = json_output(regex, role="regex")
        warnings.warn(
            "regex is a schema, not a regex: write json_schema=... (done here)", UserWarning, stacklevel=3
        )
        found, held["json_schema"] = as_json, as_json.schema
    elif regex is not None:
        held["regex"] = regex
        of_regex = dtype_of_regex(regex)
        found = DtypeOutput(of_regex) if of_regex else None
    if json_schema is not None:
        as_json = json_output(json_schema)
        found, held["json_schema"] = as_json, as_json.schema
    if dtype is not None:
        held["dtype"] = dtype_name(dtype)
        found = DtypeOutput(held["dtype"])
    return found, held


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
