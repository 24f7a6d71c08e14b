"""``/api/embed`` and the older ``/api/embeddings``."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.embedding import embed
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.ollama.bodies import (
    EmbedAnswer,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EmbedRequest,
)
from sgl_like.runtime.server.ollama.errors import ollama_body
from sgl_like.runtime.server.ollama.lines import Clock
from sgl_like.runtime.server.ollama.options import check_model


async def embed_texts(call: Call) -> web.StreamResponse:
    """Embed one text or several; their ends are left out if they are too long, unless `truncate` is false."""
    body = await call.body(EmbedRequest)
    check_model(call, body.model)
    clock = Clock(call.received)
    texts = [body.input] if isinstance(body.input, str) else body.input
    found = await embed(call, texts, dimensions=body.dimensions, cut=body.truncate is not False)
    times = clock.durations()
    return json_response(
        {
            "model": body.model,
            "embeddings": [each.values for each in found],
            "total_duration": times["total_duration"],
            "load_duration": times["load_duration"],
            "prompt_eval_count": sum(each.tokens for each in found),
        }
    )


async def embed_prompt(call: Call) -> web.StreamResponse:
    """Embed one prompt; the vector is not scaled to length 1."""
    body = await call.body(EmbeddingsRequest)
    check_model(call, body.model)
    if not body.prompt:
        return json_response({"embedding": []})
    (found,) = await embed(call, [body.prompt], param="prompt", cut=True, unit=False)
    return json_response({"embedding": found.values})


ROUTES = (
    Route(
        "POST",
        "/api/embed",
        embed_texts,
        "Embed texts (Ollama)",
        body=EmbedRequest,
        response=EmbedAnswer,
        error_body=ollama_body,
    ),
    Route(
        "POST",
        "/api/embeddings",
        embed_prompt,
        "Embed a prompt (Ollama)",
        body=EmbeddingsRequest,
        response=EmbeddingsAnswer,
        error_body=ollama_body,
    ),
)
