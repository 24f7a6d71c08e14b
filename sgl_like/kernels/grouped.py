"""Products of tokens with one of several matrices each: experts of a mixture, adapters of a batch (LoRA).

Contract: ``grouped_linear(x, w, groups) -> out``

    x        [tokens, columns]             float32 or bfloat16
    w        [matrices, rows, columns]     of x's dtype
    groups   int [tokens * repeat]         which matrix; place i is for token ``i // repeat``; -1: none, the result is 0
    out      [tokens * repeat, rows]       of x's dtype; sums in float32

``lora_add`` is made of it. There is no version for CPUs, where experts are run one by one in formats of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(x: Tensor, w: Tensor, groups: Tensor) -> Tensor:
    """Place by place, in float32."""
    repeat = len(groups) // max(len(x), 1)
    out = torch.zeros(len(groups), w.shape[1])
    for i, group in enumerate(groups.tolist()):
        if group >= 0:
            out[i] = w[group].float() @ x[i // repeat].float()
    return out.to(x.dtype)


def grouped_linear(x: Tensor, w: Tensor, groups: Tensor) -> Tensor:
    """Triton's version; see the module's contract."""
    from sgl_like.kernels.triton.grouped import grouped_linear as run

    return run(x.contiguous(), w, groups)


def lora_reference(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scales: Tensor, groups: Tensor) -> Tensor:
    """``y + scale * (x A^T) B^T`` with each token's adapter, in float32; `groups` of -1 have none."""
    out = y.float().clone()
    for i, group in enumerate(groups.tolist()):
        if group >= 0:
            out[i] += scales[group].float() * (
                b[group].float() @ (a[group].float() @ x[i].float()).to(x.dtype).float()
            )
    return out.to(y.dtype)
