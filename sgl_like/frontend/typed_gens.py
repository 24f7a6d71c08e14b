"""``gen_int`` and ``gen_string``: a gen of one dtype, with SGLang's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgl_like.frontend.api import gen
from sgl_like.frontend.expr import Gen, Select

__all__ = ["gen_int", "gen_string"]


def gen_int(
    name: str | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    **more: Any,
) -> Gen | Select:
    """A decimal integer: ``s[name]`` is its text, ``s[name].parsed`` the int. Parameters, also `more`, are `gen`'s."""
    return gen(
        name, max_tokens, None, n, stop, stop_token_ids, stop_regex, temperature, top_p, top_k, min_p,
        frequency_penalty, presence_penalty, ignore_eos, return_logprob, logprob_start_len, top_logprobs_num,
        return_text_in_logprobs, dtype=int, **more,
    )  # fmt: skip


def gen_string(
    name: str | None = None,
    max_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    **more: Any,
) -> Gen | Select:
    """A string in double quotes: ``s[name]`` has the quotes, ``s[name].parsed`` is the str. Parameters are `gen`'s."""
    return gen(
        name, max_tokens, None, n, stop, stop_token_ids, stop_regex, temperature, top_p, top_k, min_p,
        frequency_penalty, presence_penalty, ignore_eos, return_logprob, logprob_start_len, top_logprobs_num,
        return_text_in_logprobs, dtype=str, **more,
    )  # fmt: skip
