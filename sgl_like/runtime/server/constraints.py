"""Constraints as the APIs spell them, held to the limits and turned into one of those that `SamplingParams` has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.limits import Limits

ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""The schema of JSON mode."""

_ESCAPE = re.compile(r"\\.", re.DOTALL)
_QUOTED = re.compile(r'"[^"\n]*"')


class Constraint(NamedTuple):
    """What an output has to be.

    Args:
        field: what the client calls it, for errors.
        kind: ``"choice"`` is one of several strings; the others are those of `SamplingParams`.
        value: a regex or grammar as text, a JSON Schema or structural tag as an object or as text, choices as a list.
    """

    field: str
    kind: Literal["regex", "json_schema", "ebnf", "structural_tag", "choice"]
    value: Any


def constraint_params(found: Sequence[Constraint], limits: Limits) -> dict[str, str]:
    """The one constraint of a request as an argument of `SamplingParams`; empty if there is none.

    Raises:
        ApiError: 400: there are several, or one that is malformed or over a limit.
    """
    if not found:
        return {}
    if len(found) > 1:
        fields = " and ".join(each.field for each in found)
        raise bad_request(f"{fields} cannot be given together; use one of them", param=found[1].field)
    field, kind, value = found[0]
    match kind:
        case "choice":
            return {"regex": _choices(field, value, limits)}
        case "regex":
            _check_text(field, value, limits.regex_bytes)
            _check_brackets(field, _ESCAPE.sub("", value), limits.ebnf_depth)
        case "ebnf":
            _check_text(field, value, limits.ebnf_bytes)
            _check_brackets(field, _QUOTED.sub("", _ESCAPE.sub("", value)), limits.ebnf_depth)
        case _:
            value = json_text(field, value, limits)
    return {kind: value}


def json_text(field: str, value: Any, limits: Limits) -> str:
    """A JSON Schema or structural tag, given as a value or as JSON text, as text within the limits.

    Raises:
        ApiError: 400.
    """
    if isinstance(value, str):
        _check_text(field, value, limits.schema_bytes)
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"{field} is not JSON: {error}", param=field) from None
    if not isinstance(value, dict | bool):
        raise bad_request(f"{field} must be a JSON object, as such or as text", param=field)
    _check_tree(field, value, limits)
    try:
        text = orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise bad_request(f"{field} cannot be written as JSON: {error}", param=field) from None
    if len(text) > limits.schema_bytes:
        raise bad_request(f"{field}: at most {limits.schema_bytes} bytes, not {len(text)}", param=field)
    return text.decode()


def _check_tree(field: str, value: Any, limits: Limits) -> None:
    level, depth, nodes = [value], 0, 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > limits.schema_depth:
            raise bad_request(f"{field}: at most {limits.schema_depth} levels", param=field)
        if nodes > limits.schema_nodes:
            raise bad_request(f"{field}: at most {limits.schema_nodes} values", param=field)
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = inner


def _check_text(field: str, value: Any, most: int) -> None:
    if not isinstance(value, str):
        raise bad_request(f"{field} must be a string", param=field)
    if not value:
        raise bad_request(f"{field} must not be empty", param=field)
    size = len(value.encode(errors="surrogatepass"))
    if size > most:
        raise bad_request(f"{field}: at most {most} bytes, not {size}", param=field)


def _check_brackets(field: str, text: str, most: int) -> None:
    """A bound on nesting that needs no parser; brackets that are no brackets may count, but few have `most` of them."""
    depth = 0
    for char in text:
        if char in "([{":
            depth += 1
            if depth > most:
                raise bad_request(f"{field}: at most {most} levels of brackets", param=field)
        elif char in ")]}":
            depth = max(depth - 1, 0)


def _choices(field: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, list) or not value:
        raise bad_request(f"{field} must be a non-empty list of strings", param=field)
    if len(value) > limits.choices:
        raise bad_request(f"{field}: at most {limits.choices} choices, not {len(value)}", param=field)
    for at, choice in enumerate(value):
        _check_text(f"{field}[{at}]", choice, limits.choice_bytes)
    return "|".join(map(re.escape, dict.fromkeys(value)))
