"""`kernels.logprobs` in Triton: a pass over the logits by all of the GPU, then one small program for each row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgl_like.kernels.triton.base import block_of
from sgl_like.kernels.triton.vocabulary import Masks, group_stats


@triton.jit
def _gather(logits, ids, tops, sums, out, vocab, groups, count, GROUPS: tl.constexpr, N: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    g = tl.arange(0, GROUPS)
    best = tl.load(tops + r * groups + g, mask=g < groups, other=float("-inf"))
    each = tl.load(sums + r * groups + g, mask=g < groups, other=0.0)
    top = tl.max(best, axis=0)
    total = tl.sum(each * tl.exp(best - top), axis=0)
    n = tl.arange(0, N)
    token = tl.load(ids + r * count + n, mask=n < count, other=0)
    x = tl.load(logits + r * vocab + token, mask=n < count, other=0.0)
    tl.store(out + r * count + n, x - top - tl.log(total), mask=n < count)


def gather_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """See `kernels.logprobs`."""
    assert ids.is_contiguous()
    out = torch.empty(ids.shape, dtype=torch.float32, device=logits.device)
    if out.numel():
        tops, sums = group_stats(logits, None, Masks.given(len(logits), None, None, logits.device))
        groups = tops.shape[1]
        _gather[(len(logits),)](
            logits, ids, tops, sums, out, logits.shape[1], groups, ids.shape[1],
            GROUPS=block_of(groups), N=block_of(ids.shape[1]),
        )  # fmt: skip
    return out
