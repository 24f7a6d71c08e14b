"""Structural tags: free text that becomes constrained after a trigger, in SGLang's form.

    {"structures": [{"begin": "<tool=add>", "schema": {...}, "end": "</tool>"}, ...], "triggers": ["<tool="]}

Text is free until a trigger has been written for the first time. From there one of the structures that begin with
that trigger has to go on: the rest of its `begin`, JSON valid under its `schema`, its `end`. Then text is free again.
The output may end wherever text is free. Free text is any bytes; what looks like an `end` means nothing in it.

    text up to a trigger   =   (anything, trigger)  and not  (anything, some trigger, something)

Structures that begin alike have to end alike; then what comes between is valid under one of their schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node
from sgl_like.runtime.constrain.json_source import load_schema
from sgl_like.runtime.constrain.pushdown.compile import CompiledFrames, JsonCompiler
from sgl_like.runtime.constrain.pushdown.schema import Document
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.pushdown.tags import Structure, Tagged

__all__ = ["compile_tag", "load_structural_tag"]

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


def compile_tag(compiler: JsonCompiler, tag: Mapping[str, Any], style: Style) -> CompiledFrames:
    """The outputs that a structural tag, checked by `load_structural_tag`, allows.

    Args:
        compiler: of the schemas.
        tag: the structural tag.
        style: of the JSON.

    Raises:
        ConstraintError: a schema is wrong, or a structure is never reached since its trigger is never the first, or
            cannot be told from another where they part.
    """
    with compiler.lock:
        pool = compiler.pool
        pool.start_work()
        anything = pool.repeat(pool.byte_set(ALL_BYTES), 0, None)
        something = pool.repeat(pool.byte_set(ALL_BYTES), 1, None)
        triggers = list(dict.fromkeys(_encode(trigger) for trigger in tag["triggers"]))
        before = pool.concat(pool.concat(anything, pool.strings(triggers)), something)
        groups = _by_begin(tag["structures"])
        documents: list[Document] = []
        reached: set[int] = set()
        firsts: list[Node] = []
        ways: list[tuple[Structure, ...]] = []
        for trigger in triggers:
            first = conjoin(pool, [pool.concat(anything, pool.literal(trigger))], [before])
            mine = {begin: found for begin, found in groups.items() if begin.startswith(trigger)}
            if first is EMPTY:
                continue
            reached.update(i for found in mine.values() for i in found)
            _check_apart(mine)
            structures = []
            for begin, found in mine.items():
                schemas = [load_schema(tag["structures"][i]["schema"]) for i in found]
                value, more = compiler.value(schemas, style, False)
                documents += more
                end = _encode(tag["structures"][found[0]]["end"])
                structures.append(Structure(begin[len(trigger) :], value, end))
            firsts.append(first)
            ways.append(tuple(structures))
        for i in range(len(tag["structures"])):
            if i not in reached:
                raise ConstraintError(
                    f"structural tag: structures[{i}] is never reached: its trigger holds another"
                )
        owner = Tagged(pool, pool.alt(firsts), tuple(firsts), tuple(ways))
        return CompiledFrames(compiler, (owner, owner.free), any(d.unique for d in documents), [])


def _by_begin(structures: list[Mapping[str, Any]]) -> dict[bytes, list[int]]:
    """Numbers of the structures by their beginnings; those that begin alike have to end alike."""
    groups: dict[bytes, list[int]] = {}
    for i, structure in enumerate(structures):
        mine = groups.setdefault(_encode(structure["begin"]), [])
        if mine and structures[mine[0]]["end"] != structure["end"]:
            raise ConstraintError(
                f"structural tag: structures[{mine[0]}] and structures[{i}] begin alike and end differently"
            )
        mine.append(i)
    return groups


def _check_apart(groups: Mapping[bytes, list[int]]) -> None:
    begins = sorted(groups)
    for shorter, longer in pairwise(begins):
        if longer.startswith(shorter):
            raise ConstraintError(
                f"structural tag: structures[{groups[longer][0]}] begins like the whole beginning of "
                f"structures[{groups[shorter][0]}]"
            )


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintError(f"structural tag: {text!r} is not valid Unicode: {error}") from None
