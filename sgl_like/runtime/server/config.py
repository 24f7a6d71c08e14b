"""Options of the server. The command line's flags are made of them."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgl_like.errors import ConfigError
from sgl_like.runtime.server.limits import Limits

METRICS_COMPAT = ("vllm", "sglang")
"""Engines whose names for metrics are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StubConfig:
    """What the stub engine pretends.

    Args:
        step: seconds that a step takes; one that has too many requests for it takes longer.
        max_running_requests: requests that run at a time; the others wait.
        context_length: longest sequence.
        kv_slots: tokens that all running requests may have together, as far as is asked about.
    """

    step: float = 0.005
    max_running_requests: int = 1024
    context_length: int = 32768
    kv_slots: int = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server runs.

    Args:
        model: folder or hub id; ``None`` is the embedded model.
        served_model_name: what clients call it; ``None``: the last part of `model`, or ``"tiny"``.
        host: address to listen on. Others than this machine's own need an API key.
        port: to listen on; 0 takes a free one.
        allow_open: listen on an address that others reach although there is no API key.
        api_keys: any of them opens the API; none: everybody may call. Each key is a tenant with a cache of its own.
        api_key_file: more keys, one a line: ``KEY name=WORD max_requests=N requests_per_minute=N tokens_per_minute=N``,
            where all but the key can be left out.
        admin_key: opens the admin routes; ``None``: without API keys everybody on this machine may, with them nobody.
        admin_key_file: a file with that key, so that it is neither among the arguments nor in the environment.
        key_max_requests: sequences of a key that may run or wait at a time, if the file does not say.
        key_requests_per_minute: of a key, if the file does not say.
        key_tokens_per_minute: of a key, prompts and outputs, if the file does not say.
        cors_origins: of web pages that may call and read the answers; ``"*"``: all.
        grace: seconds that running requests get after SIGTERM.
        any_model: take any model name in OpenAI's APIs, as SGLang does; else other names are a 404, as in vLLM.
        strict: refuse unknown fields in bodies instead of ignoring them.
        metrics_compat: whose metric names ``/metrics`` has besides ours: ``"vllm"``, ``"sglang"``.
        log_format: ``"text"`` or ``"json"``.
        log_level: of the least important lines that are written.
        engine: fields of `EngineConfig`.
        engine_kind: ``"stub"`` is an engine without a model that answers at once, for measuring the rest.
        stub: what that one pretends.
        heartbeat_seconds: between two questions whether the engine is there.
        unresponsive_seconds: without an answer after which requests are ended and no new ones taken.
        kill_seconds: without an answer after which the engine is killed and started again.
        step_seconds: that a step of the engine may take before it is killed and started again.
        start_seconds: that an engine may take until it is ready.
        limits: what clients may ask for.

    Raises:
        ConfigError: a value cannot be used.
    """

    model: str | Path | None = None
    served_model_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 30000
    allow_open: bool = False
    api_keys: tuple[str, ...] = ()
    api_key_file: str | Path | None = None
    admin_key: str | None = None
    admin_key_file: str | Path | None = None
    key_max_requests: int | None = None
    key_requests_per_minute: int | None = None
    key_tokens_per_minute: int | None = None
    cors_origins: tuple[str, ...] = ()
    grace: float = 30.0
    any_model: bool = False
    strict: bool = False
    metrics_compat: tuple[str, ...] = METRICS_COMPAT
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    engine: Mapping[str, Any] = field(default_factory=dict)
    engine_kind: Literal["model", "stub"] = "model"
    stub: StubConfig = field(default_factory=StubConfig)
    heartbeat_seconds: float = 0.25
    unresponsive_seconds: float = 1.5
    kill_seconds: float = 4.0
    step_seconds: float = 300.0
    start_seconds: float = 600.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not (isinstance(self.port, int) and 0 <= self.port < 65536):
            raise ConfigError(f"port must be between 0 and 65535, not {self.port!r}")
        if not 0 <= self.grace < math.inf:
            raise ConfigError(f"grace must be a number of seconds, not {self.grace!r}")
        for name in (
            "heartbeat_seconds",
            "unresponsive_seconds",
            "kill_seconds",
            "step_seconds",
            "start_seconds",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be more than 0, not {getattr(self, name)!r}")
        if not self.unresponsive_seconds <= self.kill_seconds:
            raise ConfigError("kill_seconds must not be less than unresponsive_seconds")
        if any(not key for key in self.api_keys) or self.admin_key == "":
            raise ConfigError("an API key must not be empty")
        for engine in self.metrics_compat:
            if engine not in METRICS_COMPAT:
                raise ConfigError(f"metrics_compat may have {' and '.join(METRICS_COMPAT)}, not {engine!r}")

    def check_open(self) -> None:
        """Whether everybody who reaches the server may call it, and more than this machine does.

        Raises:
            ConfigError: so it is, and `allow_open` does not say that it is meant so.
        """
        keys = self.api_keys or self.api_key_file is not None
        if not (keys or self.allow_open or _is_loopback(self.host)):
            raise ConfigError(
                f"host {self.host!r} can be reached by others, and there is no API key: "
                "give --api-key, or --allow-open if everybody may call"
            )

    @property
    def model_name(self) -> str:
        """What clients call the model."""
        if self.served_model_name is not None:
            return self.served_model_name
        return "tiny" if self.model is None else Path(self.model).name


def _is_loopback(host: str) -> bool:
    """Of names only ``localhost``: what others mean is not ours to find out."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
