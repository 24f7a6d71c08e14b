"""From what a body asks for to requests that the engine takes: every limit is checked here, for all APIs.

    values, under SamplingParams' names  ── make_params ──>  SamplingParams
    prompts (token ids) and SamplingParams  ── make_requests ──>  a GenerateRequest for each output

What is wrong is a 400 that names the field as the client calls it, and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sgl_like.errors import SamplingParamsError
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import MAX_BIAS, SamplingParams
from sgl_like.runtime.server.http.errors import ApiError, bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.limits import Limits

Room = Literal["refuse", "cut", "fill"]
"""What happens to an output's budget that the context has no room for: the request is ``refuse``d, or the budget is
``cut``; ``fill``: the budget is all that is left of the context, whatever `SamplingParams.max_new_tokens` says.
"""

_TOKEN = re.compile(r"[0-9]{1,10}")


def make_params(
    values: Mapping[str, Any], limits: Limits, vocab_size: int, names: Mapping[str, str] | None = None
) -> SamplingParams:
    """Sampling parameters, checked.

    Args:
        values: under `SamplingParams`' names; ``None`` means the default.
        limits: what clients may ask for.
        vocab_size: of the model.
        names: what the client calls them, where that differs.

    Raises:
        ApiError: 400.
    """
    given = {name: value for name, value in values.items() if value is not None}
    called = names or {}
    for name, check in _CHECKS.items():
        if name in given:
            check(called.get(name, name), given[name], limits, vocab_size)
    try:
        return SamplingParams(**given)
    except SamplingParamsError as error:
        raise _refusal(str(error), given, called) from None


def make_requests(
    call: Call,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    room: Room = "refuse",
    logprobs: LogprobParams | None = None,
    stream: bool = False,
    priority: int = 0,
    cache_salt: str | None = None,
    param: str = "prompt",
) -> list[GenerateRequest]:
    """The requests of a call: `params.n` for the first prompt, then as many for the next one.

    Args:
        call: whose limits, tenant and model count.
        prompts: token ids.
        params: of all of them.
        room: see `Room`.
        logprobs: which log-probabilities are wanted.
        stream: whether outputs are wanted before the end.
        priority: larger ones first.
        cache_salt: keeps cached prefixes apart within the tenant.
        param: what the client calls the prompts.

    Raises:
        ApiError: 400.
    """
    limits, info = call.server.config.limits, call.server.info
    check_count(param, len(prompts), params.n, limits)
    most = min(info.context_length, info.kv_slots)
    namespace = call.namespace(cache_salt)
    single = params.n == 1
    requests: list[GenerateRequest] = []
    for at, ids in enumerate(prompts):
        check_ids(param if len(prompts) == 1 else f"{param}[{at}]", ids, info.vocab_size)
        fitted = _fit(params, len(ids), most, room, param)
        for copy in range(params.n):
            requests.append(
                GenerateRequest(
                    ids,
                    fitted if single else fitted.for_copy(copy),
                    logprobs,
                    stream=stream,
                    priority=priority,
                    deadline=limits.run_seconds,
                    namespace=namespace,
                )
            )
    return requests


def check_count(param: str, prompts: int, n: int, limits: Limits) -> None:
    """Whether a call may have so many prompts and outputs; before they are tokenised.

    Raises:
        ApiError: 400.
    """
    if not prompts:
        raise bad_request(f"{param} must not be empty", param=param)
    if prompts > limits.prompts:
        raise bad_request(f"{param}: at most {limits.prompts} in one call, not {prompts}", param=param)
    if prompts * n > limits.sequences:
        raise bad_request(
            f"{prompts} prompts times n={n} are more than the {limits.sequences} outputs of one call",
            param="n",
        )


def check_ids(param: str, ids: Sequence[int], vocab_size: int) -> None:
    """Whether all are tokens of the vocabulary, and there is one at all.

    Raises:
        ApiError: 400.
    """
    if not len(ids):
        raise bad_request(f"{param} must have at least one token", param=param)
    if min(ids) < 0 or max(ids) >= vocab_size:
        at = next(i for i, token in enumerate(ids) if not 0 <= token < vocab_size)
        raise bad_request(
            f"{param}[{at}] is {ids[at]}, outside the vocabulary of {vocab_size} tokens", param=param
        )


def check_top_logprobs(param: str, value: int | None, limits: Limits) -> int:
    """How many log-probabilities for each token.

    Raises:
        ApiError: 400.
    """
    if value is not None and not 0 <= value <= limits.top_logprobs:
        raise bad_request(f"{param} must be between 0 and {limits.top_logprobs}, not {value}", param=param)
    return value or 0


def _fit(params: SamplingParams, prompt: int, most: int, room: Room, param: str) -> SamplingParams:
    wanted, left = params.max_new_tokens, most - prompt
    if left < 0 or (left == 0 and (room == "fill" or wanted > 0)):
        raise _too_long(
            f"This model's maximum context length is {most} tokens. However, your {param} resulted in {prompt} tokens."
            f" Please reduce its length.",
            param,
        )
    if room == "fill":
        if params.min_new_tokens > left:
            raise _too_long(
                f"min_tokens is {params.min_new_tokens}, and the context has room for {left}", param
            )
        return replace(params, max_new_tokens=left)
    if wanted <= left:
        return params
    if room == "cut":
        return replace(params, max_new_tokens=left, min_new_tokens=min(params.min_new_tokens, left))
    raise _too_long(
        f"This model's maximum context length is {most} tokens. However, you requested {prompt + wanted} tokens"
        f" ({prompt} in the {param}, {wanted} in the completion). Please reduce the length of the {param} or"
        " completion.",
        param,
    )


def _too_long(message: str, param: str) -> ApiError:
    return bad_request(message, param=param, code="context_length_exceeded")


def _refusal(message: str, given: Mapping[str, Any], called: Mapping[str, str]) -> ApiError:
    """An error of `SamplingParams` with the names that the client knows."""
    for name, other in called.items():
        message = re.sub(rf"\b{name}\b", other, message)
    known = [called.get(name, name) for name in given]
    first = re.match(r"\w+", message)
    return bad_request(message, param=first[0] if first and first[0] in known else None)


def _check_n(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limits.n:
        raise bad_request(f"{param} must be an integer between 1 and {limits.n}", param=param)


def _strings(param: str, value: Any, most: int, most_bytes: int) -> None:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise bad_request(f"{param} must be a non-empty string or a list of them", param=param)
    if len(items) > most:
        raise bad_request(f"{param}: at most {most} strings, not {len(items)}", param=param)
    for item in items:
        if len(item.encode(errors="surrogatepass")) > most_bytes:
            raise bad_request(f"{param}: at most {most_bytes} bytes in one string", param=param)


def _check_stop(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    _strings(param, value, limits.stop, limits.stop_bytes)


def _check_stop_regex(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    _strings(param, value, limits.stop_regex, limits.stop_regex_bytes)


def _check_bad_words(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    _strings(param, value, limits.bad_words, limits.stop_bytes)


def _check_logit_bias(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    if not isinstance(value, Mapping):
        raise bad_request(f"{param} must be an object from token ids to numbers", param=param)
    if len(value) > limits.logit_bias:
        raise bad_request(f"{param}: at most {limits.logit_bias} tokens, not {len(value)}", param=param)
    for key, bias in value.items():
        token = int(key) if isinstance(key, str) and _TOKEN.fullmatch(key) else key
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
            raise bad_request(f"{param}: {key!r} is not a token id below {vocab_size}", param=param)
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= MAX_BIAS:
            raise bad_request(f"{param}: a bias must be between -100 and 100, not {bias!r}", param=param)


def _check_token_ids(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    items = [value] if isinstance(value, int) else value
    if not isinstance(items, list | tuple):
        raise bad_request(f"{param} must be a list of token ids", param=param)
    if len(items) > limits.logit_bias:
        raise bad_request(f"{param}: at most {limits.logit_bias} tokens, not {len(items)}", param=param)
    for token in items:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
            raise bad_request(f"{param}: {token!r} is not a token id below {vocab_size}", param=param)


def _check_integer(param: str, value: Any, limits: Limits, vocab_size: int) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise bad_request(f"{param} must be an integer of at most 64 bits", param=param)


_CHECKS = {
    "n": _check_n,
    "seed": _check_integer,
    "max_new_tokens": _check_integer,
    "min_new_tokens": _check_integer,
    "top_k": _check_integer,
    "stop": _check_stop,
    "stop_regex": _check_stop_regex,
    "bad_words": _check_bad_words,
    "logit_bias": _check_logit_bias,
    "stop_token_ids": _check_token_ids,
    "allowed_token_ids": _check_token_ids,
}
"""Limits that are the server's own, by parameter; ranges of numbers are `SamplingParams`' matter."""
