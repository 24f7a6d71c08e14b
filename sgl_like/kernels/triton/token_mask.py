"""`kernels.token_mask` in Triton: packed masks stay packed; only banned tokens are written."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def _apply(logits, masks, rows, vocab, words, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < vocab
    row = tl.load(rows + n).to(tl.int64)
    word = tl.load(masks + n * words + at // 32, mask=inside, other=-1)
    banned = inside & (((word >> (at % 32)) & 1) == 0)
    tl.store(logits + row * vocab + at, float("-inf"), mask=banned)


def apply_token_mask(logits: Tensor, masks: Tensor, rows: Tensor) -> None:
    """See `kernels.token_mask`; all three are tensors of the device, ``masks`` and ``rows`` int32."""
    assert logits.is_contiguous() and masks.is_contiguous()
    if len(rows) and logits.shape[1]:
        grid = (len(rows), triton.cdiv(logits.shape[1], BLOCK))
        _apply[grid](logits, masks, rows, logits.shape[1], masks.shape[1], BLOCK=BLOCK)
