"""`kernels.logprobs` in Triton: one program for each row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of

BLOCK = 4096


@triton.jit
def _gather(logits, ids, out, vocab, count, BLOCK: tl.constexpr, N: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    logits += r * vocab
    top, total = float("-inf"), 0.0
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < vocab, other=float("-inf"))
        best = tl.maximum(top, tl.max(x, axis=0))
        safe = tl.maximum(best, -3e38)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(x - safe), axis=0)
        top = best
    n = tl.arange(0, N)
    token = tl.load(ids + r * count + n, mask=n < count, other=0)
    x = tl.load(logits + token, mask=n < count, other=0.0)
    tl.store(out + r * count + n, x - top - tl.log(total), mask=n < count)


def gather_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """See `kernels.logprobs`."""
    assert logits.is_contiguous() and ids.is_contiguous()
    out = torch.empty(ids.shape, dtype=torch.float32, device=logits.device)
    if out.numel():
        vocab = logits.shape[1]
        _gather[(len(logits),)](
            logits, ids, out, vocab, ids.shape[1], BLOCK=block_of(vocab, least=32, most=BLOCK),
            N=block_of(ids.shape[1]), num_warps=8,
        )  # fmt: skip
    return out
