"""Structural tags: free text that becomes constrained after a trigger, in SGLang's form.

    {"structures": [{"begin": "<tool=add>", "schema": {...}, "end": "</tool>"}, ...], "triggers": ["<tool="]}

Text is free until a trigger has been written for the first time. From there one of the structures that begin with
that trigger has to go on: the rest of its `begin`, JSON valid under its `schema`, its `end`. Then text is free again.
The output may end wherever text is free. Free text is any bytes; what looks like an `end` means nothing in it.

    text up to a trigger   =   (anything, trigger)  and not  (anything, some trigger, something)
    the whole output       =   (text up to a trigger, one of its structures)*, not (anything, trigger, anything)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node, Pool

__all__ = ["load_structural_tag", "structural_to_expr"]

_KEYS = {"begin", "schema", "end"}


def load_structural_tag(tag: Any) -> dict[str, Any]:
    """A structural tag, given as a mapping or as JSON text, checked.

    Raises:
        ConstraintError: it is not of the form above, or a structure begins with none of the triggers.
    """
    if isinstance(tag, str | bytes):
        try:
            tag = json.loads(tag)
        except (ValueError, RecursionError) as error:
            raise ConstraintError(f"the structural tag is not JSON: {error}") from None
    if not isinstance(tag, Mapping):
        raise ConstraintError(f"a structural tag is an object, not {type(tag).__name__}")
    unknown = sorted(set(tag) - {"structures", "triggers", "type"})
    if unknown or tag.get("type", "structural_tag") != "structural_tag":
        what = f"{unknown[0]!r}" if unknown else f"the type {tag['type']!r}"
        raise ConstraintError(f"structural tag: {what} is not supported; it has 'structures' and 'triggers'")
    triggers, structures = tag.get("triggers"), tag.get("structures")
    if not isinstance(triggers, list | tuple) or not triggers or not all(map(_is_text, triggers)):
        raise ConstraintError("structural tag: 'triggers' is a non-empty list of non-empty strings")
    if not isinstance(structures, list | tuple) or not structures:
        raise ConstraintError("structural tag: 'structures' is a non-empty list")
    for i, structure in enumerate(structures):
        _check(i, structure, list(triggers))
    return {"structures": list(structures), "triggers": list(triggers)}


def _check(i: int, structure: Any, triggers: list[str]) -> None:
    where = f"structural tag: structures[{i}]"
    if not isinstance(structure, Mapping) or set(structure) != _KEYS:
        raise ConstraintError(f"{where} has to have 'begin', 'schema' and 'end', and nothing else")
    for key in ("begin", "end"):
        if not isinstance(structure[key], str):
            raise ConstraintError(f"{where}: {key!r} is a string, not {type(structure[key]).__name__}")
    if not any(structure["begin"].startswith(trigger) for trigger in triggers):
        raise ConstraintError(
            f"{where}: begin {structure['begin']!r} starts with none of the triggers {triggers}"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def structural_to_expr(pool: Pool, tag: Mapping[str, Any], convert: Callable[[Any], Node]) -> Node:
    """The outputs that a structural tag, checked by `load_structural_tag`, allows.

    Args:
        pool: where the expressions are made.
        tag: the structural tag.
        convert: JSON Schema to expression, made in the same pool.

    Raises:
        ConstraintError: from `convert`, or a structure that is never reached since its trigger is never the first.
    """
    anything = pool.repeat(pool.byte_set(ALL_BYTES), 0, None)
    something = pool.repeat(pool.byte_set(ALL_BYTES), 1, None)
    encoded = list(dict.fromkeys(_encode(trigger) for trigger in tag["triggers"]))
    triggered = pool.concat(anything, pool.strings(encoded))
    not_triggered_before = pool.concat(triggered, something)
    bodies = [pool.concat(convert(s["schema"]), pool.literal(_encode(s["end"]))) for s in tag["structures"]]
    reached: set[int] = set()
    calls: list[Node] = []
    for trigger in encoded:
        first = conjoin(pool, [pool.concat(anything, pool.literal(trigger))], [not_triggered_before])
        ways: list[Node] = []
        for i, structure in enumerate(tag["structures"]):
            begin = _encode(structure["begin"])
            if begin.startswith(trigger) and first is not EMPTY:
                reached.add(i)
                ways.append(pool.concat(pool.literal(begin[len(trigger) :]), bodies[i]))
        calls.append(pool.concat(first, pool.alt(ways)))
    for i in range(len(bodies)):
        if i not in reached:
            raise ConstraintError(
                f"structural tag: structures[{i}] is never reached: its trigger holds another"
            )
    free = conjoin(pool, [anything], [pool.concat(triggered, anything)])
    return pool.concat(pool.repeat(pool.alt(calls), 0, None), free)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintError(f"structural tag: {text!r} is not valid Unicode: {error}") from None
