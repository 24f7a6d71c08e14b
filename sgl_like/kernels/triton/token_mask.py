"""`kernels.token_mask` in Triton: packed masks stay packed; only banned tokens are written."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import NUMBERS, block_of, row_warps, rows_of


@triton.jit(do_not_specialize=["count"])
def _apply(logits, masks, rows, count, vocab, words, R: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (n < count) & (token < vocab)
    row = tl.load(rows + n, mask=n < count, other=0).to(tl.int64)
    word = tl.load(masks + n * words + token // 32, mask=inside, other=-1)
    banned = inside & (((word >> (token % 32)) & 1) == 0)
    tl.store(logits + row * vocab + token, float("-inf"), mask=banned)


def apply_token_mask(logits: Tensor, masks: Tensor, rows: Tensor) -> None:
    """See `kernels.token_mask`; all three are tensors of the device, ``masks`` and ``rows`` int32."""
    assert logits.is_contiguous() and masks.is_contiguous()
    count, vocab = len(rows), logits.shape[1]
    if count and vocab:
        block = block_of(vocab, most=NUMBERS)
        at_once = rows_of(block)
        _apply[(triton.cdiv(count, at_once), triton.cdiv(vocab, block))](
            logits, masks, rows, count, vocab, masks.shape[1], R=at_once, BLOCK=block,
            num_warps=row_warps(at_once * block),
        )  # fmt: skip
