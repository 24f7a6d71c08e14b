"""Natural logarithms of the probabilities of some tokens.

Contract: ``gather_logprobs(logits, ids) -> [rows, n]`` float32 with ``logits: [rows, vocab]`` float32 and
``ids: [rows, n]`` int64: of the softmax of each row, without making it.
"""

from __future__ import annotations

from torch import Tensor


def reference(logits: Tensor, ids: Tensor) -> Tensor:
    """With a whole log-softmax, in float64."""
    return logits.double().log_softmax(dim=-1).gather(1, ids).float()
