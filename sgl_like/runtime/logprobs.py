"""Log-probabilities of tokens: which are asked for, and how they are handed over, in SGLang's forms.

They are natural logarithms of the model's own distribution, before temperature, penalties, bias and constraints; so
those of an output are what scoring the same tokens as a prompt gives, whether a token was sampled, forced by a
constraint, or part of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sgl_like.errors import SamplingParamsError

MAX_TOP_LOGPROBS = 20
MAX_TOKEN_IDS = 1024
LOGPROB_OPTIONS = frozenset(
    {
        "return_logprob", "logprob_start_len", "top_logprobs_num", "token_ids_logprob",
        "return_text_in_logprobs",
    }
)  # fmt: skip
"""SGLang's names of what `LogprobParams.from_options` reads."""

TokenLogprob = tuple[float | None, int, str | None]
"""Log-probability (``None``: nothing to predict it from), token id, and the token's text where asked for."""


NO_TOKEN: TokenLogprob = (None, -1, None)
"""Stands for the token at the place after a prompt to which no output is made."""


class PlaceLogprobs(NamedTuple):
    """What the model gave for one place of a sequence: the token there, the likeliest ones, those asked about."""

    token: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()
    asked: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class LogprobParams:
    """Which log-probabilities a request is to report. Those of its output tokens always are.

    Args:
        start: first place of the prompt whose token is reported; ``None``: none of the prompt.
        top: number of likeliest tokens to report for each place.
        token_ids: tokens to report for each place.
        text: report the text of tokens, too.
        each: tokens to report, besides `token_ids`, for the first scored place of the prompt, the next one, and so on.
        skip: places of the output that are not reported. For requests that go on where an earlier one broke off, and
            ask for nothing of the prompt.
    """

    start: int | None = None
    top: int = 0
    token_ids: tuple[int, ...] = ()
    text: bool = False
    each: tuple[tuple[int, ...], ...] = ()
    skip: int = 0

    @classmethod
    def from_options(
        cls,
        return_logprob: bool | None = None,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        token_ids_logprob: Sequence[int] | None = None,
        return_text_in_logprobs: bool | None = None,
    ) -> LogprobParams | None:
        """From SGLang's arguments; ``None`` where no log-probabilities are wanted.

        Raises:
            SamplingParamsError: a value is of the wrong type or out of range; the message names it.
        """
        for name, flag in (
            ("return_logprob", return_logprob),
            ("return_text_in_logprobs", return_text_in_logprobs),
        ):
            if flag is not None and not isinstance(flag, bool):
                raise SamplingParamsError(f"{name} must be True or False, not {flag!r}")
        start = _integer("logprob_start_len", logprob_start_len, -1, None, default=-1)
        top = _integer("top_logprobs_num", top_logprobs_num, 0, MAX_TOP_LOGPROBS, default=0)
        if isinstance(token_ids_logprob, str) or not isinstance(token_ids_logprob, Sequence | None):
            raise SamplingParamsError(
                f"token_ids_logprob must be a list of token ids, not {token_ids_logprob!r}"
            )
        ids = tuple(token_ids_logprob or ())
        for token in ids:
            _integer("token_ids_logprob entry", token, 0, None)
        if len(ids) > MAX_TOKEN_IDS:
            raise SamplingParamsError(f"token_ids_logprob: at most {MAX_TOKEN_IDS} tokens, not {len(ids)}")
        if not return_logprob:
            return None
        return cls(None if start < 0 else start, top, ids, bool(return_text_in_logprobs))


def logprob_meta(
    params: LogprobParams, prompt: Iterable[PlaceLogprobs], output: Iterable[PlaceLogprobs]
) -> dict[str, Any]:
    """The entries of SGLang's ``meta_info``: lists of ``(logprob, token id, text)``."""
    meta: dict[str, Any] = {}
    for name, places in (("input", list(prompt)), ("output", list(output))):
        meta[f"{name}_token_logprobs"] = [place.token for place in places if place.token != NO_TOKEN]
        if name == "output":
            meta["output_token_logprobs_length"] = len(meta["output_token_logprobs"])
        if params.top:
            meta[f"{name}_top_logprobs"] = [_listed(place, place.top) for place in places]
        if params.token_ids:
            meta[f"{name}_token_ids_logprobs"] = [_listed(place, place.asked) for place in places]
    return meta


def _listed(place: PlaceLogprobs, found: tuple[TokenLogprob, ...]) -> list[TokenLogprob] | None:
    return list(found) if place.token[0] is not None or place.token == NO_TOKEN else None


def _integer(name: str, value: Any, low: int, high: int | None, default: int | None = None) -> int:
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise SamplingParamsError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise SamplingParamsError(f"{name} must be {limits}, not {value}")
    return value
