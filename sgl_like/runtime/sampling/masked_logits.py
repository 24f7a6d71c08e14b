"""A step's logits together with the masks of its constraints.

On CPUs a mask is written into its row at once. A GPU keeps masks packed, a word for 32 tokens, and the op that samples
reads them as they are: no pass over the logits is for masks alone. Who draws from a row need not know which it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.token_mask import apply_token_mask
from sgl_like.kernels.upload import host_memory
from sgl_like.runtime.sampling.sampler import RowSampler, sample


class MaskedLogits:
    """Rows to draw from.

    Args:
        logits: ``[rows, vocab]`` float32; they may change.
        masks: int32 ``[n, ceil(vocab / 32)]``, of `masks_for`, see `kernels.token_mask`. None: there are none.
        rows: ``[n]``, which row of `logits` each mask is for.
    """

    def __init__(self, logits: Tensor, masks: Tensor | None = None, rows: Sequence[int] = ()) -> None:
        self._logits = logits
        self._masks = masks
        self._on_device: Tensor | None = None
        self._mask_of: NDArray[np.int32] | None = None  # of each row; -1: it has none, or it has been written
        if masks is not None and by_triton(logits):
            self._on_device = masks.to(logits.device, non_blocking=True)
            self._mask_of = np.full(len(logits), -1, dtype=np.int32)
            self._mask_of[rows] = np.arange(len(rows))
        elif masks is not None:
            apply_token_mask(logits, masks.numpy(), np.array(rows, dtype=np.int32))

    def sample(self, samplers: Sequence[RowSampler]) -> list[int]:
        """One token for each row; see `sampler.sample`."""
        return sample(self._logits, samplers, self._on_device, self._mask_of)

    def row(self, row: int) -> Tensor:
        """Logits ``[vocab]`` with the mask written into them. They may be changed."""
        if self._masks is not None and self._mask_of is not None and self._mask_of[row] >= 0:
            mask = self._masks.numpy()[self._mask_of[row]]
            apply_token_mask(self._logits, mask[None], np.array([row], dtype=np.int32))
            self._mask_of[row] = -1
        return self._logits[row]


def masks_for(count: int, logits: Tensor) -> Tensor:
    """Memory for so many masks, to be filled."""
    return host_memory((count, (logits.shape[1] + 31) // 32), torch.int32, logits.device)
