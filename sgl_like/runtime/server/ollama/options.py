"""Ollama's options as sampling parameters."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.server.constraints import ANY_OBJECT, Constraint
from sgl_like.runtime.server.http.errors import ApiError, bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.ollama.bodies import Common, Options
from sgl_like.runtime.server.sampling import Room, check_top_logprobs

NAMES = {
    "max_new_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    **{name: f"options.{name}" for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop")},
    **{name: f"options.{name}" for name in ("frequency_penalty", "presence_penalty")},
}
"""What `SamplingParams` are called here."""
_OFF = {"typical_p": 1.0, "tfs_z": 1.0, "mirostat": 0}


def room_of(options: Options) -> Room:
    """What a budget means: all that the context has room for, or at most that much."""
    return "fill" if options.num_predict < 0 else "cut"


def values_of(options: Options) -> dict[str, Any]:
    """Sampling parameters under `SamplingParams`' names.

    Raises:
        ApiError: 400: an option that does not exist here.
    """
    for name, off in _OFF.items():
        if getattr(options, name) not in (None, off):
            raise bad_request(f"options.{name} does not exist here", param=f"options.{name}")
    return {
        "max_new_tokens": max(options.num_predict, 1) if options.num_predict else 0,
        "temperature": options.temperature,
        "top_k": options.top_k or -1,
        "top_p": options.top_p or 1e-6,  # the likeliest token alone
        "min_p": options.min_p,
        "seed": None if options.seed is None or options.seed < 0 else options.seed,
        "stop": options.stop or None,
        "repetition_penalty": options.repeat_penalty if options.repeat_last_n else 1.0,
        "frequency_penalty": options.frequency_penalty,
        "presence_penalty": options.presence_penalty,
    }


def format_of(body: Common) -> list[Constraint]:
    """The constraint that `format` is."""
    if not body.format:
        return [] if body.format in ("", None) else [Constraint("format", "json_schema", body.format)]
    schema = ANY_OBJECT if body.format == "json" else body.format
    return [Constraint("format", "json_schema", schema)]


def logprobs_of(call: Call, body: Common) -> LogprobParams | None:
    """Which log-probabilities are wanted.

    Raises:
        ApiError: 400.
    """
    top = check_top_logprobs("top_logprobs", body.top_logprobs, call.server.config.limits)
    return LogprobParams(top=top) if body.logprobs else None


def check_model(call: Call, name: str | None) -> None:
    """Whether a body names the model that is served; its tag may be left out.

    Raises:
        ApiError: 404, unless `ServerConfig.any_model`.
    """
    config = call.server.config
    own = config.model_name
    if name not in (own, f"{own}:latest") and not config.any_model:
        shown = (name or "")[:200]
        raise ApiError(
            404, f"model {shown!r} not found; this server has {own!r} only", code="model_not_found"
        )


def check_thinking(call: Call, body: Common) -> None:
    """Raises ApiError: 400: reasoning is asked for, which models here do not do on request."""
    if body.think:
        raise bad_request(f"{call.server.config.model_name!r} does not support thinking", param="think")
