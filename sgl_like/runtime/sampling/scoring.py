"""Log-probabilities of some tokens of each row of logits, and the likeliest ones.

On CPUs from `Distribution`, which reads a row once. On a GPU the logits stay where they are: what is asked for comes
back in one small tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.upload import host_memory
from sgl_like.runtime.sampling.distribution import model_distributions


class Wanted(NamedTuple):
    """Of one row: tokens whose log-probabilities are wanted, and how many of the likeliest."""

    ids: list[int]
    top: int


class Given(NamedTuple):
    """Natural logarithms of the probabilities of the tokens; and of the likeliest, best first, the lower id first of
    equals: ids and logarithms, fewer than wanted if others are impossible.
    """

    logprobs: list[float]
    top_ids: list[int]
    top_logprobs: list[float]


def score(logits: Tensor, wanted: Sequence[Wanted]) -> list[Given]:
    """What is wanted of each row.

    Args:
        logits: ``[rows, vocab]`` float32, contiguous.
        wanted: one for each row.
    """
    if by_triton(logits):
        return _score_on_device(logits, wanted)
    found = []
    for each, (ids, top) in zip(model_distributions(logits), wanted, strict=True):
        likeliest = each.likeliest(top).tolist() if top else []
        logprobs = each.logprobs([*ids, *likeliest])
        found.append(Given(logprobs[: len(ids)], likeliest, logprobs[len(ids) :]))
    return found


def _score_on_device(logits: Tensor, wanted: Sequence[Wanted]) -> list[Given]:
    from sgl_like.kernels.triton.logprobs import gather_logprobs

    width, top = max(len(each.ids) for each in wanted), max(each.top for each in wanted)
    asked = host_memory((len(wanted), width), torch.int64, logits.device)
    for row, each in zip(asked.numpy(), wanted, strict=True):
        row[: len(each.ids)], row[len(each.ids) :] = each.ids, 0
    ids = asked.to(logits.device, non_blocking=True)
    likeliest = likeliest_tokens(logits, min(top, logits.shape[1])) if top else ids[:, :0]
    ids = torch.cat((ids, likeliest), dim=1)
    logprobs = gather_logprobs(logits, ids)
    # here the GPU is waited for, once
    rows = torch.cat((logprobs.double(), likeliest.double()), dim=1).tolist()
    found = []
    for values, each in zip(rows, wanted, strict=True):
        best = [x for x in values[width : ids.shape[1]][: each.top] if x > -math.inf]
        best_ids = [int(token) for token in values[ids.shape[1] :][: len(best)]]
        found.append(Given(values[: len(each.ids)], best_ids, best))
    return found


def likeliest_tokens(logits: Tensor, count: int) -> Tensor:
    """Ids of the greatest logits, int64 ``[rows, count]`` of ``[rows, vocab]``: best first, of equals the lower id.

    The logit and the id are made into one integer, as `torch.topk` leaves open which of equals it takes.
    """
    last = logits.shape[1] - 1
    bits = (logits + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    rising = (bits ^ (bits >> 31 & 0x7FFFFFFF)).long()  # in the order of the numbers
    keys = rising << 32 | last - torch.arange(last + 1, device=logits.device)
    return last - (keys.topk(count, dim=1).values & 0xFFFFFFFF)
