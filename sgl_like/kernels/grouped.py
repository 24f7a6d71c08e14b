"""Products of tokens with one of several matrices each: experts of a mixture, adapters of a batch (LoRA).

Contract: ``grouped_linear(x, w, groups) -> out``

    x        [tokens, columns]             float32 or bfloat16
    w        [matrices, rows, columns]     of x's dtype; or int8, fp8 or 4 bits as in `quantized`, stacked
    groups   int [tokens * repeat]         which matrix; place i is for token ``i // repeat``; -1: none, the result is 0
    out      [tokens * repeat, rows]       of x's dtype; sums in float32

``lora_add`` is made of it. There is no version for CPUs, where experts are run one by one in formats of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgl_like.kernels.quantized import Int4Weight, RoundedWeight, round_rows

if TYPE_CHECKING:
    from sgl_like.kernels.triton.grouped import Tiles

Stack = Tensor | RoundedWeight | Int4Weight
"""Matrices of one shape: ``[matrices, rows, columns]``."""


def stack(weights: Sequence[Stack]) -> Stack:
    """Matrices of one format and shape as one."""
    if isinstance(weights[0], RoundedWeight):
        return RoundedWeight.stack([each for each in weights if isinstance(each, RoundedWeight)])
    if isinstance(weights[0], Int4Weight):
        return Int4Weight.stack([each for each in weights if isinstance(each, Int4Weight)])
    return torch.stack([each for each in weights if isinstance(each, Tensor)])


def reference(x: Tensor, w: Stack, groups: Tensor) -> Tensor:
    """Place by place, in float32."""
    repeat = len(groups) // max(len(x), 1)
    out = torch.zeros(len(groups), w.shape[-2] if isinstance(w, Tensor | RoundedWeight) else w.shape[0])
    wide = x.float()
    if isinstance(w, RoundedWeight):
        wide = RoundedWeight(*round_rows(x, w.values.dtype)).dense()
    for i, group in enumerate(groups.tolist()):
        if group >= 0:
            matrix = w[group].float() if isinstance(w, Tensor) else w[group].dense()
            out[i] = matrix @ wide[i // repeat]
    return out.to(x.dtype)


def make_tiles(groups: Tensor, matrices: int) -> Tiles:
    """What several products with the same groups share, and what finding it out once saves."""
    from sgl_like.kernels.triton.grouped import make_tiles as run

    return run(groups, matrices)


def grouped_linear(x: Tensor, w: Stack, groups: Tensor, tiles: Tiles | None = None) -> Tensor:
    """Triton's version; see the module's contract. `tiles` are those of the groups, if they are there already."""
    from sgl_like.kernels.triton.grouped import grouped_linear as run

    return run(x, w, groups, tiles)


def lora_reference(y: Tensor, x: Tensor, a: Tensor, b: Tensor, scales: Tensor, groups: Tensor) -> Tensor:
    """``y + scale * (x A^T) B^T`` with each token's adapter, in float32; `groups` of -1 have none."""
    out = y.float().clone()
    for i, group in enumerate(groups.tolist()):
        if group >= 0:
            out[i] += scales[group].float() * (
                b[group].float() @ (a[group].float() @ x[i].float()).to(x.dtype).float()
            )
    return out.to(y.dtype)
