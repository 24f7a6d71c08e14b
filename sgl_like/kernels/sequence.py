"""Many kernel calls in one: each begins when all tasks of the one before are done.

A step of a small batch is some two hundred calls of a few microseconds, and what Python and OpenMP need to start them
is a good part of it. A `Sequence` holds them as a table, and each thread goes through the table by itself:

    per call   [kernel, entered, left, ...][arguments of the kernel, `SLOTS` numbers]

A thread counts itself in, takes tasks until there are none, counts itself out, and goes on when as many have left as
have entered: then every task is done, since who enters later finds none. So a thread that the system holds up between
two tasks holds up nobody.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from collections.abc import Sequence as Items
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, extending, types  # type: ignore[attr-defined]
from numpy.typing import NDArray

from sgl_like.kernels.threads import COUNT, FIRST, NEXT, SLOTS, Call, TaskKernel, address, run_tasks

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic

KERNEL, ENTERED, LEFT, ARGUMENTS = 0, 1, 2, 8
WIDTH = ARGUMENTS + SLOTS
PATIENCE = 2000
"""Looks at the counters before another thread is let run: it may be the one that is waited for."""

_LONG = ir.IntType(64)
_NUMBERS: Any = types.CPointer(types.int64)  # type: ignore[no-untyped-call]


@_intrinsic
def _count(typing_context: Any, numbers: Any, place: Any) -> Any:
    """Add 1 to a counter that other threads use."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), ir.Constant(_LONG, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(_NUMBERS, types.int64), generate


@_intrinsic
def _look(typing_context: Any, numbers: Any, place: Any) -> Any:
    """What a counter is now."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "seq_cst", 8)

    return types.int64(_NUMBERS, types.int64), generate


@_intrinsic
def _as_numbers(typing_context: Any, place: Any) -> Any:
    """An address as a pointer to numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _LONG.as_pointer())

    return _NUMBERS(types.int64), generate


@_intrinsic
def _run(typing_context: Any, function: Any, numbers: Any) -> Any:
    """Call the machine code at an address with a kernel's arguments."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_LONG.as_pointer()])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, _NUMBERS), generate


@_intrinsic
def _give_way(typing_context: Any, function: Any) -> Any:
    """Call ``sched_yield``, whose address is given."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _go_through(numbers):  # type: ignore[no-untyped-def]  # Numba reads a bare signature
    args = carray(numbers, 16)
    table, give_way = args[2], args[4]
    for i in range(args[3]):
        row = _as_numbers(table + 8 * WIDTH * i)
        _count(row, ENTERED)
        _run(carray(row, 1)[KERNEL], _as_numbers(table + 8 * (WIDTH * i + ARGUMENTS)))
        _count(row, LEFT)
        looks = 0
        while True:
            left = _look(row, LEFT)  # first: who enters between the two looks has not left
            if left == _look(row, ENTERED):
                break
            looks += 1
            if looks > PATIENCE and give_way:
                _give_way(give_way)


class Sequence:
    """Calls that are made again and again, one after the other; some of their numbers may change in between.

    Args:
        calls: what to run; whoever made them keeps the memory that they name.
    """

    def __init__(self, calls: Items[Call]) -> None:
        self._table = np.zeros((len(calls), WIDTH), dtype=np.int64)
        for row, call in zip(self._table, calls, strict=True):
            row[KERNEL] = call.kernel.address
            row[ARGUMENTS + COUNT] = call.tasks
            row[ARGUMENTS + FIRST : ARGUMENTS + FIRST + len(call.numbers)] = call.numbers
        self._kernels = [call.kernel for call in calls]

    def places(self, kernel: TaskKernel) -> NDArray[np.int64]:
        """Which of the calls are of this kernel."""
        return np.flatnonzero([each is kernel for each in self._kernels])

    def change(self, places: NDArray[np.int64], argument: int, value: int) -> None:
        """Give some calls another number; `argument` counts from `FIRST`, and `COUNT` - `FIRST` is that of tasks."""
        self._table[places, ARGUMENTS + FIRST + argument] = value

    def run(self) -> None:
        """Make the calls; returns when all are done."""
        self._table[:, [ENTERED, LEFT, ARGUMENTS + NEXT]] = 0
        threads = torch.get_num_threads()
        run_tasks(_sequence, threads, address(self._table), len(self._table), _sched_yield())


@cache
def _sched_yield() -> int:
    """The address of the C library's function, 0 where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, TypeError, AttributeError):
        return 0


_sequence = TaskKernel(_go_through)
