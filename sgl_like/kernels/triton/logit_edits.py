"""`kernels.logit_edits` in Triton: changes of different logits, all at once."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.upload import uploaded

BLOCK = 256


@triton.jit
def _edit(logits, places, scales, shifts, count, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    place = tl.load(places + i, mask=inside, other=0)
    x = tl.load(logits + place, mask=inside, other=0.0)
    scale = tl.load(scales + i, mask=inside, other=1.0)
    x = tl.where(x > 0, x / scale, x * scale) + tl.load(shifts + i, mask=inside, other=0.0)
    tl.store(logits + place, x, mask=inside)


def edit_logits(
    logits: Tensor, places: NDArray[np.int64], scales: NDArray[np.float32], shifts: NDArray[np.float32]
) -> None:
    """Change the logits at `places` of the flattened ``[rows, vocab]``, each of which comes once."""
    assert logits.is_contiguous()
    if len(places):
        given = (uploaded(each, logits.device) for each in (places, scales, shifts))
        _edit[(triton.cdiv(len(places), BLOCK),)](logits, *given, len(places), BLOCK=BLOCK)
