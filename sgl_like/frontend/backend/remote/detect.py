"""Which engine a server runs, from what it says about itself.

``/v1/models`` has ``owned_by``, which is constant for most engines (llama.cpp: tools/server/README.md; MLC-LLM and
TensorRT-LLM: the sources named with their dialects; Ollama: "library"; vLLM and SGLang: their own names). TGI says
nothing there, but has ``/info`` with a ``router``. vLLM's version decides between its two ways to spell constraints.
"""

from __future__ import annotations

import re
from typing import Any

from sgl_like.errors import ConfigError, RemoteAuthenticationError, RemoteError, RemoteRequestError
from sgl_like.frontend.backend.remote.dialect import Dialect
from sgl_like.frontend.backend.remote.engines.openai import COMPATIBLE
from sgl_like.frontend.backend.remote.engines.table import DIALECTS
from sgl_like.frontend.backend.remote.engines.tgi import TGI
from sgl_like.frontend.backend.remote.engines.vllm import VLLM, VLLM_GUIDED
from sgl_like.frontend.backend.remote.http import Http

__all__ = ["detected"]


async def detected(http: Http, dialect: str, model: str | None) -> tuple[Dialect, str]:
    """The dialect named, or the server's if it is ``"auto"``; and the model named, or the server's only one.

    Raises:
        ConfigError: there is no such dialect, or the server has several models.
        RemoteError: the server cannot be asked.
    """
    if dialect != "auto" and dialect not in DIALECTS:
        raise ConfigError(f"dialect must be auto or one of {', '.join(DIALECTS)}, not {dialect!r}")
    if dialect != "auto" and model is not None:
        return DIALECTS[dialect], model
    models = await _models(http)
    chosen = DIALECTS[dialect] if dialect != "auto" else await _recognised(http, models)
    if model is None:
        names = [each["id"] for each in models]
        if len(names) != 1:
            raise ConfigError(
                f"name the model: {http.public_url} has {', '.join(names) if names else 'no list of them'}"
            )
        model = str(names[0])
    return chosen, model


async def _recognised(http: Http, models: list[dict[str, Any]]) -> Dialect:
    owners = {str(each.get("owned_by")) for each in models}
    found = next((each for each in DIALECTS.values() if each.owners & owners), None)
    if found is VLLM:
        version = (await _optional(http, "/version")).get("version") or ""
        numbers = re.match(r"(\d+)\.(\d+)", version)
        return VLLM_GUIDED if numbers and (int(numbers[1]), int(numbers[2])) < (0, 11) else VLLM
    if found is None and "router" in await _optional(http, "/info"):
        return TGI
    return found or COMPATIBLE


async def _models(http: Http) -> list[dict[str, Any]]:
    found = await _optional(http, "/v1/models")
    return [each for each in found.get("data") or () if isinstance(each, dict) and "id" in each]


async def _optional(http: Http, path: str) -> dict[str, Any]:
    """What a server says there; nothing if it has no such address."""
    try:
        found = await http.json("GET", path)
    except RemoteAuthenticationError:
        raise
    except (RemoteRequestError, RemoteError) as error:
        if error.status is None or error.status >= 500:
            raise
        return {}
    return found if isinstance(found, dict) else {}
