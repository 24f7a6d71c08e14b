"""Packed token masks applied to logits.

Contract: ``apply_token_mask(logits, masks, rows)``: in ``logits: [rows, vocab]`` (float32) every token whose bit is
0 becomes -inf. ``masks: int32[n, ceil(vocab / 32)]``, bit ``t % 32`` of word ``t // 32`` is token ``t``;
``rows: int32[n]`` says which row of `logits` each mask is for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.jit import compiled


def reference(logits: Tensor, masks: NDArray[np.int32], rows: NDArray[np.int32]) -> None:
    """Unpack the bits and fill."""
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, : logits.shape[1]]
    banned = torch.from_numpy(bits == 0)
    for mask, row in zip(banned, rows, strict=True):
        logits[int(row)].masked_fill_(mask, -torch.inf)


def apply_token_mask(logits: Tensor, masks: NDArray[np.int32], rows: NDArray[np.int32]) -> None:
    """See the module's contract."""
    if by_triton(logits):
        from sgl_like.kernels.triton.token_mask import apply_token_mask as run

        run(logits, torch.from_numpy(masks).to(logits.device), torch.from_numpy(rows).to(logits.device))
        return
    _apply(logits.numpy(), masks, rows)


@compiled()
def _apply(logits: Any, masks: Any, rows: Any) -> None:
    vocab = logits.shape[1]
    for n in range(len(rows)):
        row = logits[rows[n]]
        for word in range(masks.shape[1]):
            bits = np.uint32(masks[n, word])
            first = word * 32
            if bits == np.uint32(0xFFFFFFFF):
                continue
            for bit in range(min(32, vocab - first)):
                if not (bits >> np.uint32(bit)) & np.uint32(1):
                    row[first + bit] = -np.inf
