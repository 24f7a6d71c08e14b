"""From the body of ``/generate`` to requests, one for each output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import msgspec

from sgl_like.errors import RequestError
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest, new_request_id
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.constraints import Constraint, constraint_params
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.native.bodies import REFUSED, EncodeBody, GenerateBody, SamplingFields
from sgl_like.runtime.server.sampling import (
    Room,
    check_count,
    check_ids,
    check_top_logprobs,
    make_params,
    make_requests,
)

_IGNORED = (
    "spaces_between_special_tokens",
    "custom_params",
    "stream_interval",
    "beam_width",
    "sampling_seed",
)
_HELD: tuple[Literal["regex", "json_schema", "ebnf", "structural_tag"], ...] = (
    "regex",
    "json_schema",
    "ebnf",
    "structural_tag",
)
LONG_TEXT = 32 * 1024
"""Characters from which on a text is not tokenised on the event loop."""


class Sequences(NamedTuple):
    """What a body asks for: requests, the names their clients know them by, and whether the answer is a list."""

    requests: list[GenerateRequest]
    names: list[str]
    many: bool


async def read_requests(call: Call, body: GenerateBody) -> Sequences:
    """The requests of a body: for each prompt as many as its ``n``, one after the other.

    Raises:
        ApiError: 400: something in it is wrong, over a limit, or cannot be had here.
    """
    for name, reason in REFUSED.items():
        if getattr(body, name):
            raise bad_request(f"{name} is not supported: {reason}", param=name)
    field, prompts, many = prompts_of(body)
    limits = call.server.config.limits
    rows = _column("sampling_params", body.sampling_params, len(prompts), many)
    params = [_params(call, each or SamplingFields()) for each in rows]
    copies = {each.n for each, _ in params}
    if len(copies) > 1:
        raise bad_request("sampling_params: n must be the same for all prompts of a call", param="n")
    check_count(field, len(prompts), max(copies, default=1), limits)
    ids = [await _encode(call, prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    requests: list[GenerateRequest] = []
    logprobs, resumed = _logprobs(body, ids, many, call), _resumed(body, len(ids), many)
    for each, (sampling, room), wanted, known in zip(ids, params, logprobs, resumed, strict=True):
        made = make_requests(
            call, [each], sampling, room=room, logprobs=wanted, stream=body.stream,
            priority=body.priority or 0, cache_salt=_salt(body), param=field,
        )  # fmt: skip
        if known:
            made = [_going_on(call, made, known, body.resume_logprobs)]
        requests += made
    names = _names(body, len(prompts), many, max(copies))
    if body.deadline is not None:
        requests = [
            replace(each, deadline=min(body.deadline, each.deadline or body.deadline)) for each in requests
        ]
    requests = [replace(each, rid=engine_rid(call, name)) for each, name in zip(requests, names, strict=True)]
    return Sequences(requests, names, many or copies != {1})


async def read_choices(call: Call, body: GenerateBody) -> Sequences:
    """The request that scores a body's choices.

    Raises:
        ApiError: 400.
    """
    choices, limits = body.choices, call.server.config.limits
    assert isinstance(choices, list)
    if not choices or len(choices) > limits.choices:
        raise bad_request(f"choices must be a list of 1 to {limits.choices}", param="choices")
    if body.stream or body.return_logprob or body.resume_ids:
        raise bad_request(
            "choices are scored: there is no stream, no return_logprob and no resume_ids", param="choices"
        )
    plain = msgspec.structs.replace(
        body, sampling_params=SamplingFields(max_new_tokens=0), choices=msgspec.UNSET
    )
    sequences = await read_requests(call, plain)
    if len(sequences.requests) != 1:
        raise bad_request("choices follow a single prompt", param="choices")
    (request,) = sequences.requests
    texts = [choice for choice in choices if isinstance(choice, str)]
    lists = [choice for choice in choices if not isinstance(choice, str)]
    if texts and lists:
        raise bad_request("choices must be all texts or all token ids", param="choices")
    for at, text in enumerate(texts):
        if not 0 < len(text.encode()) <= limits.choice_bytes:
            raise bad_request(f"choices[{at}] must have 1 to {limits.choice_bytes} bytes", param="choices")
    for at, tokens in enumerate(lists):
        check_ids(f"choices[{at}]", tokens, call.server.info.vocab_size)
        if len(tokens) > limits.choice_bytes:
            raise bad_request(f"choices[{at}]: at most {limits.choice_bytes} tokens", param="choices")
    if not texts:
        scored = replace(request, choices=lists)
    elif isinstance(body.text, str):
        scored = await _together(call, request, body.text, texts)
    else:
        raise bad_request("choices that are texts need a prompt that is text", param="choices")
    return Sequences([scored], sequences.names, False)


def engine_rid(call: Call, name: str) -> str:
    """The engine's name for a request that its client calls `name`; no two are the same."""
    return f"{rid_prefix(call.tenant.name, name)}{new_request_id()}"


