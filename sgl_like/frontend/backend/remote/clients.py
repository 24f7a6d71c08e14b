"""What users make: `OpenAICompatible` for servers of many makers, `OpenAI`, and `Anthropic`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sgl_like.errors import ConfigError
from sgl_like.frontend.backend.remote import loop
from sgl_like.frontend.backend.remote.backend import RemoteBackend
from sgl_like.frontend.backend.remote.detect import detected
from sgl_like.frontend.backend.remote.engines.anthropic import anthropic_dialect
from sgl_like.frontend.backend.remote.engines.openai import OPENAI
from sgl_like.frontend.backend.remote.http import Http, HttpOptions

__all__ = ["Anthropic", "OpenAI", "OpenAICompatible"]


class OpenAICompatible(RemoteBackend):
    """Programs on a server with OpenAI's API: vLLM, SGLang, llama.cpp, llama-cpp-python, Ollama, TGI, TensorRT-LLM,
    Triton Inference Server, MLC-LLM and others.

    Messages go to its chat endpoint, prompts without roles to the one for plain text. Each engine spells constraints
    and sampling parameters its own way; `dialect` says which. What an engine cannot do is an error before anything is
    sent, which names the parameter and what would work.

    Args:
        base_url: address, with or without ``/v1`` at its end.
        model: name of the model there; ``None``: the only one that the server has.
        api_key: sent as a bearer token. Never shown.
        dialect: ``"auto"`` asks the server; or "vllm", "vllm-guided" (before 0.11), "sglang", "llama.cpp",
            "llama-cpp-python", "ollama", "tgi", "tensorrt-llm", "triton", "mlc-llm", "openai" or "compatible" (what
            any such server should know).
        extra_body: fields merged into every request as they are.
        **http: fields of `HttpOptions`: ``timeout``, ``connect_timeout``, ``max_retries``, ``max_connections``,
            ``verify``, ``headers``.

    Raises:
        ConfigError: an argument cannot be used.
        RemoteError: the server was to be asked for dialect or model, and did not answer.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        dialect: str = "auto",
        extra_body: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        options = http_options(http, {"Authorization": f"Bearer {api_key}"} if api_key else {})
        server = Http(base_url.rstrip("/").removesuffix("/v1"), (api_key or "",), options)
        try:
            chosen, name = loop.run(detected(server, dialect, model))
        except BaseException:
            loop.start_closing(server)
            raise
        super().__init__(server, chosen, name, max_retries=options.max_retries, extra_body=extra_body)


class OpenAI(RemoteBackend):
    """Programs on OpenAI's models.

    A gen that stands at the beginning of an assistant message is one chat completion. The API cannot continue a
    message, so a gen behind other text needs ``@sgl.function(num_api_spec_tokens=...)``. `select` is held to its
    choices by a schema.

    Args:
        model_name: e.g. ``"gpt-4o-mini"``.
        api_key: by default that of the environment variable ``OPENAI_API_KEY``. Never shown.
        base_url: another address of the same API.
        extra_body: fields merged into every request as they are, e.g. ``{"reasoning_effort": "low"}``, or
            ``{"temperature": 1}`` for models that take no other, whose `select` is sampled then.
        **http: fields of `HttpOptions`.

    Raises:
        ConfigError: there is no key.
    """

    def __init__(
        self,
        model_name: str,
        api_key: str | None = None,
        *,
        base_url: str = "https://api.openai.com/v1",
        extra_body: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        key = _key(api_key, "OPENAI_API_KEY")
        options = http_options(http, {"Authorization": f"Bearer {key}"})
        server = Http(base_url.rstrip("/").removesuffix("/v1"), (key,), options)
        super().__init__(server, OPENAI, model_name, max_retries=options.max_retries, extra_body=extra_body)


class Anthropic(RemoteBackend):
    """Programs on Anthropic's models.

    System messages at the beginning of a conversation become the API's ``system``. Text that stands before a gen in its
    message is continued, by models that can do that.

    Args:
        model_name: e.g. ``"claude-sonnet-4-5"``.
        api_key: by default that of the environment variable ``ANTHROPIC_API_KEY``. Never shown.
        base_url: another address of the same API.
        prefill: whether the model continues a message that is begun; ``None``: Claude up to 4.5 does.
        sampling: whether the model takes ``temperature``, ``top_p`` and ``top_k``; ``None``: Claude up to 4.6 does.
        extra_body: fields merged into every request as they are.
        **http: fields of `HttpOptions`.

    Raises:
        ConfigError: there is no key.
    """

    def __init__(
        self,
        model_name: str,
        api_key: str | None = None,
        *,
        base_url: str = "https://api.anthropic.com",
        prefill: bool | None = None,
        sampling: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **http: Any,
    ) -> None:
        key = _key(api_key, "ANTHROPIC_API_KEY")
        options = http_options(http, {"x-api-key": key, "anthropic-version": "2023-06-01"})
        dialect = anthropic_dialect(model_name, prefill, sampling)
        server = Http(base_url.rstrip("/").removesuffix("/v1"), (key,), options)
        super().__init__(server, dialect, model_name, max_retries=options.max_retries, extra_body=extra_body)


def _key(given: str | None, variable: str) -> str:
    key = given or os.environ.get(variable)
    if not key:
        raise ConfigError(f"an API key is needed: api_key=..., or the environment variable {variable}")
    return key


def http_options(http: Mapping[str, Any], headers: Mapping[str, str]) -> HttpOptions:
    try:
        options = HttpOptions(**http)
    except TypeError as error:
        raise ConfigError(str(error).replace("HttpOptions.__init__()", "backend")) from None
    return replace(options, headers={**headers, **options.headers})
