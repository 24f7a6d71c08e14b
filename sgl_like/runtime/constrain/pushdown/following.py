"""What the next value of a container has to be, and whether there is any such value."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.expr import EMPTY
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Leaf,
    Or,
    leaves,
    required_leaves,
)
from sgl_like.runtime.constrain.pushdown.leaves import Running, Verdict
from sgl_like.runtime.constrain.pushdown.schema import ARRAY, NUMBER, OBJECT, OWN, STRING, Own
from sgl_like.runtime.constrain.pushdown.values import Env, Judge, Start, start

_DEEPEST = 3
_MOST_DECIDING = 3  # verdicts about a value of which all combinations are looked at, for what they lead to
_LITERALS, _NUMBERS = frozenset(("null", "boolean")), frozenset(("number", "integer"))
_CONSTANTS = frozenset(("enum", "const", "type"))
_LISTS = frozenset(ARRAY) - {"items", "minItems", "maxItems"}
# Of an object, so that it takes a closer look to say whether there can be one.
_DEMANDING = frozenset(OBJECT) - {"properties", "required", "additionalProperties", "maxProperties"} | {
    "dependencies"
}


def possible(env: Env, formula: Formula, apart: bool = False) -> bool:
    """Whether a value may satisfy `formula`; True if that takes too long to find out. While a search is running, that
    is found out only if `apart`, by another one.
    """
    if formula is TRUE or formula is FALSE:
        return formula is TRUE
    found = env.possible.get(formula)
    if found is None:
        if env.judge is None or (env.judge.busy and not apart):
            return True
        env.possible[formula] = True  # for those that are looked at meanwhile
        found = env.possible[formula] = _is_simple(env, formula, _DEEPEST) or _is_alive(
            env, env.judge, formula
        )
    return found


def _is_alive(env: Env, judge: Judge, formula: Formula) -> bool:
    value = start(env, formula)
    if not judge.busy:
        return value.alive
    with judge.apart():
        return value.alive


def checked_start(env: Env, formula: Formula) -> Start:
    """`start`, that knows whether it is alive."""
    made = start(env, formula)
    env.judged[made] = possible(env, formula)
    return made


def _is_simple(env: Env, formula: Formula, depth: int) -> bool:
    """Whether it is plain to see that there is a value, `depth` levels down at most."""
    if isinstance(formula, Or):
        return any(_is_simple(env, part, depth) for part in formula.parts)
    return formula is TRUE or _is_plain(env, formula, depth) or _has_scalar(env, formula)


def _has_scalar(env: Env, formula: Formula) -> bool:
    """Whether a string or a number may satisfy `formula`; False if that takes too long to find out."""
    env.pool.start_work()
    try:
        return any(env.scalars.of(formula, kind) is not EMPTY for kind in ("string", "number"))
    except ConstraintError:
        return False


def _is_plain(env: Env, formula: Formula, depth: int) -> bool:
    """Whether the keywords of one schema say that there is a value."""
    if not isinstance(formula, Own):
        return False
    schema = formula.schema
    raw, types = schema.raw, schema.types
    if "enum" in raw or "const" in raw:
        values = raw.get("enum", ()) if "const" not in raw else () if "enum" in raw else (raw["const"],)
        return OWN.intersection(raw) <= _CONSTANTS and any(
            isinstance(value, str) and "string" in types for value in values
        )
    if types & _LITERALS:
        return True
    if ("string" in types and raw.keys().isdisjoint(STRING)) or (
        types & _NUMBERS and raw.keys().isdisjoint(NUMBER)
    ):
        return True
    if "array" in types and not raw.get("minItems") and "contains" not in raw:
        return True
    if "array" in types and depth and _LISTS.isdisjoint(raw) and not isinstance(raw.get("items"), list):
        least = raw["minItems"]
        if least <= raw.get("maxItems", least) and (
            "items" not in raw or _is_simple(env, schema.sub("items"), depth - 1)
        ):
            return True
    if "object" not in types or not raw.keys().isdisjoint(_DEMANDING) or depth == 0:
        return False
    names = raw.get("required", ())
    if len(names) > raw.get("maxProperties", len(names)):
        return False
    for name in names:
        if name in raw.get("properties", ()):
            if not _is_simple(env, schema.sub("properties", name), depth - 1):
                return False
        elif raw.get("additionalProperties", True) not in (True, {}):
            return False
    return True


class Next(NamedTuple):
    """A container while its next value is read: formulas with `Verdict` leaves, and those that are watched."""

    must: Formula
    watch: tuple[Formula, ...]
    waiting: tuple[Verdict, ...]
    value: Start


def next_value(
    env: Env,
    must: Formula,
    watch: tuple[Formula, ...],
    leads_on: Callable[[Next, tuple[bool, ...] | None], bool],
    besides: Formula = TRUE,
) -> Next | None:
    """What the value has to be for `must` to become true, and `besides`; and what is only watched because it decides
    other leaves. None if nothing will do.

    Args:
        env: shared things.
        must: formula with `Verdict` leaves.
        watch: more of them.
        leads_on: whether the container can end after a value with this result, or (None) with any that it may have;
            asked if it matters.
        besides: what else the value has to be.
    """
    needed = required_leaves(must)

    def bound(leaf: Leaf, upper: bool) -> Formula:
        if isinstance(leaf, Verdict):
            return leaf.child
        return TRUE if upper else FALSE

    child = env.formulas.all_of((env.formulas.bound(must, bound), besides))
    waiting = tuple(leaf for leaf in verdicts(must, *watch) if leaf not in needed)
    if child is FALSE:
        return None
    watched = tuple(leaf.child for leaf in waiting)
    made = Next(must, watch, waiting, start(env, child, watched))
    if not env.exact:
        return made
    own = set(verdicts(must)) if watch else set(waiting)
    deciding = [leaf in own for leaf in waiting]
    if sum(deciding) > _MOST_DECIDING:
        return made if leads_on(made, None) else None
    results = product(*((False, True) if each else (False,) for each in deciding))
    f, dead = env.formulas, []
    for result in [each for each in results if not leads_on(made, each)]:
        ways = zip(waiting, result, deciding, strict=True)
        dead.append(
            f.all_of([leaf.child if hit else f.negate(leaf.child) for leaf, hit, counts in ways if counts])
        )
    if dead:
        child = f.all_of((child, f.negate(f.any_of(dead))))
        made = made._replace(value=start(env, child, watched))
    return made if possible(env, child) else None


def verdicts(*formulas: Formula) -> list[Verdict]:
    """The verdicts in formulas, those that leaves hold included."""
    found: dict[Verdict, None] = {}
    todo = list(formulas)
    while todo:
        batch, todo = todo, []
        for leaf in leaves(batch):
            if isinstance(leaf, Verdict):
                found[leaf] = None
            elif isinstance(leaf, Running):
                todo.extend(leaf.held())
    return list(found)


def settled(env: Env, found: Next, result: tuple[bool, ...]) -> tuple[Formula, tuple[Formula, ...]] | None:
    """What a container has to be, and what is watched of it, when the value has ended; None if it must not end so."""
    known = dict(zip(found.waiting, result, strict=True))

    def change(leaf: Leaf) -> Formula:
        if isinstance(leaf, Verdict):
            return TRUE if known.get(leaf, True) else FALSE
        assert isinstance(leaf, Running)
        return leaf.settle(env, change)

    must = env.formulas.map(found.must, change)
    if must is FALSE:
        return None
    return must, tuple(env.formulas.map(each, change) for each in found.watch)


def ends(env: Env, formula: Formula) -> bool:
    """Whether a formula over running assertions is true if the container ends here."""

    def end(leaf: Leaf) -> Formula:
        assert isinstance(leaf, Running)
        return TRUE if leaf.ends() else FALSE

    return env.formulas.map(formula, end) is TRUE
