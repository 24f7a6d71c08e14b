"""How `select` decides between choices from the log-probabilities of their tokens.

The interface is SGLang's, so that its choice methods and subclasses of users fit; this file holds the default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgl_like.runtime.logprobs import TokenLogprob

__all__ = ["ChoicesDecision", "ChoicesSamplingMethod", "TokenLogprob", "token_length_normalized"]


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
            unconditional_token_logprobs: if required, the tokens of each without the prompt.
        """


class TokenLengthNormalized(ChoicesSamplingMethod):
    """Takes the choice with the greatest mean token log-probability; the first of equals."""

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[Sequence[TokenLogprob]],
        output_token_logprobs: Sequence[Sequence[TokenLogprob]],
        unconditional_token_logprobs: Sequence[Sequence[TokenLogprob]] | None = None,
    ) -> ChoicesDecision:
        best = max(range(len(choices)), key=lambda i: normalized_prompt_logprobs[i])
        meta_info = {
            "normalized_prompt_logprobs": list(normalized_prompt_logprobs),
            "input_token_logprobs": [list(tokens) for tokens in input_token_logprobs],
            "output_token_logprobs": [list(tokens) for tokens in output_token_logprobs],
        }
        return ChoicesDecision(choices[best], meta_info)


token_length_normalized = TokenLengthNormalized()
