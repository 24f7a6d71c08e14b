"""What front and engine process say to each other: msgpack by msgspec, over a pair of Unix sockets that
has no path, so that nobody else can connect. Nothing is pickled.

    front  ──  Start, Submit, Abort, Ask, Ping, Stop  ──>  engine
    front  <──  Ready or Failed, Outputs, Answer, Pong  ──  engine

A frame is its length in 4 bytes, most significant first, and then one message. Requests and outputs are those of
`runtime/protocol.py` as they are; an error crosses as the name of its class in `sgl_like.errors` and its message.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sgl_like import errors
from sgl_like.errors import EngineError, SglError
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.server.config import StubConfig

MAX_FRAME = 64 * 1024 * 1024
"""Bytes of the longest frame that is read; a longer one ends the connection."""

Question = Literal["stats", "flush_cache", "check_invariants", "tree"]


class EngineInfo(msgspec.Struct, frozen=True):
    """What does not change while an engine process lives.

    Args:
        model_path: the model's folder.
        vocab_size: of its logits.
        context_length: longest sequence.
        kv_slots: tokens that the KV pool holds.
        pid: the engine's process.
        options: the engine's options as resolved.
    """

    model_path: str
    vocab_size: int
    context_length: int
    kv_slots: int
    max_running_requests: int
    pid: int
    options: dict[str, Any] = {}


class Start(msgspec.Struct, tag="start", frozen=True):
    """The first message: which engine to be.

    Args:
        model: folder or hub id; ``None`` is the embedded model.
        options: fields of `EngineConfig`.
        stub: what it is to pretend if it is the stub engine.
        compile_seconds: that a constraint may take when it is seen for the first time.
        log_level: see `ServerConfig`, as for the next one.
        log_format: its lines look like the front's.
    """

    model: str | None = None
    options: dict[str, Any] = {}
    stub: StubConfig | None = None
    compile_seconds: float = 5.0
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """End in good order."""


class Submit(msgspec.Struct, tag="submit", frozen=True):
    """Run a request. What is wrong with it comes back as its terminal output."""

    request: GenerateRequest


class Abort(msgspec.Struct, tag="abort", frozen=True):
    """End requests early."""

    rids: list[str]


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """A question about the engine as a whole; its `Answer` has the same number."""

    number: int
    what: Question
    arguments: dict[str, Any] = {}


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Are you there?"""

    number: int


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The model is loaded and warm."""

    info: EngineInfo


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """There will be no engine; the process ends."""

    error: SglError


class Outputs(msgspec.Struct, tag="outputs", frozen=True):
    """Events of requests, in their order."""

    outputs: list[Output]


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """To an `Ask`; or what went wrong with it."""

    number: int
    value: Any = None
    error: SglError | None = None


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """To a `Ping`. `busy_s` is how long the engine's step has been running by now; 0 when it waits for work."""

    number: int
    busy_s: float = 0.0


ToEngine = Start | Stop | Submit | Abort | Ask | Ping
ToFront = Ready | Failed | Outputs | Answer | Pong


def error_of(name: str, message: str) -> SglError:
    """An error of the class `name`, or a plain `EngineError` if there is no such class that takes a message."""
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    if kind is None:
        return EngineError(message)
    error: SglError = kind.__new__(kind)  # some have arguments of their own, which stay behind
    Exception.__init__(error, message)
    return error


def encode_error(value: Any) -> Any:
    """The hook of msgspec for what it cannot write."""
    if isinstance(value, SglError):
        return (type(value).__name__, str(value))
    raise NotImplementedError(f"{type(value).__name__} does not cross between processes")


def decode_error(kind: type, value: Any) -> Any:
    """The hook of msgspec for what it cannot read."""
    if kind is SglError:
        name, message = value
        return error_of(name, message)
    raise NotImplementedError(f"{kind.__name__} does not cross between processes")


def plain_error(error: BaseException) -> SglError:
    """`error` as one that can cross: of those that nobody foresaw, nothing but that there was one."""
    return error if isinstance(error, SglError) else EngineError("the engine failed")


encoder = msgspec.msgpack.Encoder(enc_hook=encode_error)
engine_decoder = msgspec.msgpack.Decoder(ToEngine, dec_hook=decode_error)
front_decoder = msgspec.msgpack.Decoder(ToFront, dec_hook=decode_error)