def rid_prefix(tenant: str, name: str) -> str:
    """What the engine's names of a tenant's requests called `name` begin with."""
    return f"{tenant}:{name}:"


def prompts_of(body: GenerateBody | EncodeBody) -> tuple[str, list[Any], bool]:
    """The field, its prompts, and whether it is a list of them."""
    if (body.text is None) == (body.input_ids is None):
        raise bad_request("give either text or input_ids, exactly one of them", param="text")
    if body.text is not None:
        return ("text", [body.text], False) if isinstance(body.text, str) else ("text", body.text, True)
    given = body.input_ids or []
    lists = [isinstance(each, list) for each in given]
    if any(lists) and not all(lists):
        raise bad_request("input_ids must be a list of token ids, or a list of such lists", param="input_ids")
    return ("input_ids", given, True) if any(lists) else ("input_ids", [given], False)


def _column(field: str, given: Any, count: int, many: bool) -> list[Any]:
    """A value for each prompt."""
    if not isinstance(given, list):
        return [given] * count
    if not many:
        raise bad_request(f"{field} is a list, but there is a single prompt", param=field)
    if len(given) != count:
        raise bad_request(
            f"{field} is a list of {len(given)} for {count} prompts; give one each", param=field
        )
    return given


def _params(call: Call, given: SamplingFields) -> tuple[SamplingParams, Room]:
    values = {
        name: value
        for name, value in msgspec.structs.asdict(given).items()
        if value is not None and name not in _IGNORED
    }
    if (given.beam_width or 1) != 1:
        raise bad_request("beam_width is not supported: there is no beam search", param="beam_width")
    if given.sampling_seed is not None:
        if given.seed is not None:
            raise bad_request("sampling_seed and seed are the same; give one of them", param="seed")
        values["seed"] = given.sampling_seed
    limits = call.server.config.limits
    held = [Constraint(name, name, values.pop(name)) for name in _HELD if name in values]
    room: Room = "refuse" if given.max_new_tokens is not None else "fill"
    if room == "fill" and given.min_new_tokens is not None:
        values["max_new_tokens"] = given.min_new_tokens  # until the context's room is known
    values |= constraint_params(held, limits)
    return make_params(values, limits, call.server.info.vocab_size, {"seed": "sampling_seed"}), room


async def _encode(call: Call, text: str) -> list[int]:
    encode = call.server.tokenizer.encode
    return encode(text) if len(text) < LONG_TEXT else await asyncio.to_thread(encode, text)


def _salt(body: GenerateBody) -> str | None:
    if body.extra_key is None:
        return body.cache_salt
    return body.extra_key if body.cache_salt is None else f"{body.cache_salt}\0{body.extra_key}"


