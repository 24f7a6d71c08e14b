"""Boolean formulas over the assertions that apply to one JSON value, as far as they are decided.

A leaf is an assertion that is still running; reading the value turns leaves into other leaves or into TRUE and
FALSE, and the constructors simplify. Equal formulas of one `Formulas` are one object.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator


class Formula:
    """A formula; compare with ``is``."""

    __slots__ = ("__weakref__", "serial")
    serial: int


class Leaf(Formula):
    """An assertion that is not decided yet; subclasses say which. `key` tells equal ones apart."""

    __slots__ = ()


class And(Formula):
    """All of `parts`."""

    __slots__ = ("parts",)
    parts: tuple[Formula, ...]


class Or(Formula):
    """One of `parts` at least."""

    __slots__ = ("parts",)
    parts: tuple[Formula, ...]


class Not(Formula):
    """Not `part`."""

    __slots__ = ("part",)
    part: Formula


def _constant(serial: int) -> Formula:
    made = Formula()
    made.serial = serial
    return made


_JOINED = And, Or
TRUE, FALSE = _constant(0), _constant(1)


class Formulas:
    """Makes formulas."""

    def __init__(self) -> None:
        self._known: dict[object, Formula] = {}
        self._loose: list[tuple[object, weakref.ref[Formula]]] = []
        self._count = 2

    def __len__(self) -> int:
        return len(self._known)

    def loosen(self) -> None:
        """Begin to forget formulas that nothing else holds. Until `tighten`, none may be made."""
        known = self._known
        self._loose = [(key, weakref.ref(formula)) for key, formula in known.items()]
        known.clear()

    def tighten(self) -> None:
        """Keep those that are still held."""
        for key, reference in self._loose:
            formula = reference()
            if formula is not None:
                self._known[key] = formula
        self._loose = []

    def leaf(self, key: object, make: Callable[[], Leaf]) -> Leaf:
        """The leaf of this key."""
        found = self._known.get(key)
        if found is None:
            found = self._number(key, make())
        assert isinstance(found, Leaf)
        return found

    def _number(self, key: object, formula: Formula) -> Formula:
        formula.serial = self._count
        self._count += 1
        self._known[key] = formula
        return formula

    def all_of(self, parts: Iterable[Formula]) -> Formula:
        """Conjunction."""
        return self._join(parts, And, TRUE, FALSE)

    def any_of(self, parts: Iterable[Formula]) -> Formula:
        """Disjunction."""
        return self._join(parts, Or, FALSE, TRUE)

    def _join(
        self,
        parts: Iterable[Formula],
        kind: type[And | Or],
        neutral: Formula,
        absorbing: Formula,
    ) -> Formula:
        kept: dict[Formula, None] = {}
        opposites = []
        todo = list(parts)
        todo.reverse()
        while todo:
            part = todo.pop()
            if part is absorbing:
                return absorbing
            which = type(part)
            if which is kind:
                todo.extend(reversed(part.parts))  # type: ignore[attr-defined]
            elif part is not neutral:
                kept[part] = None
                if which is Not:
                    opposites.append(part.part)  # type: ignore[attr-defined]
        for part in opposites:
            if part in kept:
                return absorbing
        if len(kept) < 2:
            return next(iter(kept), neutral)
        key = (kind, frozenset(part.serial for part in kept))
        found = self._known.get(key)
        if found is None:
            made = kind()
            made.parts = tuple(kept)
            found = self._number(key, made)
        return found

    def negate(self, part: Formula) -> Formula:
        """Negation."""
        if part is TRUE:
            return FALSE
        if part is FALSE:
            return TRUE
        if isinstance(part, Not):
            return part.part
        key = (Not, part.serial)
        found = self._known.get(key)
        if found is None:
            made = Not()
            made.part = part
            found = self._number(key, made)
        return found

    def exactly_one(self, parts: list[Formula]) -> Formula:
        """One of `parts` and no other. Quadratic in their number."""
        return self.any_of(
            self.all_of([part, *(self.negate(other) for j, other in enumerate(parts) if j != i)])
            for i, part in enumerate(parts)
        )

    def map(self, formula: Formula, change: Callable[[Leaf], Formula]) -> Formula:
        """The formula with every leaf changed."""
        if isinstance(formula, Leaf):
            return change(formula)
        if formula is TRUE or formula is FALSE:
            return formula
        memo: dict[Formula, Formula] = {TRUE: TRUE, FALSE: FALSE}

        def go(each: Formula) -> Formula:
            if isinstance(each, Leaf):
                made = change(each)
            elif isinstance(each, Not):
                made = self.negate(memo.get(each.part) or go(each.part))
            else:
                assert isinstance(each, _JOINED)
                made = mapped(each)
            memo[each] = made
            return made

        def mapped(each: And | Or) -> Formula:
            kind, neutral, absorbing = (And, TRUE, FALSE) if isinstance(each, And) else (Or, FALSE, TRUE)
            parts, same = [], True
            for part in each.parts:
                after = memo.get(part) or go(part)
                if after is absorbing:
                    return absorbing
                same = same and after is part
                parts.append(after)
            return each if same else self._join(parts, kind, neutral, absorbing)

        return go(formula)

    def bound(self, formula: Formula, of: Callable[[Leaf, bool], Formula], upper: bool = True) -> Formula:
        """A formula that is implied by `formula`, or, if not `upper`, that implies it; `of` says so of each leaf."""
        if isinstance(formula, And):
            return self.all_of(self.bound(part, of, upper) for part in formula.parts)
        if isinstance(formula, Or):
            return self.any_of(self.bound(part, of, upper) for part in formula.parts)
        if isinstance(formula, Not):
            return self.negate(self.bound(formula.part, of, not upper))
        return of(formula, upper) if isinstance(formula, Leaf) else formula


def leaves(formulas: Iterable[Formula]) -> Iterator[Leaf]:
    """Every leaf once, in order."""
    seen: set[Formula] = set()
    todo = list(formulas)
    todo.reverse()
    while todo:
        formula = todo.pop()
        if formula in seen:
            continue
        seen.add(formula)
        if isinstance(formula, Leaf):
            yield formula
        elif isinstance(formula, Not):
            todo.append(formula.part)
        elif isinstance(formula, _JOINED):
            todo.extend(reversed(formula.parts))


def required_leaves(formula: Formula) -> set[Leaf]:
    """Leaves that must become true for the formula to."""
    if isinstance(formula, Leaf):
        return {formula}
    if isinstance(formula, And):
        return {part for part in formula.parts if isinstance(part, Leaf)}
    return set()
