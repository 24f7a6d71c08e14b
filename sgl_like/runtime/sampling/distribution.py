"""One row's next-token distribution: its likeliest tokens, what the filters keep, draws, and log-probabilities.

The row is read once, by `kernels.vocabulary.block_stats`. What is exact about the tail (the total, top-p's mass) comes
from the sums of the blocks; tokens themselves are only looked at in blocks that have a likely one:

    top-k    the k-th greatest block maximum bounds the k-th token from below: k blocks have one at least as great
    min-p    a bound by definition
    top-p    the tokens above the 32nd greatest block maximum; if they do not reach the mass, those above a bound under
             which so little mass is left that they must; only the ones that count are sorted
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgl_like.kernels.vocabulary import BLOCK, above, block_stats
from sgl_like.runtime.sampling_params import SamplingParams

FIRST_BLOCKS = 32
"""Blocks whose tokens are looked at first for top-p."""
DEPTHS = 16
"""Steps per factor e in which the weights of the tokens are counted if those are not enough."""

Floats = NDArray[np.float32]


class Kept(NamedTuple):
    """Tokens that the filters keep, likeliest first (the lower id first of equals), and their probabilities before
    renormalisation: float64 ``[kept]``, int64 ``[kept]``.
    """

    probabilities: NDArray[np.float64]
    ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of a row of logits at a temperature.

    Args:
        row: float32 ``[vocab]``; -inf for banned tokens, at least one finite entry.
        tops: greatest logit of each block.
        sums: of each block, sum of ``exp((logit - top) / temperature)``.
        temperature: greater than 0.
    """

    row: Floats
    tops: Floats
    sums: Floats
    temperature: float

    @property
    def top(self) -> float:
        """The greatest logit."""
        return float(self.tops.max())

    @property
    def log_total(self) -> float:
        """Logarithm of the sum of ``exp(logit / temperature)``."""
        return self.top / self.temperature + math.log(math.fsum(self._masses().tolist()))

    def likeliest(self, count: int) -> NDArray[np.int64]:
        """The `count` likeliest tokens, best first, the lower id first of equals; fewer if others are banned."""
        return self._best_first(above(self.row, self.tops, self._bound(count)))[:count]

    def kept(self, params: SamplingParams) -> Kept:
        """What top-k, top-p and min-p keep. Top-p looks at the distribution that top-k has left."""
        limit = params.top_k if params.top_k > 0 else len(self.row)
        least = math.log(params.min_p) * self.temperature + self.top if params.min_p > 0 else -math.inf
        if params.top_k > 0:
            ids = self.likeliest(limit)
            weights = self._weights(ids)
            total = math.fsum(weights.tolist())
        elif params.top_p < 1:
            total = math.fsum(self._masses().tolist())
            ids, weights = self._covering(params.top_p, total, least)
        else:
            total = math.fsum(self._masses().tolist())
            ids = self._best_first(above(self.row, self.tops, _slightly_less(least)))
            weights = self._weights(ids)
        probabilities = weights / total
        keep = weights >= params.min_p
        if params.top_p < 1:
            keep &= np.cumsum(probabilities) - probabilities < params.top_p
        keep[0] = True
        keep &= weights > 0
        return Kept(probabilities[keep], ids[keep])

    def draw(self, params: SamplingParams, uniform: float) -> int:
        """The token where the cumulative probability of what the filters keep passes `uniform`, in [0, 1)."""
        if params.top_k < 0 and params.top_p >= 1 and params.min_p == 0:
            return self._draw_any(uniform)
        kept = self.kept(params)
        return int(kept.ids[_place(kept.probabilities, uniform)])

    def logprobs(self, tokens: Sequence[int] | NDArray[np.int64]) -> list[float]:
        """Natural logarithms of the probabilities of some tokens."""
        values = self.row[np.asarray(tokens, dtype=np.int64)].astype(np.float64) / self.temperature
        return [float(each) for each in values - self.log_total]

    def _draw_any(self, uniform: float) -> int:
        """A draw without filters: first the block, then the token in it, both in the order of ids."""
        masses = self._masses()
        block = _place(masses, uniform)
        before = float(masses[:block].sum())
        inside = (uniform * float(masses.sum()) - before) / float(masses[block])
        ids = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.row)))
        return int(ids[_place(self._weights(ids), min(max(inside, 0.0), 1.0))])

    def _covering(
        self, top_p: float, total: float, least: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Tokens, likeliest first, that reach the share `top_p` of the total weight or go down to the logit `least`;
        and their weights.
        """
        mass = top_p * total * (1 + 1e-6)
        bound = self._bound(FIRST_BLOCKS)
        ids = above(self.row, self.tops, bound)
        weights = self._weights(ids)
        if bound > _slightly_less(least) and weights.sum() < mass:
            # Of all tokens below this bound together, the weight is at most that of what top-p leaves out.
            rest = max(total - mass, 0.0) / len(self.row)
            bound = self.top + self.temperature * math.log(rest) if rest > 0 else -math.inf
            ids = above(self.row, self.tops, _slightly_less(max(bound, least)))
            weights = self._weights(ids)
            depth = np.minimum(-np.log(np.maximum(weights, 1e-300)) * DEPTHS, 1e6).astype(np.int64)
            cumulative = np.cumsum(np.bincount(depth, weights))
            enough = int(np.searchsorted(cumulative, mass))
            ids = ids[depth <= enough]
        ids = self._best_first(ids)
        return ids, self._weights(ids)

    def _bound(self, count: int) -> float:
        """A logit which at least `count` tokens reach (or all, if there are not so many blocks)."""
        if count >= len(self.tops):
            return -math.inf
        return float(np.partition(self.tops, len(self.tops) - count)[len(self.tops) - count])

    def _masses(self) -> NDArray[np.float64]:
        """Of each block, sum of ``exp((logit - top of the row) / temperature)``."""
        shift = (self.tops.astype(np.float64) - self.top) / self.temperature
        return np.exp(shift) * self.sums

    def _weights(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """``exp((logit - top of the row) / temperature)`` of some tokens: the likeliest has 1."""
        weights: NDArray[np.float64] = np.exp(
            (self.row[ids].astype(np.float64) - self.top) / self.temperature
        )
        return weights

    def _best_first(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that are not banned, the greatest logit first, the lower id first of equals.

        Sorts integers made of both, which is several times as fast as a stable sort of the logits.
        """
        ids = ids[self.row[ids] > -np.inf]
        bits = (self.row[ids] + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
        rising = bits ^ (bits >> 31 & np.int32(0x7FFFFFFF))  # in the order of the numbers
        keys = np.sort((~rising).astype(np.int64) << 32 | ids)
        return keys & 0xFFFFFFFF


def distributions(logits: Floats, temperatures: Sequence[float]) -> list[Distribution]:
    """Of each row of ``[rows, vocab]`` logits; reads them once."""
    inverse = np.clip(1 / np.asarray(temperatures, dtype=np.float64), 1e-30, 1e30).astype(np.float32)
    tops, sums = block_stats(logits, inverse)
    return [Distribution(*each) for each in zip(logits, tops, sums, temperatures, strict=True)]


def model_distributions(logits: Tensor) -> list[Distribution]:
    """Of each row of logits as they come from the model: `logits` may change afterwards only if it is copied first."""
    return distributions(logits.cpu().numpy(), [1.0] * len(logits))


def _slightly_less(bound: float) -> float:
    """So that what rounding to float32 does to a bound loses no token; the exact test follows."""
    return bound - 1e-5 * abs(bound) - 1e-5


def _place(weights: NDArray[np.float64], uniform: float) -> int:
    """The first place where the cumulative weight exceeds the share `uniform` of the whole; it has a weight."""
    cumulative = np.cumsum(weights)
    at = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    if at == len(weights):  # uniform was 1, or rounding
        at = int(np.flatnonzero(weights)[-1])
    return at
