"""An answer of Anthropic's API while it comes into being: its message at any time, and the events that tell of it.

    message_start
    content_block_start (text), ping, content_block_delta (text_delta) ..., content_block_stop
    content_block_start (tool_use), content_block_delta (input_json_delta) ..., content_block_stop
    message_delta (stop_reason, usage), message_stop

Answers that are not streamed are made in the same way, and nobody sends the events.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import orjson

from sgl_like.runtime.protocol import FinishReason, Usage

Event = dict[str, Any]


class MessageBuilder:
    """Builds a message from the pieces of an answer.

    Args:
        id: of the message.
        model: what the client calls the model.
    """

    def __init__(self, id: str, model: str) -> None:
        self.message: dict[str, Any] = {
            "id": f"msg_{id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(Usage()),
        }
        self._arguments: str | None = None  # of the call that is open
        self._open = False

    def begin(self, usage: Usage) -> Iterator[Event]:
        """The model has begun; `usage` tells of the prompt."""
        self.message["usage"] = usage_of(usage)
        yield {"type": "message_start", "message": copy.deepcopy(self.message)}

    def text(self, text: str) -> Iterator[Event]:
        """More text."""
        if not self._open or self._arguments is not None:
            yield from self._close()
            yield from self._add({"type": "text", "text": ""})
        self.message["content"][-1]["text"] += text
        if text:
            yield self._delta({"type": "text_delta", "text": text})

    def call(self, name: str) -> Iterator[Event]:
        """A call of a tool begins."""
        yield from self._close()
        yield from self._add(
            {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": name, "input": {}}
        )
        self._arguments = ""

    def arguments(self, text: str) -> Iterator[Event]:
        """More of the arguments of the call that began last."""
        assert self._arguments is not None
        self._arguments += text
        if text:
            yield self._delta({"type": "input_json_delta", "partial_json": text})

    def end(self, reason: str, matched: str | None, usage: Usage) -> Iterator[Event]:
        """The answer is over.

        Args:
            reason: see `stop_reason`.
            matched: the stop sequence that ended it.
            usage: what it took.
        """
        yield from self._close()
        self.message |= {"stop_reason": reason, "stop_sequence": matched, "usage": usage_of(usage)}
        delta = {"stop_reason": reason, "stop_sequence": matched}
        yield {"type": "message_delta", "delta": delta, "usage": usage_of(usage)}
        yield {"type": "message_stop"}

    @property
    def has_calls(self) -> bool:
        """Whether a tool was called."""
        return any(block["type"] == "tool_use" for block in self.message["content"])

    def _add(self, block: dict[str, Any]) -> Iterator[Event]:
        first = not self.message["content"]
        self.message["content"].append(block)
        self._open = True
        yield {"type": "content_block_start", "index": self._at, "content_block": copy.deepcopy(block)}
        if first:
            yield {"type": "ping"}

    def _close(self) -> Iterator[Event]:
        if not self._open:
            return
        if self._arguments is not None:
            self.message["content"][-1]["input"] = _object(self._arguments)
            self._arguments = None
        self._open = False
        yield {"type": "content_block_stop", "index": self._at}

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._at, "delta": delta}

    @property
    def _at(self) -> int:
        return len(self.message["content"]) - 1


def stop_reason(finish: FinishReason, calls: bool, full: bool) -> tuple[str, str | None]:
    """Why an answer ended, and the stop sequence if it was one.

    An answer that the server ended because it stops itself is ``"pause_turn"``: sent back as it is, it goes on.

    Args:
        finish: the engine's reason.
        calls: whether a tool was called.
        full: whether the context is full.
    """
    if finish.type == "length":
        return ("model_context_window_exceeded" if full else "max_tokens"), None
    if finish.type == "abort":
        return "pause_turn", None
    if isinstance(finish.matched, str):
        return "stop_sequence", finish.matched
    return ("tool_use" if calls else "end_turn"), None


def usage_of(usage: Usage) -> dict[str, int]:
    """Token counts under Anthropic's names; those from the cache are not among ``input_tokens``."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _object(text: str) -> dict[str, Any]:
    """Arguments as an object; of those that were cut off, nothing is left."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
