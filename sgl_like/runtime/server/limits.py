"""What a client may ask for at most. All of it is checked before the engine hears of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from sgl_like.errors import ConfigError

MAY_BE_ZERO = frozenset(
    {
        "stop",
        "stop_regex",
        "top_logprobs",
        "logit_bias",
        "bad_words",
        "queue_requests",
        "queue_tokens",
        "stored_bytes",
    }
)
"""Limits that may forbid something altogether."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on requests; `ServerConfig` has them as options.

    Args:
        body_bytes: of a request's body.
        header_bytes: of all headers.
        headers: number of headers.
        header_seconds: until the headers are there.
        body_seconds: until the body is there.
        keep_alive_seconds: that a connection stays open without a request.
        prompts: in one call.
        n: outputs for one prompt.
        sequences: prompts times `n`.
        stop: number of stop strings, and `stop_bytes` of each.
        stop_regex: number of stop regexes, and `stop_regex_bytes` of each.
        top_logprobs: for each token.
        logit_bias: number of tokens with a bias.
        bad_words: number of them.
        schema_bytes: of a JSON Schema, with at most `schema_depth` levels and `schema_nodes` values in it.
        regex_bytes: of a regex.
        ebnf_bytes: of a grammar, with at most `ebnf_depth` levels of brackets.
        choices: number of choices, and `choice_bytes` of each.
        compile_seconds: for one constraint.
        template_seconds: to render a chat template.
        template_bytes: of a rendered conversation.
        queue_requests: sequences that wait; beyond, requests are refused. ``None``: 4 for each that may run.
        queue_tokens: tokens that wait (prompt and output); beyond, requests are refused. ``None``: no such limit.
        queue_seconds: that a request may wait for its first token.
        run_seconds: that a request may take.
        stream_bytes: that a stream keeps for a client that does not read.
        stream_seconds: that a stream waits for such a client.
        stored_bytes: of responses that are kept for a tenant, to be gone on from.
    """

    body_bytes: int = 8 * 1024 * 1024
    header_bytes: int = 8 * 1024
    headers: int = 64
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive_seconds: float = 15.0
    prompts: int = 128
    n: int = 64
    sequences: int = 256
    stop: int = 16
    stop_bytes: int = 256
    stop_regex: int = 4
    stop_regex_bytes: int = 256
    top_logprobs: int = 20
    logit_bias: int = 1024
    bad_words: int = 128
    schema_bytes: int = 64 * 1024
    schema_depth: int = 64
    schema_nodes: int = 10_000
    regex_bytes: int = 4 * 1024
    ebnf_bytes: int = 8 * 1024
    ebnf_depth: int = 200
    choices: int = 256
    choice_bytes: int = 1024
    compile_seconds: float = 5.0
    template_seconds: float = 2.0
    template_bytes: int = 1024 * 1024
    queue_requests: int | None = None
    queue_tokens: int | None = None
    queue_seconds: float = 60.0
    run_seconds: float = 600.0
    stream_bytes: int = 1024 * 1024
    stream_seconds: float = 20.0
    stored_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Everything is above 0, but for what may be turned off with it."""
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in MAY_BE_ZERO else 1
            if value is not None and field.type == "float" and not 0 < value < math.inf:
                raise ConfigError(f"limit {field.name} must be a number of seconds above 0, not {value!r}")
            if (
                value is not None
                and field.type != "float"
                and not (isinstance(value, int) and value >= least)
            ):
                raise ConfigError(f"limit {field.name} must be an integer of at least {least}, not {value!r}")
