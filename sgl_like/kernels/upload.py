"""Small tensors on their way to a device, through pinned memory, so that nothing waits for the copy.

torch keeps pinned memory until copies from it are done, so it may be dropped at once; it must not be changed.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def host_memory(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the CPU for what goes to a device with ``.to(device, non_blocking=True)``."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def uploaded(array: NDArray[Any], device: torch.device) -> Tensor:
    """The numbers on a device; on the CPU the same memory."""
    given = torch.from_numpy(array)
    if device.type != "cuda":
        return given.to(device)
    return host_memory(given.shape, given.dtype, device).copy_(given).to(device, non_blocking=True)
