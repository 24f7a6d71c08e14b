"""``/encode``: embeddings as SGLang hands them out. What they are here, `sgl_like.runtime.server.embedding` says."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.embedding import embed
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.native.bodies import EncodeBody
from sgl_like.runtime.server.native.reading import prompts_of


async def encode(call: Call) -> web.StreamResponse:
    """Embed texts or token ids."""
    body = await call.body(EncodeBody)
    if body.image_data:
        raise bad_request("image_data is not supported: the model takes no images", param="image_data")
    param, prompts, many = prompts_of(body)
    rids = [body.rid] if isinstance(body.rid, str) else body.rid or []
    if rids and len(rids) != len(prompts):
        raise bad_request(f"rid: {len(rids)} names for {len(prompts)} prompts", param="rid")
    found = await embed(call, prompts, param=param, dimensions=body.dimensions)
    answers = [
        {
            "embedding": each.values,
            "meta_info": {
                "id": rids[at] if rids else f"{call.id}-{at}" if many else call.id,
                "finish_reason": {"type": "length", "length": 0},
                "prompt_tokens": each.tokens,
                "cached_tokens": each.cached,
            },
        }
        for at, each in enumerate(found)
    ]
    return json_response(answers if many else answers[0])


ROUTES = tuple(
    Route(method, "/encode", encode, "Embed texts (SGLang)", body=EncodeBody) for method in ("POST", "PUT")
)
