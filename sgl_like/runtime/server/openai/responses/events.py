"""A response while it comes into being: what its object says at any time, and the events that tell of each change.

    response.created, response.in_progress
    output_item.added (message), content_part.added
        output_text.delta ...
    output_text.done, content_part.done, output_item.done
    output_item.added (function_call)
        function_call_arguments.delta ...
    function_call_arguments.done, output_item.done
    response.completed | response.incomplete | response.failed

An item is open until the next one begins or the response ends. Answers that are not streamed are made in the same way,
and nobody sends the events.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from sgl_like.runtime.protocol import Usage
from sgl_like.runtime.server.openai.responses.items import new_id

Event = dict[str, Any]
Status = Literal["completed", "incomplete", "failed", "cancelled"]
_LAST: dict[Status, str] = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.incomplete",
}


class ResponseBuilder:
    """Builds a response from the pieces of an answer.

    Args:
        response: its object with everything that the request says about it; this builder fills in the rest.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._number = 0
        self._open: dict[str, Any] | None = None

    @property
    def in_text(self) -> bool:
        """Whether the item that is open is a message."""
        return self._open is not None and self._open["type"] == "message"

    def begin(self) -> list[Event]:
        """The response exists and is being worked on."""
        return self._events([self._whole("response.created"), self._whole("response.in_progress")])

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> list[Event]:
        """More text."""
        return self._events(self._text(text, logprobs or []))

    def call(self, name: str) -> list[Event]:
        """A function call begins."""
        return self._events(self._call(name))

    def arguments(self, text: str) -> list[Event]:
        """More of the arguments of the call that began last."""
        return self._events(self._arguments(text))

    def end(
        self,
        status: Status,
        usage: Usage | None = None,
        *,
        reason: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> list[Event]:
        """The response is over.

        Args:
            status: how it ended; ``cancelled`` is told by the event ``response.incomplete``.
            usage: what it took.
            reason: why it is incomplete.
            error: why it failed.
        """
        return self._events(self._end(status, usage, reason, error))

    def _events(self, events: Iterable[Event]) -> list[Event]:
        found = list(events)
        for event in found:
            event["sequence_number"] = self._number
            self._number += 1
        return found

    def _whole(self, kind: str) -> Event:
        return {"type": kind, "response": copy.deepcopy(self.response)}

    @property
    def _at(self) -> int:
        return len(self.response["output"]) - 1

    def _add(self, item: dict[str, Any]) -> Event:
        self._open = item
        self.response["output"].append(item)
        return {
            "type": "response.output_item.added",
            "output_index": self._at,
            "item": copy.deepcopy(item),
        }

    def _in_part(self, kind: str, **values: Any) -> Event:
        assert self._open is not None
        return {
            "type": kind,
            "item_id": self._open["id"],
            "output_index": self._at,
            "content_index": 0,
            **values,
        }

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if not self.in_text:
            yield from self._close("completed")
            yield self._add(_message())
            part = _part()
            assert self._open is not None
            self._open["content"].append(part)
            yield self._in_part("response.content_part.added", part=copy.deepcopy(part))
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        part["logprobs"] += logprobs
        if text or logprobs:
            yield self._in_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _call(self, name: str) -> Iterator[Event]:
        yield from self._close("completed")
        yield self._add(
            {
                "type": "function_call",
                "id": new_id("fc"),
                "call_id": new_id("call"),
                "name": name,
                "arguments": "",
                "status": "in_progress",
            }
        )

    def _arguments(self, text: str) -> Iterator[Event]:
        assert self._open is not None and self._open["type"] == "function_call"
        self._open["arguments"] += text
        if text:
            yield {
                "type": "response.function_call_arguments.delta",
                "item_id": self._open["id"],
                "output_index": self._at,
                "delta": text,
            }

    def _close(self, status: str) -> Iterator[Event]:
        item, at = self._open, self._at
        if item is None:
            return
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            yield self._in_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            yield self._in_part("response.content_part.done", part=copy.deepcopy(part))
        else:
            yield {
                "type": "response.function_call_arguments.done",
                "item_id": item["id"],
                "output_index": at,
                "name": item["name"],
                "arguments": item["arguments"],
            }
        yield {"type": "response.output_item.done", "output_index": at, "item": copy.deepcopy(item)}
        self._open = None

    def _end(
        self, status: Status, usage: Usage | None, reason: str | None, error: dict[str, Any] | None
    ) -> Iterator[Event]:
        if not self.response["output"] and status == "completed":
            yield from self._text("", [])  # an answer without a word is an empty message
        yield from self._close("completed" if status == "completed" else "incomplete")
        self.response["status"] = status
        self.response["error"] = error
        self.response["incomplete_details"] = None if reason is None else {"reason": reason}
        self.response["usage"] = None if usage is None else usage_of(usage)
        if status == "completed":
            self.response["completed_at"] = int(time.time())
        yield self._whole(_LAST[status])


def usage_of(usage: Usage) -> dict[str, Any]:
    """Token counts under OpenAI's names."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _message() -> dict[str, Any]:
    return {
        "type": "message",
        "id": new_id("msg"),
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }


def _part() -> dict[str, Any]:
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
