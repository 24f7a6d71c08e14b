"""The machine: configurations of stacked frames, what tokens do to them, and their masks.

    frame below  <── stack node ──  frame on top          a configuration is a `Stack`; equal ones are one object

Frames, single-frame masks and results belong to a vocabulary, not to one grammar: the inside of a JSON string is the
same state in all of them. Nothing is computed before it is asked for.
"""

from __future__ import annotations

import threading
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.pushdown import walk
from sgl_like.runtime.constrain.pushdown.arrays import Gate
from sgl_like.runtime.constrain.pushdown.expressions import Counted, Scalar, frame_of
from sgl_like.runtime.constrain.pushdown.frame import Frame
from sgl_like.runtime.constrain.pushdown.tables import State, Tables
from sgl_like.runtime.constrain.pushdown.texts import BARRED, Texts
from sgl_like.runtime.constrain.pushdown.unique import Open, follow, nodes_of
from sgl_like.runtime.constrain.pushdown.values import Start
from sgl_like.runtime.constrain.vocabulary import Vocabulary

Words = NDArray[np.uint32]
Ints = NDArray[np.int32]
Ends = tuple[tuple[int, Ints, Ints], ...]
Natives = tuple[tuple[int, int, Ints], ...]

_FEW = 512  # tokens that are listed rather than kept as a mask of their own
_STACK_BYTES = 700


class Inner(NamedTuple):
    """Tokens that stay within one frame and its children, and what comes after its end.

    Args:
        base: uint32 [words], one of the machine's common masks.
        more: int32 [n], tokens besides.
        ends: (result, parts of the trie to go on with [n, 2], trie nodes whose tokens end with the frame [m]).
        natives: (state, stack node on the barrier, parts): where a native frame above this one is to read on.
    """

    base: Words
    more: Ints
    ends: Ends
    natives: Natives


class Stack:
    """A configuration: a frame on a stack of frames. `base` and `more` are its mask as in `Inner`, once known; `items`
    are the open items of arrays with unique items, or None in a grammar that has none.
    """

    __slots__ = ("base", "below", "completion", "forced", "forced_tokens", "items", "more", "state", "steps")

    def __init__(self, state: State, below: int, items: tuple[Open, ...] | None) -> None:
        self.state = state
        self.below = below
        self.items = items
        self.base: Words | None = None
        self.more: Ints | None = None
        self.steps: dict[int, Stack | None] = {}
        self.forced: bytes | None = None
        self.forced_tokens: dict[int, tuple[int, ...]] = {}
        self.completion: bytes | None = None


