"""How one kind of endpoint is spoken to: where a prompt goes in a request, and what its answers mean.

A wire knows nothing of parameters: their names differ from engine to engine on the same wire (`dialect`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgl_like.frontend.backend.remote.codec import Prompt
from sgl_like.runtime.logprobs import PlaceLogprobs
from sgl_like.runtime.protocol import FinishReason, Usage

__all__ = ["Answer", "Piece", "Wire", "finish_of", "usage_of"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream, or a whole response, adds to an output."""

    text: str = ""
    reasoning: str = ""  # what the engine has told from the text
    token_ids: tuple[int, ...] = ()  # of the engine's vocabulary, where it says them
    finish: FinishReason | None = None
    usage: Usage | None = None  # of the request so far
    prompt_logprobs: tuple[PlaceLogprobs, ...] = ()
    output_logprobs: tuple[PlaceLogprobs, ...] = ()
    forced: tuple[int, ...] = ()  # places in `token_ids` of tokens that a constraint forced


class Answer(ABC):
    """Reads the events of one response in order."""

    @abstractmethod
    def read(self, event: Mapping[str, Any]) -> Piece:
        """What `event` adds. A response that is not streamed is one event."""


class Wire(ABC):
    """One kind of endpoint."""

    chat = False  # whether it takes messages
    json_lines = False  # a stream is one JSON text a line, not server-sent events
    only_streams = False  # ask for a stream even where nobody reads along

    @abstractmethod
    def path(self, stream: bool) -> str:
        """Below the base URL."""

    @abstractmethod
    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """The request, apart from parameters."""

    @abstractmethod
    def answer(self, body: Mapping[str, Any]) -> Answer:
        """A reader for the response to `body`."""


def finish_of(reason: str | None, matched: Any = None) -> FinishReason | None:
    """The finish reason that any of the engines means by `reason`; ``None`` while there is none."""
    if reason is None or reason == "none":
        return None
    if reason in ("length", "max_tokens", "limit", "model_context_window_exceeded"):
        return FinishReason("length")
    if reason in _STOPS:
        return FinishReason("stop", matched if isinstance(matched, int | str) and matched != "" else None)
    return FinishReason("error", message=f"the server ended the output: {reason}")


_STOPS = frozenset(
    {
        "stop",
        "eos",
        "eos_token",
        "stop_sequence",
        "word",
        "end_turn",
        "tool_calls",
        "function_call",
        "stop_token",
    }
)


def usage_of(usage: Mapping[str, Any] | None) -> Usage | None:
    """OpenAI's ``usage`` object."""
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )
