"""``/api/generate``."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.chat.reading import AnswerReader
from sgl_like.runtime.server.chat.single import Ask, prepare
from sgl_like.runtime.server.constraints import constraint_params
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.ollama.answers import Shape, answer, loaded
from sgl_like.runtime.server.ollama.bodies import GenerateAnswer, GenerateRequest, Options
from sgl_like.runtime.server.ollama.errors import ollama_body
from sgl_like.runtime.server.ollama.lines import MEDIA
from sgl_like.runtime.server.ollama.options import (
    NAMES,
    check_model,
    check_thinking,
    format_of,
    logprobs_of,
    room_of,
    values_of,
)
from sgl_like.runtime.server.prompts import encode_texts
from sgl_like.runtime.server.sampling import check_ids, make_params, make_requests

_ABSENT = {
    "suffix": "the model does not fill in between texts",
    "template": "the model's own template is used; with raw there is none",
    "images": "the model reads text only",
}


async def generate(call: Call) -> web.StreamResponse:
    """Answer a prompt, or with `raw` go on from it."""
    body = await call.body(GenerateRequest)
    check_model(call, body.model)
    shape = Shape(body.model, chat=False)
    if not body.prompt:
        return loaded(body, shape)
    check_thinking(call, body)
    for name, why in _ABSENT.items():
        if getattr(body, name):
            raise bad_request(f"{name}: {why}", param=name)
    if body.raw:
        return await _raw(call, body, body.prompt, shape)
    options, context = body.options or Options(), body.context or []
    if context:
        check_ids("context", context, call.server.info.vocab_size)
    messages = [{"role": "system", "content": body.system}] if body.system else []
    turn = await prepare(
        call,
        Ask(
            messages=[*messages, {"role": "user", "content": body.prompt}],
            values=values_of(options),
            names=NAMES,
            constraints=format_of(body),
            room=room_of(options),
            logprobs=logprobs_of(call, body),
            before=context,
            param="prompt",
        ),
    )
    return await answer(call, body, turn.request, turn.plan.reader(), shape, context=True)


async def _raw(call: Call, body: GenerateRequest, prompt: str, shape: Shape) -> web.StreamResponse:
    options, server = body.options or Options(), call.server
    limits = server.config.limits
    held = constraint_params(format_of(body), limits)
    params = make_params(values_of(options) | held, limits, server.info.vocab_size, NAMES)
    ids = await encode_texts(call, [prompt])
    (request,) = make_requests(
        call, ids, params, room=room_of(options), logprobs=logprobs_of(call, body), stream=True
    )
    return await answer(call, body, request, AnswerReader(), shape)


ROUTES = (
    Route(
        "POST",
        "/api/generate",
        generate,
        "Answer a prompt (Ollama)",
        body=GenerateRequest,
        response=GenerateAnswer,
        error_body=ollama_body,
        streams=True,
        media=MEDIA,
    ),
)
