"""What the server says about its model and its load, in the forms of SGLang and vLLM."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.http.auth import is_local
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.observe.process import package_version
from sgl_like.runtime.server.observe.routes import server_info

FEATURES = ("choices", "resume", "incremental_streaming_output", "deadline", "cache_salt", "bad_words")
"""What ``/generate`` takes that SGLang's does not; clients look for it in ``/model_info``."""


async def model_info(call: Call) -> web.StreamResponse:
    """The model. Its folder is told to admins and to callers on this machine, who can read its tokenizer there."""
    info, name = call.server.info, call.server.config.model_name
    path = info.model_path if call.tenant.admin or is_local(call.http) else name
    return json_response(
        {
            "model_path": path,
            "tokenizer_path": path,
            "served_model_name": name,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "max_model_len": info.context_length,
            "vocab_size": info.vocab_size,
            "sgl_like": {"version": package_version(), "features": FEATURES},
        }
    )


async def server_load(call: Call) -> web.StreamResponse:
    """Sequences in flight (vLLM)."""
    return json_response({"server_load": len(call.server.observer.open)})


async def version(call: Call) -> web.StreamResponse:
    """Of this package (vLLM)."""
    return json_response({"version": package_version()})


async def ping(call: Call) -> web.StreamResponse:
    """200 if requests are taken, as SageMaker asks."""
    ready = call.server.engine.state == "ready" and not call.server.draining
    return json_response({}, 200 if ready else 503)


ROUTES = (
    *(Route("GET", path, model_info, "The model (SGLang)") for path in ("/model_info", "/get_model_info")),
    Route("GET", "/get_server_info", server_info, "Options and state of the server"),
    Route("GET", "/load", server_load, "Sequences in flight (vLLM)"),
    Route("GET", "/version", version, "Version of the server (vLLM)"),
    *(Route(method, "/ping", ping, "Whether requests are taken (SageMaker)") for method in ("GET", "POST")),
)
