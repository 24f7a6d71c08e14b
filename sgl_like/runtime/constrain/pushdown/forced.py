"""Which bytes may come next in a configuration, and those that must."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import numpy as np

from sgl_like.runtime.constrain import derive
from sgl_like.runtime.constrain.expr import ALL_BYTES, EPSILON
from sgl_like.runtime.constrain.pushdown import walk
from sgl_like.runtime.constrain.pushdown.arrays import Gate
from sgl_like.runtime.constrain.pushdown.expressions import Counted
from sgl_like.runtime.constrain.pushdown.frame import Result
from sgl_like.runtime.constrain.pushdown.machine import Machine, Stack
from sgl_like.runtime.constrain.pushdown.tables import Tables
from sgl_like.runtime.constrain.pushdown.texts import BARRED, Texts

__all__ = ["forced_bytes", "next_bytes", "next_sets"]


_ENDS_ITEMS = b'"]},el0123456789 \t\r\n'  # bytes at which, or before which, a JSON value may end


def forced_bytes(machine: Machine, stack: Stack, limit: int) -> bytes:
    """The bytes, `limit` at most, with which every continuation starts; stops where the output may end.

    Raises ConstraintTooComplex if a limit was reached.
    """
    if stack.forced is None:
        with machine.lock:
            stack.forced = _forced(machine, stack, limit)
    return stack.forced[:limit]


def _forced(machine: Machine, stack: Stack, limit: int) -> bytes:
    path = bytearray()
    here: Stack | None = stack
    end = monotonic() + machine.step_seconds
    while here is not None and len(path) < limit and monotonic() < end and not machine.accepting(here):
        frame = here.state.frame
        data = frame.forced() if isinstance(frame, Texts) else b""
        if not data:
            only = 0
            for found in next_sets(machine, here):
                if only or found & (found - 1):
                    return bytes(path)
                only = found
            if not only:
                break
            data = bytes([only.bit_length() - 1])
        here = machine.read(here, data)
        path += data
    return bytes(path[:limit])


def next_bytes(machine: Machine, stack: Stack, wanted: bytes) -> list[int]:
    """Those of the bytes `wanted` that may come next, and one of every set of bytes that has none of them."""
    found: list[int] = []
    with machine.lock:
        for mask in next_sets(machine, stack):
            mine = [byte for byte in wanted if mask >> byte & 1]
            found += mine or [(mask & -mask).bit_length() - 1]
    return found


def next_sets(machine: Machine, stack: Stack) -> Iterator[int]:
    """Disjoint sets of bytes (256-bit masks) that may come next: all, and no others. The caller holds the lock."""
    for mask in _sets(machine.tables, stack.state.number, stack.below, ALL_BYTES):
        barred = 0
        if stack.items is not None:  # the end of an item that must not come again is not allowed
            for byte in _ENDS_ITEMS:
                if mask >> byte & 1 and machine.read(stack, bytes([byte])) is None:
                    barred |= 1 << byte
        if mask & ~barred:
            yield mask & ~barred


def _sets(tables: Tables, state: int, below: int, within: int) -> Iterator[int]:
    """Those of the bytes `within` that a configuration reads."""
    frame = tables.frame(state)
    if frame.native:
        if isinstance(frame, Texts):
            yield from _text_sets(tables, frame, below, within)
        elif isinstance(frame, Gate):
            yield from _sets(tables, tables.state(frame.value).number, below, within)
        else:
            assert isinstance(frame, Counted)
            for mask, target in derive.edges(frame.loop.pool, frame.node):
                if mask & within and (target is not EPSILON or _may_end(tables, below, ())):
                    yield mask & within
        return
    for code, mask in _row(tables, state, within):
        kind, number = code & (1 << walk.KIND_BITS) - 1, code >> walk.KIND_BITS
        if kind in (walk.GO, walk.GO_ONE):
            yield mask
        elif kind == walk.POP:
            if below != walk.BARRIER and tables.after(below, number) is not None:
                yield mask
        elif kind == walk.LEAVE:
            after = None if below == walk.BARRIER else tables.after(below, number)
            if after is not None:
                yield from _sets(tables, *after, mask)
        else:
            assert kind == walk.BECOME
            length, *states = tables.chains[number].tolist()
            node = below
            for each in states[: length - 1]:
                node = tables.node(each, node)
            yield from _sets(tables, states[length - 1], node, mask)


def _row(tables: Tables, state: int, within: int) -> Iterator[tuple[int, int]]:
    """What a state does: (code, set of bytes), for those of the bytes `within` that it allows."""
    rest = within
    while rest:
        byte = (rest & -rest).bit_length() - 1
        row = tables.row(state, byte)
        code = row.item(byte)
        same = np.packbits(row == code, bitorder="little")
        mask = int.from_bytes(same.tobytes(), "little")
        if code != walk.DEAD:
            yield code, mask & rest
        rest &= ~mask


def _text_sets(tables: Tables, frame: Texts, below: int, within: int) -> Iterator[int]:
    begins = barred = 0
    for text, result in zip(frame.texts, frame.results, strict=True):
        one = 1 << text[0]
        if len(text) == 1 and (result is BARRED or not _may_end(tables, below, result)):
            barred |= one
        elif result is not BARRED:
            begins |= one
    rest = begins & within & ~barred
    while rest:
        yield rest & -rest
        rest &= rest - 1
    if frame.other is not None:
        yield from _sets(tables, tables.state(frame.other).number, below, within & ~begins & ~barred)


def _may_end(tables: Tables, below: int, result: Result) -> bool:
    """Whether the frame above a stack node may end with a result."""
    return below != walk.BARRIER and tables.after(below, tables.result(result)) is not None
