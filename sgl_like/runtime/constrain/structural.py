"""Structural tags: free text that becomes constrained after a trigger, in SGLang's form.

    {"structures": [{"begin": "<tool=add>", "schema": {...}, "end": "</tool>"}, ...], "triggers": ["<tool="]}

Text is free until a trigger has been written for the first time. From there one of the structures that begin with
that trigger has to go on: the rest of its `begin`, JSON valid under its `schema`, its `end`. Then text is free again.
The output may end wherever text is free. Free text is any bytes; what looks like an `end` means nothing in it.

    text up to a trigger   =   (anything, trigger)  and not  (anything, some trigger, something)

Structures that begin alike have to end alike; then what comes between is valid under one of their schemas. A
beginning must not go on where another one has ended, nor an `end` like a number that it comes after: what is read is
one thing or the other, and is never tried both ways. (After a number without an `end`, text that could be more of the
number is more of the number.)

Two options, named as in xgrammar's triggered tags: with ``"at_least_one": true`` the output begins with a structure,
and with ``"stop_after_first": true`` it ends with the first one.

Two options of our own: with ``"free_text": false`` the output is structures, one at least, with nothing but whitespace
between them. With ``"otherwise": {...}``, a schema, it is that, or a JSON value under the schema and no structure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.derive import conjoin
from sgl_like.runtime.constrain.expr import ALL_BYTES, EMPTY, Node, Pool
from sgl_like.runtime.constrain.json_source import load_schema
from sgl_like.runtime.constrain.pushdown.compile import CompiledFrames, JsonCompiler
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.schema import Document
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.pushdown.tags import Listed, Structure, Tagged
from sgl_like.runtime.constrain.pushdown.values import SCALARS

__all__ = ["compile_tag", "load_structural_tag"]

_KEYS = {"begin", "schema", "end"}
_OPTIONS = ("at_least_one", "stop_after_first", "free_text")
_GAP = 2  # characters of whitespace between structures without free text
_IN_NUMBERS = [bytes([byte]) for byte in b"0123456789.eE"]


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
    unknown = sorted(set(tag) - {"structures", "triggers", "type", "otherwise", *_OPTIONS})
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
    options: dict[str, Any] = {name: tag[name] for name in _OPTIONS if name in tag}
    if not all(isinstance(value, bool) for value in options.values()):
        raise ConstraintError(f"structural tag: {' and '.join(map(repr, options))} must be true or false")
    if "otherwise" in tag:
        options["otherwise"] = tag["otherwise"]
    return {"structures": list(structures), "triggers": list(triggers), **options}


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
        compiler.pool.start_work()
        triggers = list(dict.fromkeys(_encode(trigger) for trigger in tag["triggers"]))
        firsts = _first_triggers(compiler.pool, triggers)
        groups = _by_begin(tag["structures"])
        reached = {i for begin, mine in groups.items() if any(map(begin.startswith, firsts)) for i in mine}
        for i in range(len(tag["structures"])):
            if i not in reached:
                raise ConstraintError(
                    f"structural tag: structures[{i}] is never reached: its trigger holds another"
                )
        documents: list[Document] = []

        def ways(rests: Mapping[bytes, list[int]]) -> tuple[Structure, ...]:
            return tuple(
                _structure(compiler, rest, mine, tag["structures"], style, documents)
                for rest, mine in rests.items()
            )

        stops = tag.get("stop_after_first", False)
        if "otherwise" in tag or not tag.get("free_text", True):
            whole = ways(_after(b"", [b""], groups, tag["structures"]))
            start = _listed(compiler, tag, whole, style, documents, stops)
        else:
            texts = tuple(firsts.values())
            after = tuple(ways(_after(trigger, firsts, groups, tag["structures"])) for trigger in firsts)
            owner = Tagged(compiler.pool, compiler.pool.alt(texts), texts, after, stops)
            start = (owner, owner.free)
            if tag.get("at_least_one", False):
                start = owner.begun(ways(_after(b"", [b""], groups, tag["structures"])))
        return CompiledFrames(compiler, start, any(d.unique for d in documents), [])


def _listed(
    compiler: JsonCompiler,
    tag: Mapping[str, Any],
    structures: tuple[Structure, ...],
    style: Style,
    documents: list[Document],
    stops: bool,
) -> tuple[Frame, ...]:
    """The beginning of an output without free text. Adds to `documents`."""
    value = None
    if "otherwise" in tag:
        value, more = compiler.value([load_schema(tag["otherwise"])], style, False)
        documents += more
        if not value.alive:
            raise ConstraintError("structural tag: 'otherwise' allows no output at all")
    owner = Listed(structures, value, style.spaces, _GAP, stops)
    if owner.clashes:
        raise ConstraintError(
            "structural tag: without free text, structures must begin neither with whitespace nor as JSON under"
            " 'otherwise' may"
        )
    return owner.start


def _structure(
    compiler: JsonCompiler,
    rest: bytes,
    mine: list[int],
    structures: list[Mapping[str, Any]],
    style: Style,
    documents: list[Document],
) -> Structure:
    """What comes after a trigger: the rest of a beginning, and what the structures that have it have in common.

    Adds to `documents`.
    """
    where = f"structural tag: structures[{mine[0]}]"
    value, more = compiler.value([load_schema(structures[i]["schema"]) for i in mine], style, False)
    documents += more
    if not value.alive:
        raise ConstraintError(f"{where}: its schema allows no output at all")
    end = _encode(structures[mine[0]]["end"])
    if value.scalars[SCALARS.index("number")] is not None and end[:1] in _IN_NUMBERS:
        raise ConstraintError(
            f"{where}: its value may be a number, and its 'end' begins like more of the number"
        )
    return Structure(rest, value, end, style.spaces)


def _first_triggers(pool: Pool, triggers: list[bytes]) -> dict[bytes, Node]:
    """Text up to each trigger that can be the first, longest triggers first."""
    anything = pool.repeat(pool.byte_set(ALL_BYTES), 0, None)
    something = pool.repeat(pool.byte_set(ALL_BYTES), 1, None)
    before = pool.sequence(anything, pool.strings(triggers), something)
    found = {}
    for trigger in sorted(triggers, key=len, reverse=True):
        text = conjoin(pool, [pool.concat(anything, pool.literal(trigger))], [before])
        if text is not EMPTY:
            found[trigger] = text
    return found


def _by_begin(structures: list[Mapping[str, Any]]) -> dict[bytes, list[int]]:
    """Numbers of the structures by their beginnings."""
    groups: dict[bytes, list[int]] = {}
    for i, structure in enumerate(structures):
        groups.setdefault(_encode(structure["begin"]), []).append(i)
    return groups


def _after(
    trigger: bytes,
    triggers: Iterable[bytes],
    groups: Mapping[bytes, list[int]],
    structures: list[Mapping[str, Any]],
) -> dict[bytes, list[int]]:
    """What may go on after text up to a trigger, and so up to those that it ends with: the rest of the beginning, and
    numbers of the structures that have it.
    """
    rests: dict[bytes, list[int]] = {}
    for each in triggers:
        for begin, mine in groups.items():
            if trigger.endswith(each) and begin.startswith(each):
                rests.setdefault(begin[len(each) :], []).extend(mine)
    for first, *others in rests.values():
        for other in others:
            if structures[first]["end"] != structures[other]["end"]:
                raise ConstraintError(
                    f"structural tag: structures[{first}] and structures[{other}] begin alike and end differently"
                )
    for shorter, longer in pairwise(sorted(rests)):
        if longer.startswith(shorter):
            raise ConstraintError(
                f"structural tag: structures[{rests[longer][0]}] begins like the whole beginning of "
                f"structures[{rests[shorter][0]}]"
            )
    return rests


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConstraintError(f"structural tag: {text!r} is not valid Unicode: {error}") from None