def _logprobs(
    body: GenerateBody, ids: Sequence[Sequence[int]], many: bool, call: Call
) -> list[LogprobParams | None]:
    count, limits = len(ids), call.server.config.limits
    wanted = _column("return_logprob", body.return_logprob, count, many)
    starts = _column("logprob_start_len", body.logprob_start_len, count, many)
    tops = _column("top_logprobs_num", body.top_logprobs_num, count, many)
    given = body.token_ids_logprob
    if given is not None and any(isinstance(each, int) for each in given):  # one list for all
        if not all(isinstance(each, int) for each in given):
            raise bad_request(
                "token_ids_logprob must be token ids, or a list of such lists", param="token_ids_logprob"
            )
        asked: list[Any] = [given] * count
    else:
        asked = _column("token_ids_logprob", given or None, count, many)
    found = []
    for prompt, want, start, top, tokens in zip(ids, wanted, starts, tops, asked, strict=True):
        if start is not None and start > len(prompt):
            raise bad_request(
                f"logprob_start_len must be at most the prompt's length {len(prompt)}, not {start}",
                param="logprob_start_len",
            )
        check_top_logprobs("top_logprobs_num", top, limits)
        if tokens:
            check_ids("token_ids_logprob", tokens, call.server.info.vocab_size)
        try:
            found.append(LogprobParams.from_options(want, start, top, tokens, body.return_text_in_logprobs))
        except RequestError as error:
            raise bad_request(str(error)) from None
    return found


def _resumed(body: GenerateBody, count: int, many: bool) -> list[list[int]]:
    given: list[Any] = body.resume_ids or []
    if many:
        if any(isinstance(each, int) for each in given):
            raise bad_request("resume_ids must be a list of lists, as the prompts are", param="resume_ids")
        return _column("resume_ids", given, count, many) if given else [[]] * count
    if any(not isinstance(each, int) for each in given):
        raise bad_request(
            "resume_ids must be a list of token ids, as there is a single prompt", param="resume_ids"
        )
    return [given]


def _going_on(
    call: Call, made: Sequence[GenerateRequest], known: list[int], scored: int | None
) -> GenerateRequest:
    """The request that goes on after known output."""
    if len(made) != 1:
        raise bad_request("resume_ids are of one output; send a request for each (n=1)", param="resume_ids")
    (request,) = made
    check_ids("resume_ids", known, call.server.info.vocab_size)
    if len(known) > request.params.max_new_tokens:
        raise bad_request(
            f"resume_ids has {len(known)} tokens, more than max_new_tokens={request.params.max_new_tokens}",
            param="resume_ids",
        )
    logprobs, skip = request.logprobs, len(known) if scored is None else scored
    if skip > len(known):
        raise bad_request(
            f"resume_logprobs must be at most {len(known)}, not {skip}", param="resume_logprobs"
        )
    if logprobs is not None and logprobs.start is None:
        logprobs = replace(logprobs, skip=skip)
    ids = [*request.input_ids, *known]
    return replace(request, input_ids=ids, produced=len(known), logprobs=logprobs)


def _names(body: GenerateBody, count: int, many: bool, copies: int) -> list[str]:
    given = body.rid
    if isinstance(given, list):
        names = _column("rid", given, count, many)
    elif given is None:
        return [new_request_id() for _ in range(count * copies)]
    else:
        names = [f"{given}_{at}" for at in range(count)] if many else [given]
    return names if copies == 1 else [f"{name}_{copy}" for name in names for copy in range(copies)]


async def _together(
    call: Call, request: GenerateRequest, prompt: str, texts: Sequence[str]
) -> GenerateRequest:
    """Prompt and choices tokenised together: where the prompt ends makes no difference to their tokens."""
    rows = [await _encode(call, prompt + text) for text in texts]
    plain = request.input_ids
    part = min(_common(plain, row) for row in rows)
    part = min(part, *(len(row) - 1 for row in rows))
    if part < 1:
        raise bad_request("the prompt is too short: the choices' first tokens depend on it", param="text")
    return replace(request, input_ids=plain[:part], choices=[row[part:] for row in rows])


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
