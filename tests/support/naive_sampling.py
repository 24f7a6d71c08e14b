"""What sampling means, plainly: over the whole vocabulary, with dictionaries, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sgl_like.runtime.sampling_params import SamplingParams


def edited(
    logits: Sequence[float], params: SamplingParams, prompt: list[int], output: list[int]
) -> list[float]:
    """Logits after penalties and bias."""
    out = []
    for token, x in enumerate(logits):
        if token in prompt or token in output:
            x = x / params.repetition_penalty if x > 0 else x * params.repetition_penalty
        x -= params.frequency_penalty * output.count(token)
        x -= params.presence_penalty * (token in output)
        out.append(x + dict(params.logit_bias).get(token, 0.0))
    return out


def completes_bad_word(token: bytes | None, output: bytes, words: Sequence[bytes]) -> bool:
    """Whether the output has a bad word that it did not have before this token."""
    if not token:
        return False
    return any((output + token).count(word) > output.count(word) for word in words) or any(
        word in (output + token)[max(0, len(output) - len(word) + 1) :] for word in words
    )


def kept(logits: Sequence[float], params: SamplingParams, slack: float = 0.0) -> dict[int, float]:
    """Tokens that the filters keep, likeliest first, and their renormalised probabilities; limits moved by `slack`."""
    order = sorted((i for i, x in enumerate(logits) if x > -math.inf), key=lambda i: -logits[i])
    if params.top_k > 0:
        order = order[: params.top_k]
    weights = {i: math.exp((logits[i] - logits[order[0]]) / params.temperature) for i in order}
    total = math.fsum(weights.values())
    found: dict[int, float] = {}
    for i in order:
        past_top_p = params.top_p < 1 and math.fsum(found.values()) / total >= params.top_p + slack
        if found and (past_top_p or weights[i] < params.min_p - slack):
            break
        found[i] = weights[i]
    mass = math.fsum(found.values())
    return {i: weight / mass for i, weight in found.items()}
