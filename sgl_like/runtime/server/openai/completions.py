"""``/v1/completions``. (A first version: text and ids, whole and streamed.)"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from aiohttp import web

from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.sse import DONE, EventStream


class CompletionRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /v1/completions``."""

    model: str | None = None
    prompt: str | list[int] = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] = 16
    temperature: float = 1.0
    seed: int | None = None
    stream: bool = False


async def completions(call: Call) -> web.StreamResponse:
    """Continue a text."""
    body = await call.body(CompletionRequest)
    params = SamplingParams(max_new_tokens=body.max_tokens, temperature=body.temperature, seed=body.seed)
    ids = call.server.tokenizer.encode(body.prompt) if isinstance(body.prompt, str) else body.prompt
    request = GenerateRequest(ids, params, stream=body.stream, namespace=call.tenant.namespace)
    async with call.generate([request]) as generation:
        if not body.stream:
            outputs = (await generation.all())[0]
            return json_response(_response(call, "".join(o.text for o in outputs), outputs[-1]))
        await generation.first()
        stream = EventStream(call.http)
        await stream.open()
        async for parts in generation:
            for _, output in parts:
                await stream.send(_response(call, output.text, output))
        await stream.write(DONE)
        return await stream.close()


def _response(call: Call, text: str, last: Output) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": last.finish and last.finish.type}
    usage = last.usage
    return {
        "id": f"cmpl-{call.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": call.server.config.model_name,
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


ROUTES = (
    Route("POST", "/v1/completions", completions, "Continue a text", body=CompletionRequest, streams=True),
)
