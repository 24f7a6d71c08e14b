"""The embedding of a prompt: the mean of the hidden states of all its tokens, after the network's last norm.

Every token counts, also those whose keys and values are cached, so such a request computes its whole prompt; a
prefix cache hit would leave tokens out. Rows are added one by one in float64, in the order of the tokens: the sum is
the same to the bit however the prompt is cut into chunks.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor


class Pooling:
    """The sum over the tokens so far, of one request.

    Args:
        length: tokens of the prompt.
    """

    def __init__(self, length: int) -> None:
        self.next_place = 0
        self._length = length
        self._sum: np.ndarray | None = None

    def add(self, hidden: Tensor) -> None:
        """Take in the states of the tokens from `next_place` on, ``[tokens, hidden]``."""
        rows = hidden.double().cpu().numpy()
        total = np.zeros(rows.shape[1]) if self._sum is None else self._sum
        for row in rows:
            total += row
        self._sum = total
        self.next_place += len(rows)

    def mean(self) -> tuple[float, ...]:
        """The embedding, rounded to float32."""
        assert self._sum is not None and self.next_place == self._length, "tokens are missing"
        return tuple((self._sum / self._length).astype(np.float32).tolist())
