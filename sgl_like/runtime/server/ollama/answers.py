"""``/api/chat`` and ``/api/generate``: a conversation or a prompt to lines of JSON, or to one object."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson
from aiohttp import web

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.server.chat.logprobs import token_logprobs
from sgl_like.runtime.server.chat.reading import AnswerReader, Said
from sgl_like.runtime.server.chat.single import steps
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.http.streaming import json_line, send_stream
from sgl_like.runtime.server.ollama.bodies import Common
from sgl_like.runtime.server.ollama.errors import ollama_body
from sgl_like.runtime.server.ollama.lines import HEADERS, Clock, last_line
from sgl_like.runtime.server.ollama.models import timestamp
from sgl_like.runtime.server.openai.logprobs import TokenTexts


class Shape:
    """What lines look like.

    Args:
        model: what the client calls the model.
        chat: whether the answer is a message.
    """

    def __init__(self, model: str, chat: bool) -> None:
        self.model, self.chat = model, chat

    def line(self, text: str = "", calls: Sequence[dict[str, Any]] = (), **fields: Any) -> dict[str, Any]:
        """A line that adds some text and calls."""
        answer: dict[str, Any] = {"response": text}
        if self.chat:
            answer = {"message": {"role": "assistant", "content": text}}
            if calls:
                answer["message"]["tool_calls"] = list(calls)
        return {"model": self.model, "created_at": timestamp(time.time()), **answer, **fields}

    def whole(self, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All lines of an answer as one."""
        found = dict(lines[-1])
        for name in ("logprobs",):
            listed = [each for line in lines for each in line.get(name, ())]
            if listed:
                found[name] = listed
        if not self.chat:
            return found | {"response": "".join(line["response"] for line in lines)}
        messages = [line["message"] for line in lines]
        message = {"role": "assistant", "content": "".join(each["content"] for each in messages)}
        calls = [call for each in messages for call in each.get("tool_calls", ())]
        return found | {"message": message | ({"tool_calls": calls} if calls else {})}


async def answer(
    call: Call,
    body: Common,
    request: GenerateRequest,
    reader: AnswerReader,
    shape: Shape,
    *,
    context: bool = False,
) -> web.StreamResponse:
    """Run a request, and answer with what comes of it.

    Args:
        call: whose answer it is.
        body: says whether it is streamed, which it is unless told otherwise.
        request: for the engine.
        reader: of its output.
        shape: of the answer.
        context: whether the ids of prompt and output are told.
    """
    lines = _lines(call, body, request, reader, shape, context)
    if body.stream is not False:
        return await send_stream(call, _sent(lines), _failure, HEADERS, ping=b"")
    async with aclosing(lines):
        return json_response(shape.whole([line async for line in lines if line is not None]))


def loaded(body: Common, shape: Shape) -> web.StreamResponse:
    """The answer to a body without a prompt, which is about loading the model and nothing else; it is loaded."""
    reason = "unload" if body.keep_alive in (0, "0", "0s", "0m", "0h") else "load"
    return json_response(shape.line(done=True, done_reason=reason))


async def _lines(
    call: Call,
    body: Common,
    request: GenerateRequest,
    reader: AnswerReader,
    shape: Shape,
    context: bool,
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """The lines of an answer; first of all ``None`` when it is clear that there will be any."""
    clock, begun, ids, calls = Clock(call.received), False, list(request.input_ids), _Calls()
    texts = TokenTexts(call.server.tokenizer)
    async with call.generate([request]) as generation:
        await generation.first()
        yield None
        async for said, output in steps(generation, reader):
            if not begun:
                clock.first()
                begun = True
            ids += output.token_ids
            text, done = calls.take(said, output.finish is not None)
            fields: dict[str, Any] = {"done": False}
            if body.logprobs and (logprobs := token_logprobs(texts, output)):
                fields["logprobs"] = logprobs
            if text or done or "logprobs" in fields:
                yield shape.line(text, done, **fields)
            if output.finish is not None:
                last = last_line(output.finish, output.usage, clock)
                told: dict[str, Any] = {"context": ids} if context else {}
                yield shape.line(**last, **told)


async def _sent(lines: AsyncGenerator[dict[str, Any] | None, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(lines):
        async for line in lines:
            yield b"" if line is None else json_line(line)


def _failure(error: ApiError) -> bytes:
    return json_line(ollama_body(error))


class _Calls:
    """Puts calls together, which are told as a whole. One that was cut off is not told."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._arguments = ""
        self._count = 0

    def take(self, said: Sequence[Said], last: bool) -> tuple[str, list[dict[str, Any]]]:
        """Text, and the calls that are complete now."""
        text, done = "", []
        for each in said:
            match each.kind:
                case "call":
                    done += self._finish()
                    self._name = each.text
                case "arguments":
                    self._arguments += each.text
                case "text":
                    done += self._finish()
                    text += each.text
        if last:
            done += self._finish()
        return text, done

    def _finish(self) -> list[dict[str, Any]]:
        name, arguments = self._name, _object(self._arguments)
        self._name, self._arguments = None, ""
        if name is None or arguments is None:
            return []
        self._count += 1
        return [{"function": {"index": self._count - 1, "name": name, "arguments": arguments}}]


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
