"""How `select` decides between choices from the log-probabilities of their tokens.

The interface is SGLang's, so that subclasses that users have written for it fit, and so are the three methods.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgl_like.runtime.logprobs import TokenLogprob

__all__ = [
    "ChoicesDecision", "ChoicesSamplingMethod", "TokenLogprob", "greedy_token_selection", "token_length_normalized",
    "unconditional_likelihood_normalized",
]  # fmt: skip

Tokens = Sequence[Sequence[TokenLogprob]]


@dataclass(frozen=True)
class ChoicesDecision:
    """The choice taken, and what it was taken on."""

    decision: str
    meta_info: Mapping[str, Any] = field(default_factory=dict)


class ChoicesSamplingMethod(ABC):
    """Decides between choices; subclass it to decide otherwise."""

    @property
    def requires_unconditional_logprobs(self) -> bool:
        """Whether the choices must also be scored without the prompt."""
        return False

    @abstractmethod
    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[Sequence[TokenLogprob]],
        output_token_logprobs: Sequence[Sequence[TokenLogprob]],
        unconditional_token_logprobs: Sequence[Sequence[TokenLogprob]] | None = None,
    ) -> ChoicesDecision:
        """Decide. All sequences are in the order of `choices`.

        Args:
            choices: the texts.
            normalized_prompt_logprobs: mean token log-probability of each, zeros included.
            input_token_logprobs: the tokens of each, from the first position where any of them leaves the prompt.
            output_token_logprobs: empty; for SGLang's signature.
            unconditional_token_logprobs: if required, the same tokens without the prompt; the first of each has no
                log-probability (``None``).
        """


def _meta(normalized: Sequence[float], inputs: Tokens, outputs: Tokens) -> dict[str, Any]:
    return {
        "normalized_prompt_logprobs": list(normalized),
        "input_token_logprobs": [list(tokens) for tokens in inputs],
        "output_token_logprobs": [list(tokens) for tokens in outputs],
    }


class TokenLengthNormalized(ChoicesSamplingMethod):
    """Takes the choice with the greatest mean token log-probability; the first of equals."""

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Tokens,
        output_token_logprobs: Tokens,
        unconditional_token_logprobs: Tokens | None = None,
    ) -> ChoicesDecision:
        best = max(range(len(choices)), key=lambda i: normalized_prompt_logprobs[i])
        meta = _meta(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs)
        return ChoicesDecision(choices[best], meta)


class GreedyTokenSelection(ChoicesSamplingMethod):
    """Takes the choice with the likeliest first token; of several, the one with the likeliest second, and so on.

    A choice that has no more tokens is compared by the mean of those that it has. Of equals to the end the first.
    """

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Tokens,
        output_token_logprobs: Tokens,
        unconditional_token_logprobs: Tokens | None = None,
    ) -> ChoicesDecision:
        rows = [[float(token[0] or 0.0) for token in tokens] for tokens in input_token_logprobs]
        length = max(map(len, rows))
        matrix = [row + [math.fsum(row) / len(row)] * (length - len(row)) for row in rows]
        left = list(range(len(choices)))
        for column in range(length):
            best = max(matrix[i][column] for i in left)
            left = [i for i in left if matrix[i][column] == best]
        meta = _meta(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs)
        return ChoicesDecision(choices[left[0]], {**meta, "greedy_logprob_matrix": matrix})


class UnconditionalLikelihoodNormalized(ChoicesSamplingMethod):
    """Takes the choice whose tokens the prompt makes likelier by the greatest factor, in the geometric mean.

    So a choice does not win because it is common anywhere. The first token has no unconditional probability, and
    counts as it is. Of equals the first.
    """

    @property
    def requires_unconditional_logprobs(self) -> bool:
        """True: the choices are scored without the prompt, too."""
        return True

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Tokens,
        output_token_logprobs: Tokens,
        unconditional_token_logprobs: Tokens | None = None,
    ) -> ChoicesDecision:
        if unconditional_token_logprobs is None:
            raise ValueError("unconditional_token_logprobs are needed")
        means = [
            math.fsum(
                (given[0] or 0.0) - (alone[0] or 0.0) for given, alone in zip(row, without, strict=True)
            )
            / len(row)
            for row, without in zip(input_token_logprobs, unconditional_token_logprobs, strict=True)
        ]
        best = max(range(len(choices)), key=lambda i: means[i])
        meta = _meta(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs)
        meta["unconditional_token_logprobs"] = [list(tokens) for tokens in unconditional_token_logprobs]
        meta["normalized_unconditional_prompt_logprobs"] = means
        return ChoicesDecision(choices[best], meta)


token_length_normalized = TokenLengthNormalized()
greedy_token_selection = GreedyTokenSelection()
unconditional_likelihood_normalized = UnconditionalLikelihoodNormalized()
