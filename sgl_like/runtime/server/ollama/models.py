"""What there is: the one model, as Ollama describes models, and what cannot be done with it here."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.ollama.bodies import ShowRequest
from sgl_like.runtime.server.ollama.errors import ollama_body
from sgl_like.runtime.server.ollama.options import check_model

VERSION = "0.13.0"
"""The version of Ollama whose API this is; clients compare it with what they need."""

_FAR = "9999-12-31T23:59:59Z"  # when the model will be unloaded


def timestamp(seconds: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def tags(call: Call) -> web.StreamResponse:
    """The one model."""
    return json_response({"models": [_model(call)]})


async def running(call: Call) -> web.StreamResponse:
    """The one model, which is always loaded."""
    loaded = {"expires_at": _FAR, "size_vram": 0, "context_length": call.server.info.context_length}
    return json_response({"models": [_model(call) | loaded]})


async def show(call: Call) -> web.StreamResponse:
    """About the model."""
    body = await call.body(ShowRequest)
    check_model(call, body.model or body.name)
    model, info = _model(call), call.server.info
    family = model["details"]["family"]
    config = _config(info.model_path)
    known = {
        "general.architecture": family,
        f"{family}.vocab_size": info.vocab_size,
        f"{family}.context_length": info.context_length,
        f"{family}.embedding_length": config.get("hidden_size"),
        f"{family}.block_count": config.get("num_hidden_layers"),
        f"{family}.attention.head_count": config.get("num_attention_heads"),
    }
    return json_response(
        {
            "modelfile": f"FROM {model['name']}\n",
            "parameters": "",
            "template": "",
            "details": model["details"],
            "model_info": {name: value for name, value in known.items() if value is not None},
            "capabilities": ["completion", "tools", "embedding"],
            "modified_at": model["modified_at"],
        }
    )


async def version(call: Call) -> web.StreamResponse:
    """Which version of Ollama's API this is."""
    return json_response({"version": VERSION})


async def absent(call: Call) -> web.StreamResponse:
    """Models are neither fetched, made, copied nor removed."""
    raise ApiError(
        404,
        f"{call.http.path} does not exist here: the model is chosen when the server starts (sgl-like serve --model)",
        code="not_implemented",
    )


def _model(call: Call) -> dict[str, Any]:
    server, info = call.server, call.server.info
    name = f"{server.config.model_name}:latest"
    config = _config(info.model_path)
    family = str(config.get("model_type") or "unknown")
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "unknown")
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(server.created),
        "size": sum(file.stat().st_size for file in Path(info.model_path).glob("*.safetensors")),
        "digest": hashlib.sha256(json.dumps([name, config], sort_keys=True).encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": family,
            "families": [family],
            "parameter_size": "",
            "quantization_level": dtype,
        },
    }


def _config(folder: str) -> dict[str, Any]:
    """The model's ``config.json``; empty if there is none."""
    path = Path(folder) / "config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _get(path: str, handler: Any, summary: str) -> Route:
    return Route("GET", path, handler, summary, error_body=ollama_body)


ROUTES = (
    _get("/api/tags", tags, "List the models"),
    _get("/api/ps", running, "List the loaded models"),
    _get("/api/version", version, "Version of Ollama's API"),
    Route("POST", "/api/show", show, "Describe a model", body=ShowRequest, error_body=ollama_body),
    *(
        Route(method, path, absent, "Does not exist here", error_body=ollama_body)
        for method, path in (
            ("POST", "/api/pull"),
            ("POST", "/api/push"),
            ("POST", "/api/create"),
            ("POST", "/api/copy"),
            ("DELETE", "/api/delete"),
            ("HEAD", "/api/blobs/{digest}"),
            ("POST", "/api/blobs/{digest}"),
        )
    ),
)
