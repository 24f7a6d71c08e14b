"""``/v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from sgl_like.runtime.logprobs import NO_TOKEN, LogprobParams, PlaceLogprobs
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.server.generation import Generation
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.streaming import send_stream
from sgl_like.runtime.server.openai.chunks import (
    Chunks,
    Head,
    Usage,
    encode,
    failed,
    json_string,
    stop_reason,
    usage_of,
)
from sgl_like.runtime.server.openai.fields import SamplingFields, check_fields, held_of, params_of
from sgl_like.runtime.server.openai.logprobs import CompletionLogprobs, completion_logprobs, prompt_logprobs
from sgl_like.runtime.server.openai.models import check_model
from sgl_like.runtime.server.prompts import encode_texts
from sgl_like.runtime.server.sampling import check_count, check_top_logprobs, make_requests


class CompletionRequest(SamplingFields, kw_only=True):
    """The body of ``POST /v1/completions``.

    `prompt`: a text, token ids, or a list of either. `best_of` may only be `n`: outputs are not ranked. `echo` puts the
    prompt before the output; with `max_tokens` 0 and `logprobs` it is scored.
    """

    prompt: str | list[str | int | list[int]]
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    add_special_tokens: bool = True


class CompletionChoice(msgspec.Struct, kw_only=True):
    """An output. `stop_reason`: the stop string or token that ended it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str
    stop_reason: int | str | None = None
    prompt_logprobs: list[dict[str, Any] | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class CompletionResponse(msgspec.Struct, kw_only=True):
    """All outputs."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


async def completions(call: Call) -> web.StreamResponse:
    """Continue texts."""
    body = await call.body(CompletionRequest)
    check_model(call, body.model)
    _check(body)
    limits = call.server.config.limits
    top = check_top_logprobs("logprobs", body.logprobs, limits)
    of_prompt = check_top_logprobs("prompt_logprobs", body.prompt_logprobs, limits)
    params = params_of(call, body, 16 if body.max_tokens is None else body.max_tokens, held_of(call, body))
    prompts = await _prompts(call, body)
    wanted: LogprobParams | None = None
    if body.logprobs is not None or body.prompt_logprobs is not None:
        whole = body.prompt_logprobs is not None or body.echo
        wanted = LogprobParams(start=0 if whole else None, top=max(top, of_prompt))
    requests = make_requests(
        call,
        prompts,
        params,
        logprobs=wanted,
        stream=bool(body.stream),
        priority=-body.priority,
        cache_salt=body.salt,
    )
    answer = _Answer(call, body, prompts, top, of_prompt)
    async with call.generate(requests) as generation:
        if body.stream:
            return await send_stream(call, answer.chunks(generation), failed)
        return json_response(answer.whole(requests, await generation.all()))


def _check(body: CompletionRequest) -> None:
    check_fields(body)
    if body.best_of is not None and body.best_of != body.n:
        raise bad_request(
            f"best_of must be n={body.n}: all outputs are returned, none is chosen", param="best_of"
        )
    if body.suffix:
        raise bad_request(
            "suffix is not supported: the model continues texts, it does not fill them", "suffix"
        )
    if body.echo and body.stream and body.logprobs is not None:
        raise bad_request("echo with logprobs cannot be streamed", param="echo")


async def _prompts(call: Call, body: CompletionRequest) -> Sequence[Sequence[int]]:
    given: Any = body.prompt
    if (isinstance(given, list) and given and all(isinstance(each, int) for each in given)) or isinstance(
        given, str
    ):
        given = [given]
    check_count("prompt", len(given), body.n, call.server.config.limits)
    if all(isinstance(each, str) for each in given):
        if body.add_special_tokens:
            prompts = await encode_texts(call, given)
        else:
            prompts = [call.server.tokenizer.encode_segments([(text, True)]) for text in given]
    elif all(isinstance(each, list) for each in given):
        prompts = given
    else:
        raise bad_request("prompt must be a text, token ids, or a list of either", param="prompt")
    last = body.truncate_prompt_tokens
    if last is None:
        return prompts
    most = call.server.info.context_length - (16 if body.max_tokens is None else body.max_tokens)
    keep = max(most, 1) if last < 0 else max(last, 1)
    return [ids[-keep:] for ids in prompts]


class _Answer:
    """Makes the answer of one call.

    Args:
        call: that is answered.
        body: what was asked.
        prompts: token ids.
        top: likeliest tokens for each token of an output, and
        of_prompt: of a prompt.
    """

    def __init__(
        self,
        call: Call,
        body: CompletionRequest,
        prompts: Sequence[Sequence[int]],
        top: int,
        of_prompt: int,
    ) -> None:
        self._call = call
        self._body = body
        self._prompts = prompts
        self._top = top
        self._of_prompt = of_prompt
        self._texts = call.server.token_texts
        self._head = Head(call, "cmpl", "text_completion", body.request_id)
        shown = body.echo or body.logprobs is not None
        self._prompt_texts = [self._prompt_text(at) for at in range(len(prompts))] if shown else []

    def _prompt_text(self, at: int) -> str:
        given: Any = [self._body.prompt] if isinstance(self._body.prompt, str) else self._body.prompt
        if self._body.truncate_prompt_tokens is None and len(given) > at and isinstance(given[at], str):
            return str(given[at])
        return self._call.server.tokenizer.decode(self._prompts[at], skip_special_tokens=False)

    def whole(
        self, requests: Sequence[GenerateRequest], found: Sequence[Sequence[Output]]
    ) -> CompletionResponse:
        """The answer at the end."""
        return CompletionResponse(
            **self._head.fields(),
            choices=[self._choice(at, requests[at], outputs) for at, outputs in enumerate(found)],
            usage=usage_of([outputs[-1].usage for outputs in found], self._body.n),
        )

    def _choice(self, index: int, request: GenerateRequest, outputs: Sequence[Output]) -> CompletionChoice:
        body, prompt = self._body, index // self._body.n
        finish = outputs[-1].finish
        assert finish is not None
        text = "".join(output.text for output in outputs)
        choice = CompletionChoice(
            index=index,
            text=self._prompt_texts[prompt] + text if body.echo else text,
            logprobs=None,
            finish_reason=finish.type,
            stop_reason=stop_reason(self._call, finish),
        )
        of_prompt = [place for output in outputs for place in output.prompt_logprobs]
        if body.logprobs is not None:
            places = [place for output in outputs for place in output.output_logprobs]
            offset = 0 if body.echo else len(self._prompt_texts[prompt])
            all_places = [*_cut(of_prompt, self._top), *_cut(places, self._top)] if body.echo else places
            choice.logprobs, _ = completion_logprobs(
                self._texts, _cut(all_places, self._top), self._top, offset
            )
        if body.prompt_logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs(self._texts, _cut(of_prompt, self._of_prompt))
        if body.return_token_ids:
            choice.prompt_token_ids = list(request.input_ids)
            choice.token_ids = [token for output in outputs for token in output.token_ids]
        return choice

    async def chunks(self, generation: Generation) -> AsyncGenerator[bytes, None]:
        """The answer while it comes."""
        body, options = self._body, self._body.stream_options
        count = len(generation.requests)
        chunks = Chunks(
            self._head,
            body.n,
            count,
            include=options is not None and options.include_usage,
            continuous=options is not None and options.continuous_usage_stats,
        )
        await generation.first()
        offsets = [len(text) for text in self._prompt_texts for _ in range(body.n)]
        if body.echo:
            yield b"".join(chunks.chunk(at, self._echoed(at)) for at in range(count))
        elif body.return_token_ids:
            yield b"".join(chunks.chunk(at, self._prompt_ids(at)) for at in range(count))
        else:
            yield b""
        simple = body.logprobs is None and not body.return_token_ids
        async for parts in generation:
            data = []
            for index, output in parts:
                chunks.count(index, output)
                if simple and output.finish is None:
                    body_ = b'"text":' + json_string(output.text) + b',"logprobs":null,"finish_reason":null}'
                else:
                    body_ = self._part(index, output, offsets)
                data.append(chunks.chunk(index, body_))
            yield b"".join(data)
        yield chunks.end()

    def _echoed(self, index: int) -> bytes:
        text = json_string(self._prompt_texts[index // self._body.n])
        return b'"text":' + text + b',"logprobs":null,"finish_reason":null}'

    def _prompt_ids(self, index: int) -> bytes:
        ids = encode(list(self._prompts[index // self._body.n]))
        return b'"text":"","logprobs":null,"finish_reason":null,"prompt_token_ids":' + ids + b"}"

    def _part(self, index: int, output: Output, offsets: list[int]) -> bytes:
        finish = output.finish
        fields: dict[str, Any] = {"text": output.text, "logprobs": None, "finish_reason": None}
        if self._body.logprobs is not None:
            places = _cut(output.output_logprobs, self._top)
            fields["logprobs"], offsets[index] = completion_logprobs(
                self._texts, places, self._top, offsets[index]
            )
        if finish is not None:
            fields |= {"finish_reason": finish.type, "stop_reason": stop_reason(self._call, finish)}
        if self._body.return_token_ids:
            fields["token_ids"] = output.token_ids
        return encode(fields)[1:]


def _cut(places: Sequence[PlaceLogprobs], top: int) -> list[PlaceLogprobs]:
    """Places with as many of the likeliest tokens as were asked for."""
    return [
        place if len(place.top) <= top else place._replace(top=place.top[:top])
        for place in places
        if place.token != NO_TOKEN
    ]


ROUTES = (
    Route(
        "POST",
        "/v1/completions",
        completions,
        "Continue texts",
        body=CompletionRequest,
        response=CompletionResponse,
        streams=True,
    ),
)