class Machine:
    """All that has been found out about frames over one vocabulary. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.tables = Tables()
        self.lock = threading.RLock()
        trie = vocabulary.trie
        self._trie = (trie.byte, trie.depth, trie.end, trie.first, trie.tokens)
        self._whole = np.array([[0, len(trie.byte)]], dtype=np.int32)
        self._path = np.zeros((trie.longest + 2, 2), dtype=np.int32)
        self._out = np.zeros(vocabulary.words, dtype=np.uint32)
        self._listed = np.zeros(_FEW, dtype=np.int32)
        self._none = np.zeros(0, dtype=np.int32)
        self._found = np.zeros((len(trie.tokens), 2), dtype=np.int32)
        self._profiles: dict[tuple[int, int], tuple[Ints, Ints, Ints]] = {}
        self._exits = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)
        self._natives = np.zeros((len(trie.byte) + 1, 4), dtype=np.int32)
        self._nothing = np.zeros(vocabulary.words, dtype=np.uint32)
        self._masks: dict[int, list[Words]] = {}
        self._stacks: dict[tuple[int, int, tuple[Open, ...] | None], Stack] = {}
        self._bytes = 0
        self._current: Stack | None = None

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by what was found out."""
        return self.tables.nbytes + self._bytes + len(self._stacks) * _STACK_BYTES

    def start(self, frames: tuple[Frame, ...], unique: bool = False) -> Stack:
        """The stack of these frames, bottom first; `unique`: some array's items may have to be."""
        with self.lock:
            node = walk.BARRIER
            for frame in frames[:-1]:
                node = self.tables.node(self.tables.state(frame).number, node)
            return self._stack(self.tables.state(frames[-1]).number, node, () if unique else None)

    def frames(self, stack: Stack) -> tuple[Frame, ...]:
        """The frames of a stack, bottom first."""
        found, node = [stack.state.frame], stack.below
        with self.lock:
            while node != walk.BARRIER:
                state, node = self.tables.nodes[node].tolist()
                found.append(self.tables.frame(state))
        return tuple(reversed(found))

    def _stack(self, state: int, below: int, items: tuple[Open, ...] | None) -> Stack:
        key = (state, below, items)
        stack = self._stacks.get(key)
        if stack is None:
            known = self.tables.states[state]
            assert known is not None
            stack = self._stacks[key] = Stack(known, below, items)
        return stack

    # -- reading -----------------------------------------------------------------------------------------------

    def accepting(self, stack: Stack) -> bool:
        """Whether the output may end here."""
        with self.lock:
            state, below = stack.state.number, stack.below
            while True:
                frame = self.tables.frame(state)
                if frame.accepting:
                    return True
                result = frame.leaving
                if result is None or below == walk.BARRIER:
                    return False
                after = self.tables.after(below, self.tables.result(result[0]))
                if after is None:
                    return False
                state, below = after

    def step(self, stack: Stack, token: int) -> Stack | None:
        """The stack after a token, or None."""
        try:
            return stack.steps[token]
        except KeyError:
            pass
        data = self.vocabulary.token_bytes[token]
        if data is None:
            return None
        after = stack.steps[token] = self.read(stack, data)
        return after

    def read(self, stack: Stack, data: bytes) -> Stack | None:
        """The stack after some bytes, or None."""
        with self.lock:
            if stack.items is not None:
                return self._read_items(stack, data)
            status, _, state, below = self._read(stack.state.number, stack.below, data)
            return self._stack(state, below, None) if status == walk.ALIVE else None

    def _read_items(self, stack: Stack, data: bytes) -> Stack | None:
        state, below, items = stack.state.number, stack.below, stack.items
        assert items is not None
        for byte in data:
            status, _, state, below = self._read(state, below, bytes([byte]))
            after = follow(self.tables, items, state, below, byte) if status == walk.ALIVE else None
            if after is None:
                return None
            state, below, items = after
        return self._stack(state, below, items)

    def _read(self, state: int, below: int, data: bytes) -> tuple[int, int, int, int]:
        """(status, bytes read, state, stack node) of reading `data`; at an exit the result is in the state's place."""
        tables, progress = self.tables, self.tables.progress
        array = np.frombuffer(bytearray(data), dtype=np.uint8)
        progress[walk.NODE], progress[walk.PART], progress[walk.BELOW] = 0, state, below
        while True:
            status = walk.read(*tables.arrays, array, len(data))
            if status == walk.ALIVE:
                return status, len(data), int(progress[walk.PART]), int(progress[walk.BELOW])
            if status >= walk.NEED_STEP:
                at = progress[walk.NODE : walk.NODE + 1].copy(), int(progress[walk.PART]), int(progress[walk.BELOW])
                tables.provide(status)
                progress[walk.NODE], progress[walk.PART], progress[walk.BELOW] = at[0][0], at[1], at[2]
                continue
            read = int(progress[walk.NODE])
            if status != walk.NATIVE:
                return status, read, int(progress[walk.WHAT]), walk.BARRIER
            below = int(progress[walk.BELOW])
            frame = tables.frame(int(progress[walk.PART]))
            if isinstance(frame, Texts):
                after = self._read_texts(frame, below, data[read:])
            elif isinstance(frame, Gate):
                after = 0, tables.state(frame.value).number, below
            else:
                assert isinstance(frame, Counted)
                after = self._read_counted(frame, below, data[read:])
            if isinstance(after, int):
                return after, read, int(progress[walk.WHAT]), walk.BARRIER
            progress[walk.NODE], progress[walk.PART], progress[walk.BELOW] = read + after[0], after[1], after[2]

    def _read_texts(self, frame: Texts, below: int, data: bytes) -> tuple[int, int, int] | int:
        """(bytes read, state, stack node) after a native frame has read on, or the status of an end."""
        tables = self.tables
        low, high, whole = frame.matching(data)
        if whole:
            read, result = len(frame.texts[low]), frame.results[low]
            if result is BARRED:
                return walk.DEAD_END
            return self._pop(below, tables.result(result), read)
        other = None
        if frame.other is not None:
            status, read, state, _ = self._read(tables.state(frame.other).number, walk.BARRIER, data)
            if status == walk.EXIT_POP:
                return self._pop(below, state, read)
            if status == walk.ALIVE:
                other = tables.frame(state)
        rest = frame.rest(low, high, len(data), other)
        if rest is None:
            return walk.DEAD_END
        return len(data), tables.state(rest).number, below

    def _read_counted(self, frame: Counted, below: int, data: bytes) -> tuple[int, int, int] | int:
        tables, progress = self.tables, self.tables.progress
        array = np.frombuffer(bytearray(data), dtype=np.uint8)
        loop = tables.state(frame.loop).number
        progress[walk.NODE], progress[walk.EXITS], progress[walk.PART] = 0, 0, tables.state(frame.at).number
        while True:
            status = walk.count_read(tables.table, loop, frame.leaves, progress, array, len(data))
            if status != walk.NEED_STEP:
                break
            saved = progress.copy()
            tables.provide(status)
            progress[: walk.NODES] = saved[: walk.NODES]
        items, read = int(progress[walk.EXITS]), int(progress[walk.NODE])
        if status == walk.DEAD_END or items > frame.high:
            return walk.DEAD_END
        if status == walk.ALIVE:
            return read, tables.state(frame.moved(tables.frame(int(progress[walk.PART])), items)).number, below
        if items < frame.low:
            return walk.DEAD_END
        return read, tables.state(frame.after()).number, below

    def _pop(self, below: int, result: int, read: int) -> tuple[int, int, int] | int:
        if below == walk.BARRIER:
            self.tables.progress[walk.WHAT] = result
            return walk.EXIT_POP
        after = self.tables.after(below, result)
        return walk.DEAD_END if after is None else (read, *after)

    # -- masks -------------------------------------------------------------------------------------------------

    def fill(self, stack: Stack, out: NDArray[np.int32]) -> None:
        """Write the mask into `out`, int32 [words]."""
        if stack.more is None:
            with self.lock:
                try:
                    self._find_mask(stack)
                except BaseException:
                    self._out[:] = 0
                    raise
        assert stack.base is not None and stack.more is not None
        out[:] = stack.base.view(np.int32)
        if len(stack.more):
            walk.add_tokens(stack.more, out.view(np.uint32))

    def _find_mask(self, stack: Stack) -> None:
        self._current = stack
        inner = self._inner(stack.state)
        self._follow(inner.ends, inner.natives, stack.below)
        walk.add_tokens(inner.more, self._out)
        if self.accepting(stack):
            self._out |= self.vocabulary.eos_mask
        base, more = self._taken(inner.base)
        if not len(more) and not base.any():
            raise ConstraintError("no token of the vocabulary can continue the output")
        stack.base, stack.more = base, more

    def _follow(self, ends: Ends, natives: Natives, base: int, gated: bool = False) -> None:
        """Add what comes after the ends of a fragment that stands on the stack node `base`; `gated`: a `Gate` was
        passed within the token.
        """
        tables = self.tables
        if base != walk.BARRIER:
            for result, parts, nodes in ends:
                after = tables.after(base, result)
                if after is None:
                    continue
                if len(nodes):
                    walk.add_nodes(nodes, self._trie[3], self._trie[4], self._out)
                if len(parts):
                    self._go_on(*after, parts, gated)
        for state, below, parts in natives:
            self._go_on(state, tables.rebase(below, base), parts, gated)

    def _go_on(self, state: int, below: int, parts: Ints, gated: bool) -> None:
        frame = self.tables.frame(state)
        if isinstance(frame, Gate):
            if gated or self._is_open(below):
                self._try(parts)
                return
            gated, frame = True, frame.value
            state = self.tables.state(frame).number
        if isinstance(frame, Start) and self.vocabulary.trie.depth[parts[0, 0]] == 0:
            inner = self._inner(self.tables.state(frame))  # no value begins with what `parts` lack
            self._out |= inner.base
            walk.add_tokens(inner.more, self._out)
            self._follow(inner.ends, inner.natives, below, gated)
        elif frame.native:
            self._follow(*self._native(frame, parts), below, gated)
        else:
            exits, natives = self._walk(state, below, parts)
            assert not exits
            self._follow((), natives, walk.BARRIER, gated)

    def _is_open(self, node: int) -> bool:
        """Whether an item of the array above a stack node was open before the token."""
        stack = self._current
        assert stack is not None
        depth = len(nodes_of(self.tables, node)) - 1
        return any(each.depth == depth for each in stack.items or ())

    def _try(self, parts: Ints) -> None:
        """Add the tokens of parts of the trie that can be read from the stack whose mask this is."""
        trie, stack = self.vocabulary.trie, self._current
        assert stack is not None
        for first, stop in parts.tolist():
            for token in trie.tokens[trie.first[first] : trie.first[stop]].tolist():
                if self.step(stack, token) is not None:
                    self._out[token >> 5] |= np.uint32(1 << (token & 31))

    def _inner(self, state: State) -> Inner:
        if isinstance(state.frame, Gate):
            state = self.tables.state(state.frame.value)
        found: Inner | None = state.inner
        if found is None:
            core = state.frame.core(self.vocabulary.trie.longest)
            shared = state if core is state.frame else self.tables.state(core)
            found = state.inner = shared.inner = shared.inner or self._find_inner(shared)
        return found

    def _find_inner(self, state: State) -> Inner:
        base = self._nothing
        under = None
        frame = state.frame
        if isinstance(frame, Texts) and frame.other is not None:
            under = self._inner(self.tables.state(frame.other))
        elif isinstance(frame, Scalar) and (wider := frame.wider) is not None:
            under = self._inner(self.tables.state(wider))
            if under.natives or len(under.ends) > 1 or any(len(nodes) < len(parts) for _, parts, nodes in under.ends):
                under = None
        if under is not None:
            base = under.base
        kept, self._out = self._out, np.zeros_like(self._out)
        try:
            if under is not None:
                walk.add_tokens(under.more, self._out)
            if frame.native:
                ends, natives = self._native(frame, self._whole)
            elif under is not None:
                assert isinstance(frame, Scalar)
                base, ends = self._narrowed(frame, under)
                natives = ()
            else:
                ends, natives = self._walk(state.number, walk.BARRIER, self._whole)
            found = Inner(*self._taken(base), ends, natives)
        finally:
            self._out = kept
        self._bytes += sum(parts.nbytes + nodes.nbytes for _, parts, nodes in ends)
        return found

    def _narrowed(self, frame: Scalar, under: Inner) -> tuple[Words, Ends]:
        """The base and the ends of a frame beside those of a wider one: walked only where the two may differ."""
        tables, progress = self.tables, self.tables.progress
        progress[walk.SKIP] = walk.WALK_OPEN if frame.watch else walk.WALK_OPEN_NOTE_DEAD
        try:
            ends, natives = self._walk(tables.state(frame).number, walk.BARRIER, self._whole)
        finally:
            progress[walk.SKIP] = walk.WALK_ALL
        dead = [parts for state, _, parts in natives if state == walk.DEAD]
        gone = dead[0] if dead else np.zeros((0, 2), dtype=np.int32)
        base = self._lessened(under.base, gone)
        result = tables.result((False,) * len(frame.watch))
        found = []
        for _, parts, nodes in under.ends:
            places = np.concatenate([nodes for _, _, nodes in ends] or [self._none])
            places.sort()
            parts, nodes = _outside(parts, parts[:, 0] - 1, gone), _outside(nodes, nodes, gone)
            parts, nodes = _without(parts, parts[:, 0], places + 1), _without(nodes, nodes, places)
            found.append((result, parts, nodes))
        return base, (*ends, *found)

    def _lessened(self, base: Words, gone: Ints) -> Words:
        """The base of the mask that is being found, when it must not have the tokens of some ranges of trie nodes."""
        trie = self.vocabulary.trie
        ranges = [trie.tokens[trie.first[low] : trie.first[high]] for low, high in gone.tolist()]
        tokens = np.concatenate(ranges or [self._none])
        bits = np.uint32(1) << (tokens & 31).astype(np.uint32)
        if not ((base | self._out)[tokens >> 5] & bits).any():
            return base
        self._out |= base
        np.bitwise_and.at(self._out, tokens >> 5, ~bits)
        return self._nothing

    def _native(self, frame: Frame, parts: Ints) -> tuple[Ends, Natives]:
        """Walk parts of the trie with a frame that has no row: ends and natives as in `Inner`."""
        if isinstance(frame, Texts):
            return self._texts(frame, parts)
        assert isinstance(frame, Counted)
        return self._counted(frame, parts)

    def _texts(self, frame: Texts, parts: Ints) -> tuple[Ends, Natives]:
        trie, tables = self.vocabulary.trie, self.tables
        count = walk.descend(
            *frame.joined, trie.byte, trie.end, trie.first, trie.tokens, parts, self._path, self._out, self._exits
        )
        found = self._exits[:count].copy()
        found[:, 2] = [tables.result(frame.results[i]) for i in found[:, 2].tolist()]
        if frame.other is None:
            return _ends(found), ()
        other = tables.state(frame.other)
        if parts is self._whole:
            others, natives = self._inner(other).ends, self._inner(other).natives
        else:
            others, natives = self._walk(other.number, walk.BARRIER, parts)
        assert not natives, "a frame beside texts has no children"
        places = found[:, 3]
        kept = tuple(
            (result, _without(more, more[:, 0], places + 1), _without(nodes, nodes, places))
            for result, more, nodes in others
        )
        return (*_ends(found[found[:, 2] != tables.result(BARRED)]), *kept), ()

    def _counted(self, frame: Counted, parts: Ints) -> tuple[Ends, Natives]:
        tables = self.tables
        if parts is self._whole and frame.at is frame.loop:
            tokens, counts, exits = self._profile(frame)
            walk.add_tokens(tokens[: np.searchsorted(counts, frame.high, side="right")], self._out)
        else:
            found, exits = self._count(frame, parts, frame.high)
            walk.add_tokens(np.ascontiguousarray(found[:, 0]), self._out)
        wanted = exits[(exits[:, 2] >= frame.low) & (exits[:, 2] <= frame.high)]
        if not len(wanted):
            return (), ()
        rest, tail = np.ascontiguousarray(wanted[:, :2]), tables.state(frame.after())
        if tail.frame.native:
            return self._native(tail.frame, rest)
        return self._walk(tail.number, walk.BARRIER, rest)

    def _profile(self, frame: Counted) -> tuple[Ints, Ints, Ints]:
        """Tokens within a loop by the number of items that they need, these numbers, and where items end."""
        key = self.tables.state(frame.loop).number, self.tables.state(frame.after()).number
        known = self._profiles.get(key)
        if known is None:
            found, exits = self._count(frame, self._whole, 1 << 30)
            found = found[np.argsort(found[:, 1], kind="stable")]
            known = np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1]), exits
            self._profiles[key] = known
            self._bytes += sum(each.nbytes for each in known)
        return known

    def _count(self, frame: Counted, parts: Ints, high: int) -> tuple[Ints, Ints]:
        """See `walk.count_walk`: what it found, and where items end."""
        tables, progress = self.tables, self.tables.progress
        loop, at = tables.state(frame.loop).number, tables.state(frame.at).number
        begun = at != loop  # then the item counts as one here, and has been counted before
        progress[walk.PART], progress[walk.NODE], progress[walk.EXITS], progress[walk.NATIVES] = 0, -1, 0, 0
        while True:
            status = walk.count_walk(
                tables.table, loop, frame.leaves, at, 0, high + begun, progress, *self._trie, parts, self._path,
                self._found, self._exits,
            )  # fmt: skip
            if status == walk.ALIVE:
                break
            saved = progress.copy()
            tables.provide(status)
            progress[: walk.NODES] = saved[: walk.NODES]
        found, exits = self._found[: progress[walk.NATIVES]].copy(), self._exits[: progress[walk.EXITS]].copy()
        found[:, 1] -= begun
        exits[:, 2] -= begun
        return found, exits

    def _walk(self, state: int, below: int, parts: Ints) -> tuple[Ends, Natives]:
        """Walk parts of the trie from a configuration, adding to the mask; ends and natives as in `Inner`."""
        tables, progress = self.tables, self.tables.progress
        progress[walk.PART], progress[walk.NODE] = 0, -1
        progress[walk.EXITS], progress[walk.NATIVES] = 0, 0
        while True:
            status = walk.walk(
                *tables.arrays, state, below, *self._trie, parts, self._path, self._out, self._exits, self._natives
            )
            if status == walk.ALIVE:
                break
            saved = progress.copy()
            tables.provide(status)
            progress[: walk.NODES] = saved[: walk.NODES]
        exits = self._exits[: progress[walk.EXITS]]
        natives = self._natives[: progress[walk.NATIVES]]
        return _ends(exits), _grouped(natives)

    def _taken(self, base: Words) -> tuple[Words, Ints]:
        """The mask that was found, beside `base`, as a common mask and tokens besides; clears it."""
        count = int(walk.take_tokens(self._out, base, self._listed))
        if count <= len(self._listed):
            more = self._listed[:count].copy()
            self._bytes += more.nbytes
            return base, more
        mask = self._out | base
        self._out[:] = 0
        same = self._masks.setdefault(zlib.crc32(mask.data), [])
        for known in same:
            if np.array_equal(known, mask):
                return known, self._none
        same.append(mask)
        self._bytes += mask.nbytes
        return mask, self._none


