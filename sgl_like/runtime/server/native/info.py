"""What the server says about its model and its load, in the forms of SGLang and vLLM."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sgl_like.runtime.server.http.auth import is_local
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import unavailable
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.observe.process import package_version
from sgl_like.runtime.server.observe.routes import server_info

FEATURES = ("choices", "resume", "incremental_streaming_output", "deadline", "cache_salt", "bad_words")
"""What ``/generate`` takes that SGLang's does not; clients look for it in ``/model_info``."""


class Extras(msgspec.Struct, kw_only=True):
    """What a server of this package has besides what its API is known for."""

    version: str
    features: tuple[str, ...]


class ModelInfo(msgspec.Struct, kw_only=True):
    """The model, as SGLang describes one, and what this server has besides (`sgl_like`)."""

    model_path: str
    tokenizer_path: str
    served_model_name: str
    max_model_len: int
    vocab_size: int
    sgl_like: Extras
    is_generation: bool = True
    preferred_sampling_params: str | None = None
    weight_version: str = "default"
    has_image_understanding: bool = False
    has_audio_understanding: bool = False


async def model_info(call: Call) -> web.StreamResponse:
    """The model. Its folder is told to admins and to callers on this machine, who can read its tokenizer there."""
    info, name = call.server.info, call.server.config.model_name
    path = info.model_path if call.tenant.admin or is_local(call.http) else name
    return json_response(
        ModelInfo(
            model_path=path,
            tokenizer_path=path,
            served_model_name=name,
            max_model_len=info.context_length,
            vocab_size=info.vocab_size,
            sgl_like=Extras(version=package_version(), features=FEATURES),
        )
    )


async def server_load(call: Call) -> web.StreamResponse:
    """Sequences in flight (vLLM)."""
    return json_response({"server_load": len(call.server.observer.open)})


async def version(call: Call) -> web.StreamResponse:
    """Of this package (vLLM)."""
    return json_response({"version": package_version()})


async def ping(call: Call) -> web.StreamResponse:
    """200 if requests are taken, as SageMaker asks."""
    if call.server.engine.state != "ready" or call.server.draining:
        raise unavailable("requests are not taken now")
    return json_response({"status": "ok"})


ROUTES = (
    *(
        Route("GET", path, model_info, "The model (SGLang)", response=ModelInfo)
        for path in ("/model_info", "/get_model_info")
    ),
    Route("GET", "/get_server_info", server_info, "Options and state of the server"),
    Route("GET", "/load", server_load, "Sequences in flight (vLLM)"),
    Route("GET", "/version", version, "Version of the server (vLLM)"),
    *(Route(method, "/ping", ping, "Whether requests are taken (SageMaker)") for method in ("GET", "POST")),
)
