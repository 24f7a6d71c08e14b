"""Options of the server. The command line's flags are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgl_like.runtime.server.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server runs.

    Args:
        model: folder or hub id; ``None`` is the embedded model.
        served_model_name: what clients call it; ``None``: the last part of `model`, or ``"tiny"``.
        host: address to listen on. Others than this machine's own need an API key.
        port: to listen on; 0 takes a free one.
        api_keys: any of them opens the API; none: everybody may call. Each key is a tenant with a cache of its own.
        api_key_file: more keys, one a line: ``KEY name=WORD max_requests=N requests_per_minute=N tokens_per_minute=N``,
            where all but the key can be left out.
        admin_key: opens the admin routes; ``None``: without API keys everybody on this machine may, with them nobody.
        key_max_requests: sequences of a key that may run or wait at a time, if the file does not say.
        key_requests_per_minute: of a key, if the file does not say.
        key_tokens_per_minute: of a key, prompts and outputs, if the file does not say.
        cors_origins: of web pages that may call and read the answers; ``"*"``: all.
        grace: seconds that running requests get after SIGTERM.
        strict: refuse unknown fields in bodies instead of ignoring them.
        metrics_compat: whose metric names ``/metrics`` has besides ours: ``"vllm"``, ``"sglang"``.
        log_format: ``"text"`` or ``"json"``.
        engine: fields of `EngineConfig`.
        engine_kind: ``"stub"`` is an engine without a model that answers at once, for measuring the rest.
        limits: what clients may ask for.
    """

    model: str | Path | None = None
    served_model_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 30000
    api_keys: tuple[str, ...] = ()
    api_key_file: str | Path | None = None
    admin_key: str | None = None
    key_max_requests: int | None = None
    key_requests_per_minute: int | None = None
    key_tokens_per_minute: int | None = None
    cors_origins: tuple[str, ...] = ()
    grace: float = 30.0
    strict: bool = False
    metrics_compat: tuple[str, ...] = ("vllm", "sglang")
    log_format: Literal["text", "json"] = "text"
    engine: Mapping[str, Any] = field(default_factory=dict)
    engine_kind: Literal["model", "stub"] = "model"
    limits: Limits = field(default_factory=Limits)

    @property
    def model_name(self) -> str:
        """What clients call the model."""
        if self.served_model_name is not None:
            return self.served_model_name
        return "tiny" if self.model is None else Path(self.model).name
