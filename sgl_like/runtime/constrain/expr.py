"""Byte-level regular expressions, hash-consed: equal expressions of one `Pool` are the same object.

An expression stands for a set of byte strings. Counted repetition (`Repeat`) and references to rules (`Rule`) are
nodes of their own and are unrolled only where the automaton gets to, so nothing blows up before it is reached. The
constructors simplify enough that, with `derive.conjoin` deciding conjunctions, the empty language is always the one
node `EMPTY`. Derivatives are in `derive.py`, recursion is in `recursion.py`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from itertools import count
from math import inf
from time import monotonic
from typing import Any

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.nodes import (
    ALL_BYTES,
    EMPTY,
    EPSILON,
    UNLIMITED,
    Alt,
    Both,
    Bytes,
    Concat,
    Corner,
    Divisor,
    Edges,
    Multiple,
    Node,
    Repeat,
    Rule,
    Strings,
    has_multiple,
)

__all__ = [
    "ALL_BYTES", "EMPTY", "EPSILON", "UNLIMITED", "Alt", "Both", "Bytes", "Concat", "Corner", "Divisor", "Edges",
    "Multiple", "Node", "Pool", "Repeat", "Rule", "Strings",
]  # fmt: skip

_LONGEST_LITERAL = 256  # joining stops there: a stack of 10,000 closing brackets is not copied at every step
_MOST_KEPT = 256


class Pool:
    """Makes nodes, and remembers them as long as somebody holds them. Not thread-safe.

    Raises ConstraintTooComplex from any constructor once `max_work` nodes were made since `start_work`, or one
    alternation grows wider than `max_width`.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.edges: dict[Node, Edges] = {}  # memo of derive.edges
        self.raw_edges: dict[Node, Edges] = {}  # memo of derive: edges of a conjunction before pruning
        self.counted: dict[tuple[Node, Node], Any] = {}  # memo of `pushdown.expressions`
        self.mentions: dict[tuple[Node, Node], bool] = {}  # memo of `fragments`
        self.remaining: dict[Node, int] = {}  # ditto
        self.measures: dict[Node, tuple[()] | tuple[int, int]] = {}  # memo of `lengths`
        self.characters: list[Node] = []  # of texts, from narrow to wide; see `fragments.clip`
        self._nodes: weakref.WeakValueDictionary[Hashable, Node] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[Hashable, Node] = OrderedDict()
        self._made = 2
        self._stop = 0
        self._deadline = self._seconds = inf
        self._ticks = 0
        self.start_work()

    def __len__(self) -> int:
        return len(self._nodes)

    def start_work(self) -> None:
        """Begin a new unit of work with a fresh budget."""
        self._stop = self._made + self.limits.max_work

    def start_clock(self, seconds: float) -> None:
        """From now on there are so many seconds for making nodes."""
        self._seconds = seconds
        self._deadline = monotonic() + seconds

    def check_clock(self) -> None:
        """Now and then look at the time. Raises ConstraintTooComplex: it is over."""
        self._ticks += 1
        if not self._ticks & 15 and monotonic() > self._deadline:
            raise ConstraintTooComplex(f"the constraint takes more than {self._seconds:g} s")

    def stop_clock(self) -> None:
        """There is no deadline any more."""
        self._deadline = inf

    def forget(self) -> None:
        """Drop the memos, and with them every node that nobody else holds."""
        self.edges.clear()
        self.raw_edges.clear()
        self.counted.clear()
        self.mentions.clear()
        self.remaining.clear()
        self.measures.clear()

    def keep(self, key: Hashable, build: Callable[[], Node]) -> Node:
        """What `build` makes, built once: the 256 keys that were asked for last are remembered."""
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = build()
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found

    def known(self, key: Hashable) -> Node | None:
        """The node of a key, if somebody holds it."""
        return self._nodes.get(key)

    def add(self, key: Hashable, node: Node, nullable: bool, min_len: int, max_len: int = UNLIMITED) -> Node:
        """Remember a new node of a key that is not known, and what is to be known of it."""
        node.serial, node.nullable, node.min_len, node.max_len = self._made, nullable, min_len, max_len
        self._made += 1
        if self._made > self._stop:
            raise ConstraintTooComplex(
                f"the constraint needs more than {self.limits.max_work} expression nodes"
            )
        if not self._made & 7:
            self.check_clock()
        self._nodes[key] = node
        return node

    def byte_set(self, mask: int) -> Node:
        """One byte of the set whose bits are `mask`."""
        if not mask & (mask - 1):
            return self.strings([bytes([mask.bit_length() - 1])]) if mask else EMPTY
        found = self._nodes.get(mask)
        if found is not None:
            return found
        node = Bytes()
        node.mask = mask
        return self.add(mask, node, False, 1, 1)

    def byte_range(self, low: int, high: int) -> Node:
        """One byte from `low` to `high`, both included."""
        return self.byte_set((2 << high) - (1 << low))

    def literal(self, data: bytes) -> Node:
        """Exactly `data`."""
        return self.strings((data,))

    def strings(self, data: Iterable[bytes]) -> Node:
        """Any one of a finite set of byte strings; what they all begin with becomes a literal before the set."""
        strings = tuple(sorted(set(data)))
        if not strings:
            return EMPTY
        if strings == (b"",):
            return EPSILON
        if len(strings) > 1 and strings[0][:1] == strings[-1][:1] != b"":  # sorted: then all begin so
            size = next(
                i for i in count() if strings[0][i : i + 1] != strings[-1][i : i + 1] or i == len(strings[0])
            )
            return self._pair(self.literal(strings[0][:size]), self.strings(s[size:] for s in strings))
        found = self._nodes.get(strings)
        if found is not None:
            return found
        node = Strings()
        node.strings = strings
        return self.add(strings, node, not strings[0], min(map(len, strings)), max(map(len, strings)))

    def concat(self, head: Node, tail: Node) -> Node:
        """`head` then `tail`."""
        if head is EMPTY or tail is EMPTY:
            return EMPTY
        if head is EPSILON:
            return tail
        if tail is EPSILON:
            return head
        parts: list[Node] = []
        while isinstance(head, Concat):
            parts.append(head.head)
            head = head.tail
        node = self._pair(head, tail)
        for part in reversed(parts):
            node = self._pair(part, node)
        return node

    def sequence(self, *parts: Node) -> Node:
        """All of `parts`, one after the other."""
        node = EPSILON
        for part in reversed(parts):
            node = self.concat(part, node)
        return node

    def _pair(self, head: Node, tail: Node) -> Node:
        following, rest = (tail.head, tail.tail) if isinstance(tail, Concat) else (tail, EPSILON)
        if head.is_star and following is head:
            return tail
        if (
            isinstance(head, Strings)
            and isinstance(following, Strings)
            and len(head.strings) == len(following.strings) == 1
            and len(head.strings[0]) + len(following.strings[0]) <= _LONGEST_LITERAL
        ):
            head, tail = self.literal(head.strings[0] + following.strings[0]), rest
            if tail is EPSILON:
                return head
        key = (head.serial, tail.serial)
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Concat()
        node.head, node.tail = head, tail
        longest = min(head.max_len + tail.max_len, UNLIMITED)
        return self.add(key, node, head.nullable and tail.nullable, head.min_len + tail.min_len, longest)

    def alt(self, items: Iterable[Node]) -> Node:
        """Any one of `items`. Merges byte sets, finite sets, equal tails and touching counts."""
        todo = list(items)
        if len(todo) == 1:
            return todo[0]
        mask, strings = 0, set[bytes]()
        by_tail: dict[Node, list[Concat]] = {}
        by_item: dict[Node, list[Repeat]] = {}
        kept: dict[Node, None] = {}
        for node in todo:  # grows while it runs: alternations are flattened
            if isinstance(node, Concat):
                by_tail.setdefault(node.tail, []).append(node)
            elif isinstance(node, Alt):
                todo.extend(node.items)
            elif isinstance(node, Bytes):
                mask |= node.mask
            elif isinstance(node, Strings):
                strings.update(node.strings)
            elif isinstance(node, Repeat):
                by_item.setdefault(node.item, []).append(node)
            elif node is EPSILON:
                strings.add(b"")
            elif node is not EMPTY:
                kept[node] = None
        for tail, pairs in by_tail.items():
            first = pairs[0]
            same = all(pair is first for pair in pairs)
            kept[first if same else self.concat(self.alt(p.head for p in pairs), tail)] = None
        for repeats in by_item.values():
            kept.update(dict.fromkeys(self._merge_counts(repeats)))
        if mask:
            mask |= sum(1 << s[0] for s in strings if len(s) == 1 and not mask >> s[0] & 1)
            strings = {s for s in strings if len(s) != 1}
            kept[self.byte_set(mask)] = None
        if strings == {b""} and any(node.nullable for node in kept):
            strings.clear()
        if strings:
            kept[self.strings(strings)] = None
        return self._make_alt(list(kept))

    def _make_alt(self, kept: list[Node]) -> Node:
        if len(kept) > 1:
            kept = self._join_heads(kept)
        if len(kept) < 2:
            return kept[0] if kept else EMPTY
        if len(kept) > self.limits.max_width:
            raise ConstraintTooComplex(
                f"the constraint has more than {self.limits.max_width} alternatives at once"
            )
        kept.sort(key=lambda node: node.serial)
        key = ("|", *(node.serial for node in kept))
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Alt()
        node.items = tuple(kept)
        shortest, longest = min(n.min_len for n in kept), max(n.max_len for n in kept)
        return self.add(key, node, any(n.nullable for n in kept), shortest, longest)

    def _join_heads(self, items: list[Node]) -> list[Node]:
        """Rb | Rc = R(b | c) for rules: what keeps S = aSb | aSc | x from having 2**n alternatives after n letters."""
        by_head: dict[Node, list[Node]] = {}
        for node in items:
            head, tail = (node.head, node.tail) if isinstance(node, Concat) else (node, EPSILON)
            if isinstance(head, Rule | Corner):
                by_head.setdefault(head, []).append(tail)
            else:
                by_head[node] = [EPSILON]
        if len(by_head) == len(items):
            return items
        return list(dict.fromkeys(self.concat(head, self.alt(tails)) for head, tails in by_head.items()))

    def _merge_counts(self, repeats: list[Repeat]) -> list[Node]:
        """x{2,5} | x{4,9} = x{2,9}: what keeps ``.{0,300}foo.{0,300}`` from having 2**300 states."""
        merged: list[tuple[int, int | None]] = []
        for low, high in sorted(((r.low, r.high) for r in repeats), key=lambda r: r[0]):
            if merged and (merged[-1][1] is None or low <= merged[-1][1] + 1):
                last_low, last_high = merged[-1]
                merged[-1] = last_low, None if last_high is None or high is None else max(last_high, high)
            else:
                merged.append((low, high))
        return [self.repeat(repeats[0].item, low, high) for low, high in merged]

    def repeat(self, item: Node, low: int, high: int | None) -> Node:
        """`item`, `low` to `high` times."""
        if high is not None and high < low:
            return EMPTY
        if item is EPSILON or high == 0 or (item is EMPTY and low == 0):
            return EPSILON
        if item is EMPTY:
            return EMPTY
        if item.nullable:
            low = 0
        if (low, high) == (1, 1) or (item.nullable and high == 1):
            return item
        if isinstance(item, Repeat) and item.low == 0 and item.high is None:  # (x*)* = x*
            return item
        key = ("r", item.serial, low, high)
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Repeat()
        node.item, node.low, node.high = item, low, high
        longest = UNLIMITED if high is None else min(high * item.max_len, UNLIMITED)
        return self.add(key, node, low == 0, low * item.min_len, longest)

    def optional(self, item: Node) -> Node:
        """`item` or nothing."""
        return self.alt((item, EPSILON))

    def both(self, positive: Iterable[Node], negative: Iterable[Node]) -> Node:
        """In all of `positive` (at least one) and none of `negative`. May be an unnoticed empty language: use
        `derive.conjoin`.
        """
        pos, neg = dict[Node, None](), dict[Node, None]()
        todo = list(positive)
        for node in todo:
            if isinstance(node, Both):
                todo.extend(node.positive)
                neg.update(dict.fromkeys(node.negative))
            else:
                pos[node] = None
        neg.update(dict.fromkeys(n for n in negative if n is not EMPTY))
        nullable = all(n.nullable for n in pos) and not any(n.nullable for n in neg)
        if EPSILON in pos:
            return EPSILON if nullable else EMPTY
        shortest, longest = max(n.min_len for n in pos), min(n.max_len for n in pos)
        if EMPTY in pos or shortest > longest or not pos.keys().isdisjoint(neg):
            return EMPTY
        if len(pos) == 1 and not neg:
            return next(iter(pos))
        positives = tuple(sorted(pos, key=lambda n: n.serial))
        negatives = tuple(sorted(neg, key=lambda n: n.serial))
        key = ("&", tuple(n.serial for n in positives), tuple(n.serial for n in negatives))
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Both()
        node.positive, node.negative = positives, negatives
        node.live = True if nullable or (not negatives and has_multiple(positives)) else None
        return self.add(key, node, nullable, shortest, longest)

    def multiple(self, divisor: Divisor, value: int = 0, left: int | None = None) -> Node:
        """The rest of a decimal number that is a multiple of `divisor`; see `Multiple`."""
        value %= divisor.modulus
        if left is not None and not divisor.is_live(value, left):
            return EMPTY
        if left == 0:
            return self.repeat(self.literal(b"0"), 0, None)
        key = ("%", divisor, value, left)
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Multiple()
        node.divisor, node.value, node.left = divisor, value, left
        needed = divisor.least_digits(value, left)
        return self.add(key, node, needed == 0, needed)

    def after_multiple(self, node: Multiple) -> list[tuple[int, Node]]:
        """(byte set, what follows) of `node`: a minus sign is passed over."""
        divisor, left = node.divisor, node.left
        fewer = None if left is None else left - 1
        pairs = [(1 << 0x30 + d, self.multiple(divisor, node.value * 10 + d, fewer)) for d in range(10)]
        if left is None:
            pairs.append((1 << 0x2D, node))
            if divisor.places:
                pairs.append((1 << 0x2E, self.multiple(divisor, node.value, divisor.places)))
        return pairs

    def rule(self, name: str, nullable: bool, min_len: int, build: Callable[[], Node]) -> Rule:
        """A new rule, unequal to every other one. `build` gives its body, not `EMPTY`, when it is first needed."""
        node = Rule()
        node.name, node.left, node._body, node._build = name, None, None, build
        self.add(("rule", self._made), node, nullable, min_len)
        return node

    def corner(self, base: Rule, goal: Rule, nullable: bool, min_len: int) -> Node:
        """What may follow `base` up to the end of the `goal` that began with it; for `recursion.corner`."""
        key = ("corner", base.serial, goal.serial)
        found = self._nodes.get(key)
        if found is not None:
            return found
        node = Corner()
        node.base, node.goal = base, goal
        return self.add(key, node, nullable, min_len)
