"""Log-probabilities of choices after a prompt, from engines that say those of a prompt's tokens.

The prompt, and the prompt with each choice after it, are sent as prompts. Where the tokens of all of them part is found
from the tokens themselves, as in `operations/select.py`: a choice may change how the end of the prompt is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sgl_like.errors import EngineError
from sgl_like.frontend.backend.remote.codec import Chat, Prompt, Tokens
from sgl_like.frontend.backend.remote.dialect import merged
from sgl_like.frontend.backend.remote.engines.sglang import token_logprobs
from sgl_like.frontend.backend.remote.request import Request
from sgl_like.frontend.backend.remote.wire import usage_of
from sgl_like.runtime.protocol import FinishReason, Output, Usage, new_request_id

__all__ = ["scored"]

MOST_CHOICES, LONGEST_CHOICE = (
    256,
    1024,
)  # that our own server takes in one request, if it is not told otherwise
REACH = 8  # tokens before the end of a prompt that a choice after it may change
Json = Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]
Scored = list[tuple[Any, float | None]]
"""The tokens of a prompt, each with its log-probability."""


async def scored(send: Json, way: str, request: Request, choices: Sequence[str | tuple[int, ...]]) -> Output:
    """The terminal event for `choices` after the prompt of `request`: texts, or ids where the prompt is of ids.

    Raises:
        RemoteError: a request failed.
        EngineError: the server did not say the log-probabilities.
    """
    if way == "sgl_like":
        if len(choices) <= MOST_CHOICES and max(map(_size, choices)) <= LONGEST_CHOICE:
            return await _in_one(send, request, choices)
        way = "sglang"
    ask = _WAYS[way]
    spent: list[Usage] = []
    start = 0
    if (
        way == "sglang"
    ):  # which need not list a long prompt; how a choice changes its cutting does not reach far back
        meta = (await send("POST", "/generate", _generate_body(request, {})))["meta_info"]
        spent.append(_usage_of(meta))
        start = max(0, meta["prompt_tokens"] - REACH)
    prompts = [request.prompt, *(_extended(request.prompt, choice) for choice in choices)]
    found = await asyncio.gather(*(ask(send, replace(request, prompt=each), start) for each in prompts))
    plain, *rows = (row for row, _ in found)
    part = min(_common(plain, row) for row in rows)
    values = [tuple(value for _, value in row[part:] if value is not None) for row in rows]
    if any(not known or len(known) < len(row) - part for known, row in zip(values, rows, strict=True)):
        raise EngineError("the server did not say the log-probabilities of all tokens of the choices")
    spent += [usage for _, usage in found]
    total = Usage(
        sum(each.prompt_tokens for each in spent),
        sum(each.completion_tokens for each in spent),
        sum(each.cached_tokens for each in spent),
    )
    return Output(new_request_id(), finish=FinishReason("length"), usage=total, choice_logprobs=tuple(values))


def _size(choice: str | tuple[int, ...]) -> int:
    return len(choice.encode()) if isinstance(choice, str) else len(choice)


def _extended(prompt: Prompt, choice: str | tuple[int, ...]) -> Prompt:
    if isinstance(prompt, Tokens):
        return Tokens((*prompt.ids, *(choice if isinstance(choice, tuple) else ())))
    assert isinstance(choice, str)
    return prompt.extended(choice)


def _common(a: Scored, b: Scored) -> int:
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x[0] != y[0]), min(len(a), len(b)))


async def _sglang(send: Json, request: Request, start: int) -> tuple[Scored, Usage]:
    asked = {"return_logprob": True, "logprob_start_len": start}
    meta = (await send("POST", "/generate", _generate_body(request, asked)))["meta_info"]
    return [(token, value) for (value, token, _), *_ in token_logprobs(meta, "input")], _usage_of(meta)


def _generate_body(request: Request, fields: Mapping[str, Any]) -> dict[str, Any]:
    body = request.mode.wire.body(request.model, request.prompt, False)
    body["sampling_params"] = {"max_new_tokens": 0, "temperature": 0.0}
    return merged(merged(body, fields), request.extra)


def _usage_of(meta: Mapping[str, Any]) -> Usage:
    return Usage(meta["prompt_tokens"], meta.get("completion_tokens") or 0, meta.get("cached_tokens") or 0)


async def _prompt_logprobs(send: Json, request: Request, start: int) -> tuple[Scored, Usage]:
    """vLLM: ``prompt_logprobs=0`` lists the prompt's own tokens, ``{id: {"logprob"}}`` each, the first as null."""
    wire, prompt = request.mode.wire, request.prompt
    body = {
        **wire.body(request.model, prompt, False),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }
    if isinstance(prompt, Chat) and prompt.begun:
        merged(body, request.mode.prefill or {})
    found = await send("POST", wire.path(False), merged(body, request.extra))
    places = found.get("prompt_logprobs") or found["choices"][0].get("prompt_logprobs") or ()
    rows: Scored = []
    for place in places:
        token, entry = next(iter(place.items())) if place else (None, {})
        rows.append((token, entry.get("logprob")))
    return rows, usage_of(found.get("usage")) or Usage()


async def _tgi(send: Json, request: Request, start: int) -> tuple[Scored, Usage]:
    """TGI: ``decoder_input_details`` lists the prompt's tokens, the first without a log-probability."""
    body = request.mode.wire.body(request.model, request.prompt, False)
    merged(body, {"parameters": {"max_new_tokens": 1, "do_sample": False, "decoder_input_details": True}})
    details = (await send("POST", "/generate", merged(body, request.extra)))["details"]
    rows: Scored = [(each["id"], each.get("logprob")) for each in details.get("prefill") or ()]
    return rows, Usage(len(rows), details.get("generated_tokens") or 0)


async def _in_one(send: Json, request: Request, choices: Sequence[str | tuple[int, ...]]) -> Output:
    """Our own server takes choices, and computes what they share once."""
    body = merged(request.mode.wire.body(request.model, request.prompt, False), {"choices": list(choices)})
    meta = (await send("POST", "/generate", merged(body, request.extra)))["meta_info"]
    rows = tuple(tuple(row) for row in meta["choice_logprobs"])
    return Output(
        new_request_id(), finish=FinishReason("length"), usage=_usage_of(meta), choice_logprobs=rows
    )


_WAYS: Mapping[str, Callable[[Json, Request, int], Awaitable[tuple[Scored, Usage]]]] = {
    "sglang": _sglang,
    "prompt_logprobs": _prompt_logprobs,
    "tgi": _tgi,
}
