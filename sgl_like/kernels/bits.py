"""Reading float32 and bfloat16 numbers inside Numba loops.

Numba has no bfloat16; a tensor's bits are passed as ``uint16`` and widened by shifting them into the upper half
of a float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import extending, types
from torch import Tensor

from sgl_like.kernels.jit import compiled

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


def numpy_view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A CPU tensor's memory as numpy: float32 as it is, bfloat16 as its bits in uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
