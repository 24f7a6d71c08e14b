"""What answers of completions and chats have in common: counts, reasons, and chunks that are cheap to make.

All chunks of an answer begin and end alike, so that is put into bytes once; for a token only its text is encoded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from sgl_like.runtime.protocol import FinishReason, Output
from sgl_like.runtime.protocol import Usage as Counts
from sgl_like.runtime.server.http.errors import ApiError, openai_body
from sgl_like.runtime.server.http.routes import Call

encode = msgspec.json.encode


class PromptDetails(msgspec.Struct, kw_only=True):
    """Of a prompt's tokens."""

    cached_tokens: int = 0


class CompletionDetails(msgspec.Struct, kw_only=True):
    """Of an output's tokens; `forced_tokens` were not sampled, since a constraint allowed nothing else."""

    forced_tokens: int = 0
    reasoning_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of all prompts and outputs of a call; a prompt with several outputs counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def usage_of(counts: Sequence[Counts], n: int) -> Usage:
    """The usage of a call from those of its requests, `n` for each prompt."""
    prompt = sum(each.prompt_tokens for each in counts[::n])
    completion = sum(each.completion_tokens for each in counts)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(each.cached_tokens for each in counts[::n])),
        completion_tokens_details=CompletionDetails(forced_tokens=sum(each.forced_tokens for each in counts)),
    )


def stop_reason(call: Call, finish: FinishReason) -> int | str | None:
    """vLLM's: the stop string or token; ``None`` for an end-of-sequence token."""
    matched = finish.matched
    return None if matched in call.server.tokenizer.eos_token_ids else matched


class Head:
    """What all chunks of an answer, or the whole answer, say.

    Args:
        call: that is answered.
        prefix: of the id.
        kind: OpenAI's ``object``.
        request_id: the client's own name for the answer.
    """

    def __init__(self, call: Call, prefix: str, kind: str, request_id: str | None) -> None:
        self.id = f"{prefix}-{request_id or call.id}"
        self.kind = kind
        self.created = int(time.time())
        self.model = call.server.config.model_name
        path = f"{self.model} {call.server.info.model_path}"
        self.system_fingerprint = f"fp_{hashlib.blake2b(path.encode(), digest_size=5).hexdigest()}"

    def fields(self) -> dict[str, Any]:
        """As fields of an answer."""
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


class Chunks:
    """Makes the chunks of a streamed answer.

    Args:
        head: what all of them say.
        n: outputs for each prompt.
        count: requests of the call.
        include: end with the usage; all chunks have the field then.
        continuous: have the usage so far in each chunk.
    """

    def __init__(self, head: Head, n: int, count: int, include: bool, continuous: bool) -> None:
        self._head = b"data: " + encode(head.fields())[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include else b"]}\n\n"
        self._include, self._continuous, self._n = include, continuous, n
        self._counts = [Counts() for _ in range(count)]
        self._begins = [self._head + b'{"index":%d,' % index for index in range(count)]

    def count(self, index: int, output: Output) -> None:
        """Take note of an output's usage."""
        self._counts[index] = output.usage

    def chunk(self, index: int, body: bytes) -> bytes:
        """A chunk for one output, of which `body` are the fields but ``index``, and the closing brace."""
        if self._continuous:
            return self._begins[index] + body + b'],"usage":' + encode(self._usage()) + b"}\n\n"
        return self._begins[index] + body + self._tail

    def end(self) -> bytes:
        """What comes last."""
        usage = self._head + b'],"usage":' + encode(self._usage()) + b"}\n\n" if self._include else b""
        return usage + b"data: [DONE]\n\n"

    def _usage(self) -> Usage:
        return usage_of(self._counts, self._n)


def failed(error: ApiError) -> bytes:
    """An error after the answer has begun: the last event, in place of ``[DONE]``."""
    return b"data: " + encode(openai_body(error)) + b"\n\n"


def json_string(text: str) -> bytes:
    """A text as JSON."""
    return orjson.dumps(text)
