"""Float32 and bfloat16 numbers inside Numba loops.

Numba has no bfloat16; a tensor's bits are passed as ``uint16`` and widened by shifting them into the upper half
of a float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import extending, types
from torch import Tensor

from sgl_like.kernels.jit import REASSOCIATE, compiled

_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic


@_intrinsic
def as_float(typing_context: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), generate


def widen(value: Any) -> Any:
    """In Numba code: float32 as it is, bfloat16 bits (uint16) as float32."""
    raise TypeError("only for use inside compiled code")


@extending.overload(widen)
def _widen(value):  # type: ignore[no-untyped-def]  # Numba compares the names and annotations of both
    if value == types.uint16:
        return lambda value: as_float(np.uint32(value) << np.uint32(16))
    return lambda value: value


@_intrinsic
def as_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@compiled()
def narrow(value: Any) -> Any:
    """In Numba code: the bits of the nearest bfloat16 (ties to even), uint16."""
    bits = as_bits(value)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded if value == value else np.uint32(0x7FC0))


@compiled(fastmath=REASSOCIATE)
def exp(x: Any) -> Any:
    """The exponential of a number <= 0; those below e**-87 count as e**-87. Written out so that loops vectorise."""
    t = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    whole = math.floor(t + np.float32(0.5))
    y = (t - whole) * np.float32(0.6931471805599453)  # |y| <= ln(2) / 2: Taylor's series to the 7th power
    p = np.float32(1 / 5040) * y + np.float32(1 / 720)
    p = p * y + np.float32(1 / 120)
    p = p * y + np.float32(1 / 24)
    p = p * y + np.float32(1 / 6)
    p = p * y + np.float32(1 / 2)
    p = p * y + np.float32(1.0)
    p = p * y + np.float32(1.0)
    power = np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return p * as_float(power)


def numpy_view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A CPU tensor's memory as numpy: float32 as it is, bfloat16 as its bits in uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
