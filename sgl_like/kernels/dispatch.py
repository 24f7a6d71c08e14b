"""Which version of an op runs: that for CPUs, or Triton's.

Every op has one name. It asks here with one of its tensors, and only loads Triton if the answer is yes: on GPUs, and
where ``SGL_LIKE_KERNELS=triton`` is set, on CPUs in Triton's interpreter (with ``TRITON_INTERPRET=1``), which is how
whole engines are tested on these kernels without a GPU.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

_INTERPRETED = os.environ.get("SGL_LIKE_KERNELS") == "triton"


def by_triton(x: Tensor | torch.device) -> bool:
    """Whether Triton's version is to be used for a tensor, or for those of a device."""
    device = x.device if isinstance(x, Tensor) else x
    return _INTERPRETED or device.type == "cuda"
