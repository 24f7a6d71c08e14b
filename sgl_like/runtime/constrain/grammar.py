"""Context-free grammars between their syntax (GBNF, Lark) and expressions: names, checks, and what becomes a `Rule`.

A front end describes each rule with the four classes `Leaf`, `Ref`, `Seq` or `Choice`, and `Times`. `build` finds by
fixpoint which rules can end at all and how short (the others are left out; if the start is one of them, that is an
error), then makes the expression of the start. Small rules that do not contain themselves are put in place of their
name, so that expressions can be simplified across rules; the others become `nodes.Rule`, whose body is made when the
automaton gets to it. How recursion works from there is said in `recursion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool, Strings

__all__ = [
    *("IGNORE_BYTES", "Choice", "Definition", "Leaf", "Position", "Ref", "Seq", "Source", "Term", "Times"),
    "build",
]

_INLINE = 100  # largest weight (about its number of nodes) of a rule that is put in place of its name
_NEVER = 1 << 62
IGNORE_BYTES = 20
"""How many bytes that a Lark grammar's ``%ignore`` matches may come in a row, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text of a grammar; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a grammar, for errors. `name`: what to call it."""

    name: str
    text: str

    def error(self, message: str, at: Position) -> ConstraintError:
        """An error with the line it is about, and a caret below the place."""
        lines = self.text.splitlines() or [""]
        line = lines[at.line - 1] if 0 < at.line <= len(lines) else ""
        first = max(0, at.column - 61) if len(line) > 100 else 0
        shown = line[first : first + 100].replace("\t", " ")
        caret = " " * (at.column - 1 - first) + "^"
        return ConstraintError(
            f"{self.name}, line {at.line}, column {at.column}: {message}\n{shown}\n{caret}"
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """A regular part, as an expression."""

    node: Node


@dataclass(frozen=True, slots=True)
class Ref:
    """The rule called `name`."""

    name: str
    at: Position


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; nothing if there are no items."""

    items: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of the items."""

    items: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Times:
    """`item`, `low` to `high` times (None: without end)."""

    item: Term
    low: int
    high: int | None


Term = Leaf | Ref | Seq | Choice | Times


@dataclass(frozen=True, slots=True)
class Definition:
    """One rule. `at`: where it is defined. `source`: the text that `at` is in."""

    body: Term
    at: Position
    source: Source


def build(pool: Pool, rules: Mapping[str, Definition], start: str) -> Node:
    """The language of the rule `start`, which has to be one of `rules`.

    Raises:
        ConstraintError: an undefined rule, or a start that has no finite string; with its position.
        ConstraintTooComplex: a limit of the pool was reached.
    """
    return _Builder(pool, rules).node_of(start)


class _Builder:
    def __init__(self, pool: Pool, rules: Mapping[str, Definition]) -> None:
        self._pool = pool
        self._rules = rules
        self._uses = {name: _references(rule.body) for name, rule in rules.items()}
        for name, rule in rules.items():
            for ref in self._uses[name]:
                if ref.name not in rules:
                    raise rule.source.error(f"rule {ref.name!r} is not defined", ref.at)
        self._facts = self._find_facts()
        self._weights = self._find_weights()
        self._nodes: dict[str, Node] = {}

    def node_of(self, start: str) -> Node:
        if start not in self._facts:
            rule = self._rules[start]
            raise rule.source.error(f"rule {start!r} allows no output at all: it never ends", rule.at)
        return self._named(start)

    def _find_facts(self) -> dict[str, tuple[bool, int]]:
        """(nullable, least length) of all rules that have a finite string: least fixpoint."""
        users: dict[str, list[str]] = {name: [] for name in self._rules}
        for name, refs in self._uses.items():
            for used in {ref.name for ref in refs}:
                users[used].append(name)
        facts: dict[str, tuple[bool, int]] = {}
        todo = dict.fromkeys(self._rules)
        while todo:
            name = next(iter(todo))
            del todo[name]
            found = _measure(self._rules[name].body, facts)
            if found[1] < _NEVER and found != facts.get(name):
                facts[name] = found
                todo.update(dict.fromkeys(users[name]))
        return facts

    def _find_weights(self) -> dict[str, int]:
        """About how many nodes each rule has that contains, also indirectly, only rules without recursion."""
        weights: dict[str, int] = {}
        users: dict[str, list[str]] = {}
        open_uses: dict[str, int] = {}
        for name, refs in self._uses.items():
            used = {ref.name for ref in refs}
            open_uses[name] = len(used)
            for other in used:
                users.setdefault(other, []).append(name)
        todo = [name for name, uses in open_uses.items() if not uses]
        for name in todo:  # grows while it runs: a rule comes when all that it uses came (Kahn 1962)
            weights[name] = _weigh(self._rules[name].body, weights)
            for user in users.get(name, ()):
                open_uses[user] -= 1
                if not open_uses[user]:
                    todo.append(user)
        return weights

    def _named(self, name: str) -> Node:
        """What stands for a reference to the rule `name`."""
        if name not in self._facts:
            return EMPTY
        node = self._nodes.get(name)
        if node is None:
            if self._weights.get(name, _INLINE + 1) <= _INLINE:
                node = self._node(self._rules[name].body)
            else:
                node = self._pool.rule(name, *self._facts[name], lambda: self._node(self._rules[name].body))
            self._nodes[name] = node
        return node

    def _node(self, term: Term) -> Node:
        if isinstance(term, Leaf):
            return term.node
        if isinstance(term, Ref):
            return self._named(term.name)
        if isinstance(term, Times):
            return self._pool.repeat(self._node(term.item), term.low, term.high)
        if isinstance(term, Seq):
            return self._pool.sequence(*map(self._node, term.items))
        return self._pool.alt(map(self._node, term.items))


def _references(term: Term) -> list[Ref]:
    if isinstance(term, Ref):
        return [term]
    if isinstance(term, Times):
        return _references(term.item)
    if isinstance(term, Leaf):
        return []
    return [ref for item in term.items for ref in _references(item)]


def _measure(term: Term, facts: Mapping[str, tuple[bool, int]]) -> tuple[bool, int]:
    """(nullable, least length) as far as `facts` know; no string at all: a length of _NEVER or more."""
    if isinstance(term, Leaf):
        return term.node.nullable, term.node.min_len
    if isinstance(term, Ref):
        return facts.get(term.name, (False, _NEVER))
    if isinstance(term, Times):
        nullable, length = _measure(term.item, facts)
        return nullable or not term.low, min(length * term.low, _NEVER)
    items = [_measure(item, facts) for item in term.items]
    if isinstance(term, Seq):
        return all(item[0] for item in items), min(sum(item[1] for item in items), _NEVER)
    return any(item[0] for item in items), min((item[1] for item in items), default=_NEVER)


def _weigh(term: Term, weights: Mapping[str, int]) -> int:
    if isinstance(term, Leaf):
        size = len(term.node.strings[0]) if isinstance(term.node, Strings) else 0
        return 1 + size // 8
    if isinstance(term, Ref):
        weight = weights[term.name]
        return weight if weight <= _INLINE else 1
    if isinstance(term, Times):
        return 1 + _weigh(term.item, weights)
    return 1 + sum(_weigh(item, weights) for item in term.items)
