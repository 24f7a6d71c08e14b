"""``/encode``: embeddings as SGLang hands them out. What they are here, `sgl_like.runtime.server.embedding` says."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sgl_like.runtime.server.embedding import embed
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route


class EncodeBody(msgspec.Struct, kw_only=True):
    """The body of ``/encode``: one text or list of token ids, or several. `sampling_params` has no effect."""

    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    rid: str | list[str] | None = None
    dimensions: int | None = None
    sampling_params: Any = None
    image_data: Any = None


async def encode(call: Call) -> web.StreamResponse:
    """Embed texts or token ids."""
    body = await call.body(EncodeBody)
    if body.image_data:
        raise bad_request("image_data is not supported: the model takes no images", param="image_data")
    param, prompts, many = _prompts(body)
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


def _prompts(body: EncodeBody) -> tuple[str, list[Any], bool]:
    """The field, its prompts, and whether it is a list of them."""
    if (body.text is None) == (body.input_ids is None):
        raise bad_request("give either text or input_ids, exactly one of them", param="text")
    if body.text is not None:
        return ("text", [body.text], False) if isinstance(body.text, str) else ("text", body.text, True)
    given = body.input_ids or []
    lists = [isinstance(each, list) for each in given]
    if any(lists) and not all(lists):
        raise bad_request("input_ids must be a list of token ids, or a list of such lists", param="input_ids")
    return "input_ids", given if any(lists) else [given], any(lists)


ROUTES = tuple(
    Route(method, "/encode", encode, "Embed texts (SGLang)", body=EncodeBody) for method in ("POST", "PUT")
)
