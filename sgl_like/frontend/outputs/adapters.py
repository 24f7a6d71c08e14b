"""pydantic's `TypeAdapter` and JSON Schema of a type, made once per type: a program names its types on every run."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_origin

from sgl_like.errors import SamplingParamsError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["adapter", "is_type", "json_schema", "problems", "type_name"]


def is_type(source: Any) -> bool:
    """Whether this is a class, or something like ``list[int]``, ``Literal["a"]`` or ``int | None``."""
    return isinstance(source, type) or get_origin(source) is not None


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """What reads and checks values of a type.

    Raises:
        SamplingParamsError: pydantic cannot read the type.
    """
    return _adapter(_Key(annotation))


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of a type.

    Raises:
        SamplingParamsError: pydantic makes none of it.
    """
    return _schema(_Key(annotation))


def type_name(annotation: Any) -> str:
    """The type for people: ``Order``, ``list[int]``."""
    return annotation.__name__ if get_origin(annotation) is None else repr(annotation)


def problems(error: ValidationError) -> str:
    """What pydantic found wrong, in one line."""
    found = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in each["loc"])
        found.append(f"{where}: {each['msg']}" if where else each["msg"])
    return "; ".join(found)


class _Key:
    """A type as a key. ``int | str`` equals ``str | int``, but does not mean quite the same."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._text = repr(annotation)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and (self._text, self.annotation) == (other._text, other.annotation)

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=256)
def _adapter(key: _Key) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(key.annotation)
    except PydanticUserError as error:
        raise _unusable(key.annotation, error) from error


@lru_cache(maxsize=256)
def _schema(key: _Key) -> dict[str, Any]:
    from pydantic.errors import PydanticUserError

    try:
        return _adapter(key).json_schema()
    except PydanticUserError as error:
        raise _unusable(key.annotation, error) from error


def _unusable(annotation: Any, error: Any) -> SamplingParamsError:
    why = error.message.splitlines()[0]
    return SamplingParamsError(f"pydantic makes no JSON Schema of {type_name(annotation)}: {why}")
