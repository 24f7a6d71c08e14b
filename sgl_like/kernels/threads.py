"""Numba kernels on torch's own threads.

A second thread pool beside torch's would fight it for the cores, so compiled tasks are handed to the OpenMP runtime
that torch has loaded. Where there is none, the caller's thread does all the work.

A `TaskKernel` takes numbers of tasks from a shared counter until there are no more, so that a thread that is held up
does not hold up the others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import extending, types

from sgl_like.kernels import tiles
from sgl_like.kernels.jit import mark

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic

SLOTS = 16
"""Numbers that a kernel is given: the next task, the number of tasks, then its own."""
NEXT, COUNT, FIRST = 0, 1, 2


@_intrinsic
def take(typing_context: Any, arguments: Any) -> Any:
    """In a kernel: the number of a task that nobody else has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(_NUMBERS), generate


@_intrinsic
def pointer(typing_context: Any, number: Any) -> Any:
    """In a kernel: an address for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@_intrinsic
def prefetch(typing_context: Any, number: Any) -> Any:
    """In a kernel: have the memory at an address brought near."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tiles.bring(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


_NUMBERS: Any = types.CPointer(types.int64)  # type: ignore[no-untyped-call]


class TaskKernel:
    """Machine code of ``function(pointer to int64[SLOTS])``, made when first used and kept on disk if possible."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    @cached_property
    def address(self) -> int:
        """Where the code is."""
        signature = types.void(_NUMBERS)
        mark(self._function)
        try:
            made: Any = numba.cfunc(signature, cache=True)(self._function)
        except (OSError, RuntimeError):  # nowhere to keep it
            made = numba.cfunc(signature)(self._function)
        self._made = made  # keeps the code alive
        return int(made.address)

    @cached_property
    def alone(self) -> Callable[[Any], None]:
        """Runs it on the caller's thread."""
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)


class Call(NamedTuple):
    """A kernel and what it is given, to be run now (`run_call`) or as one of many (`sequence`).

    Args:
        kernel: what to run.
        tasks: number of tasks.
        numbers: addresses and sizes for the kernel, from place `FIRST` on.
    """

    kernel: TaskKernel
    tasks: int
    numbers: tuple[int, ...]


def run_call(call: Call, threads: int | None = None) -> None:
    """`run_tasks` for a call; nothing if it has no tasks."""
    if call.tasks:
        run_tasks(call.kernel, call.tasks, *call.numbers, threads=threads)


def run_tasks(kernel: TaskKernel, count: int, *numbers: int, threads: int | None = None) -> None:
    """Run tasks ``0 .. count - 1``; returns when all are done.

    Args:
        kernel: what to run.
        count: number of tasks.
        numbers: addresses and sizes for the kernel, from place `FIRST` on.
        threads: at most so many; ``None`` means torch's number.
    """
    arguments = _Arguments(0, count, *numbers)
    parallel = _openmp()
    wanted = min(torch.get_num_threads() if threads is None else threads, count)
    if parallel is None or wanted <= 1:
        kernel.alone(arguments)
    else:
        parallel(kernel.address, arguments, wanted, 0)


_Arguments = ctypes.c_int64 * SLOTS


@cache
def _openmp() -> Any:
    """``GOMP_parallel`` of the runtime that torch uses (LLVM's has it too), or ``None``."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    loaded = {line.split()[-1] for line in maps.splitlines() if "/" in line}
    for path in sorted(p for p in loaded if Path(p).name.startswith(("libgomp", "libiomp", "libomp"))):
        try:
            found = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        found.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        found.restype = None
        return found
    return None


def address(array: np.ndarray[Any, Any]) -> int:
    """Where an array's numbers begin."""
    return int(array.__array_interface__["data"][0])


@lru_cache(maxsize=256)
def float_bits(value: float) -> int:
    """A float32 as a number for a kernel, which reads it with `bits.as_float`."""
    return int(np.float32(value).view(np.uint32))
