"""Rules that begin with themselves, without a transformed grammar: left corners, found when they are needed.

A `nodes.Rule` in the middle of a rule is no problem: a derivative replaces it by what is left of its body, and what
comes after it stays where it is, to the right in the `Concat`. That chain is the stack. Only a rule that may begin
with itself (``expr = expr "+" term | term``; also by way of others, or after something that may be empty) has a
derivative that needs itself. Such rules form components, the strongly connected ones of "may begin with". Within one,

    expr  =  what begins an expr without being one of the component, and then corner(expr, expr)

where ``corner(base, goal)`` is what may follow a finished `base` that stands at the very left of a `goal`:

    corner(B, A)  =  (nothing, if B is A)  |  rest . corner(C, A)   for every C that may be ``B rest``

Here: ``expr = term . corner``, ``corner = nothing | "+" term . corner``. This is the left-corner transform (Rosenkrantz
and Lewis 1970), applied to derivatives one step at a time: exact for every context-free grammar, ambiguous, cyclic
(``a = a``) and hidden left recursion included, since only non-empty strings are followed (whether a rule may be empty
is known beforehand). ``corner(A, A)`` is a star: two in a row are one, which keeps ``a = a a | "x"`` at one state.
"""

from __future__ import annotations

from collections.abc import Iterator

from sgl_like.runtime.constrain.expr import EPSILON, Alt, Concat, Node, Pool, Repeat, Rule

__all__ = ["LeftRecursion", "corner", "left_recursion"]


class LeftRecursion:
    """One component of rules that may begin with each other; `members` is empty for all rules that do not.

    Args:
        begins: (rule, first, rest): the rule may be ``first rest``, and `first` is not of the component.
        follows: for each member the (rule, rest) that may be ``member rest``.
    """

    def __init__(
        self,
        members: frozenset[Rule],
        begins: list[tuple[Rule, Node, Node]],
        follows: dict[Rule, list[tuple[Rule, Node]]],
    ) -> None:
        self.members = members
        self.begins = begins
        self.follows = follows
        self._above: dict[Rule, list[tuple[Rule, Node]]] = {}
        self._corners: dict[Rule, dict[Rule, tuple[bool, int]]] = {}

    def above(self, base: Rule) -> list[tuple[Rule, Node]]:
        """The (rule, rest) that a finished `base` may be the beginning of, also by way of rules that end with it."""
        found = self._above.get(base)
        if found is None:
            ends = {base: None}
            todo = [base]
            for member in todo:
                for rule, rest in self.follows[member]:
                    if rest.nullable and rule not in ends:
                        ends[rule] = None
                        todo.append(rule)
            pairs = dict.fromkeys(pair for member in ends for pair in self.follows[member])
            found = self._above[base] = [pair for pair in pairs if pair[1] is not EPSILON]
        return found

    def corner_facts(self, base: Rule, goal: Rule) -> tuple[bool, int]:
        """Whether ``corner(base, goal)`` may be empty, and its least length in bytes."""
        found = self._corners.get(goal)
        if found is None:
            found = self._corners[goal] = {goal: (True, 0)}
            todo = [goal]
            for rule in todo:  # grows while it runs; ends because lengths only get smaller
                for member, pairs in self.follows.items():
                    for owner, rest in pairs:
                        if owner is rule:
                            nullable, length = found[rule]
                            old = found.get(member, (False, rest.min_len + length + 1))
                            new = old[0] or (rest.nullable and nullable), min(old[1], rest.min_len + length)
                            if new != old:
                                found[member] = new
                                todo.append(member)
        return found[base]


_NOT_RECURSIVE = LeftRecursion(frozenset(), [], {})


def corner(pool: Pool, base: Rule, goal: Rule) -> Node:
    """What may follow a finished `base` that a `goal` of the same component began with."""
    return pool.corner(base, goal, *left_recursion(pool, base).corner_facts(base, goal))


def left_recursion(pool: Pool, rule: Rule) -> LeftRecursion:
    """The component of `rule`, found together with those of all rules that it may begin with (Tarjan 1972)."""
    if rule.left is None:
        order: dict[Rule, int] = {}
        lowest: dict[Rule, int] = {}
        firsts: dict[Rule, list[tuple[Node, Node]]] = {}
        stack: list[Rule] = []
        path: list[tuple[Rule, Iterator[Rule]]] = []

        def enter(node: Rule) -> None:
            order[node] = lowest[node] = len(order)
            firsts[node] = list(dict.fromkeys(_firsts(pool, node.body)))
            stack.append(node)
            path.append((node, iter([first for first, _ in firsts[node] if isinstance(first, Rule)])))

        enter(rule)
        while path:
            node, nexts = path[-1]
            following = next((n for n in nexts if n.left is None), None)
            if following is None:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    at = stack.index(node)
                    _close(stack[at:], firsts)
                    del stack[at:]
            elif following in order:
                lowest[node] = min(lowest[node], order[following])
            else:
                enter(following)
    assert rule.left is not None
    return rule.left


def _close(members: list[Rule], firsts: dict[Rule, list[tuple[Node, Node]]]) -> None:
    """Note that `members` are a component."""
    begins: list[tuple[Rule, Node, Node]] = []
    follows: dict[Rule, list[tuple[Rule, Node]]] = {member: [] for member in members}
    for member in members:
        for first, rest in firsts[member]:
            if isinstance(first, Rule) and first in follows:
                follows[first].append((member, rest))
            else:
                begins.append((member, first, rest))
    recursive = any(follows.values())
    found = LeftRecursion(frozenset(members), begins, follows) if recursive else _NOT_RECURSIVE
    for member in members:
        member.left = found


def _firsts(pool: Pool, node: Node) -> Iterator[tuple[Node, Node]]:
    """Pairs (first, rest) whose concatenations are together the non-empty strings of `node`."""
    if isinstance(node, Alt):
        for item in node.items:
            yield from _firsts(pool, item)
    elif isinstance(node, Repeat):
        high = None if node.high is None else node.high - 1
        rest = pool.repeat(node.item, max(node.low - 1, 0), high)
        for first, after in _firsts(pool, node.item):
            yield first, pool.concat(after, rest)
    elif isinstance(node, Concat):
        tail: Node = node
        while isinstance(tail, Concat):
            for first, after in _firsts(pool, tail.head):
                yield first, pool.concat(after, tail.tail)
            if not tail.head.nullable:
                return
            tail = tail.tail
        yield from _firsts(pool, tail)
    else:
        yield node, EPSILON