def _ends(exits: Ints) -> Ends:
    found: list[tuple[int, Ints, Ints]] = []
    if not len(exits):
        return ()
    results = exits[:, 2]
    one = bool((results == results[0]).all())
    for result in results[:1].tolist() if one else np.unique(results).tolist():
        mine = exits if one else exits[results == result]
        parts = np.ascontiguousarray(mine[mine[:, 0] < mine[:, 1]][:, :2])
        found.append((result, parts, np.ascontiguousarray(mine[mine[:, 3] >= 0][:, 3])))
    return tuple(found)


def _grouped(natives: Ints) -> Natives:
    groups: dict[tuple[int, int], list[list[int]]] = {}
    for first, stop, state, below in natives.tolist():
        groups.setdefault((state, below), []).append([first, stop])
    return tuple((*key, np.array(parts, dtype=np.int32)) for key, parts in groups.items())


def _outside(array: Ints, places: Ints, ranges: Ints) -> Ints:
    """The rows of an array whose places are in none of some ranges, which rise."""
    if not len(ranges):
        return array
    at = np.searchsorted(ranges[:, 0], places, side="right") - 1
    inside = (at >= 0) & (places < ranges[np.maximum(at, 0), 1])
    return array[~inside] if inside.any() else array


def _without(array: Ints, places: Ints, gone: Ints) -> Ints:
    """The rows of an array whose (rising) places are not among some others."""
    at = np.searchsorted(places, gone)
    hits = at[(at < len(places)) & (places[np.minimum(at, len(places) - 1)] == gone)] if len(places) else at[:0]
    return np.delete(array, hits, axis=0) if len(hits) else array
