"""``/v1/chat/completions``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sgl_like.runtime.logprobs import LogprobParams, PlaceLogprobs
from sgl_like.runtime.protocol import FinishReason, Output
from sgl_like.runtime.server.chat.plan import ChatPlan, plan_chat
from sgl_like.runtime.server.chat.reading import AnswerReader, Said
from sgl_like.runtime.server.generation import Generation
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.streaming import send_stream
from sgl_like.runtime.server.openai.chat_bodies import (
    AnswerCall,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatRequest,
    ChatResponse,
    check_chat,
)
from sgl_like.runtime.server.openai.chunks import (
    Chunks,
    Head,
    encode,
    failed,
    json_string,
    stop_reason,
    usage_of,
)
from sgl_like.runtime.server.openai.fields import NAMES, held_of, params_of
from sgl_like.runtime.server.openai.logprobs import chat_logprobs, prompt_logprobs
from sgl_like.runtime.server.openai.messages import template_messages, tool_use
from sgl_like.runtime.server.openai.models import check_model
from sgl_like.runtime.server.sampling import check_count, check_top_logprobs, make_requests

_ROLE = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
_TEXT, _TEXT_END = b'"delta":{"content":', b'},"logprobs":null,"finish_reason":null}'


async def chat(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    body = await call.body(ChatRequest)
    check_model(call, body.model)
    check_chat(body)
    limits = call.server.config.limits
    check_count("messages", 1, body.n, limits)
    top = check_top_logprobs("top_logprobs", body.top_logprobs, limits)
    of_prompt = check_top_logprobs("prompt_logprobs", body.prompt_logprobs, limits)
    plan = await _plan(call, body)
    names = NAMES if body.max_completion_tokens is None else _LONG_NAMES
    budget = call.server.info.context_length if body.budget is None else body.budget
    params = params_of(call, body, budget, dict(plan.held), names, plan.stop, plan.stop_token_ids)
    wanted: LogprobParams | None = None
    if body.logprobs or body.prompt_logprobs is not None:
        start = None if body.prompt_logprobs is None else 0
        wanted = LogprobParams(start=start, top=max(top, of_prompt))
    requests = make_requests(
        call,
        [plan.ids],
        params,
        room="fill" if body.budget is None else "refuse",
        logprobs=wanted,
        stream=bool(body.stream),
        priority=-body.priority,
        cache_salt=body.salt,
        param="messages",
    )
    answer = _Answer(call, body, plan, top)
    async with call.generate(requests) as generation:
        if body.stream:
            return await send_stream(call, answer.chunks(generation), failed)
        return json_response(answer.whole(await generation.all()))


_LONG_NAMES = NAMES | {"max_new_tokens": "max_completion_tokens"}


async def _plan(call: Call, body: ChatRequest) -> ChatPlan:
    plan = await plan_chat(
        call,
        template_messages(body.messages),
        use=tool_use(body.tools, body.tool_choice, body.parallel_tool_calls is not False),
        held=held_of(call, body),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        variables=body.variables,
        separate_reasoning=body.separate_reasoning,
    )
    last = body.truncate_prompt_tokens
    if last is not None:
        keep = call.server.info.context_length - (body.budget or 1) if last < 0 else last
        plan = plan.shortened(max(keep, 1))
    return plan


@dataclass(slots=True)
class _Voice:
    """One answer while it comes: its reader, and log-probabilities that no chunk has told yet."""

    reader: AnswerReader
    ids: list[str] = field(default_factory=list)  # of calls
    places: list[PlaceLogprobs] = field(default_factory=list)


class _Answer:
    """Makes the answer of one call.

    Args:
        call: that is answered.
        body: what was asked.
        plan: of the chat.
        top: likeliest tokens for each token.
    """

    def __init__(self, call: Call, body: ChatRequest, plan: ChatPlan, top: int) -> None:
        self._call = call
        self._body = body
        self._plan = plan
        self._top = top
        self._texts = call.server.token_texts
        kind = "chat.completion.chunk" if body.stream else "chat.completion"
        self._head = Head(call, "chatcmpl", kind, body.request_id)
        self._named = not isinstance(body.tool_choice, str | None) and body.tool_choice.type == "function"

    # -- at the end ---------------------------------------------------------------------------------------------

    def whole(self, found: Sequence[Sequence[Output]]) -> ChatResponse:
        """The answer at the end."""
        response = ChatResponse(
            **self._head.fields(),
            choices=[self._choice(index, outputs) for index, outputs in enumerate(found)],
            usage=usage_of([outputs[-1].usage for outputs in found], self._body.n),
        )
        if self._body.prompt_logprobs is not None:
            places = [place for output in found[0] for place in output.prompt_logprobs]
            response.prompt_logprobs = prompt_logprobs(self._texts, _cut(places, self._body.prompt_logprobs))
        if self._body.return_token_ids:
            response.prompt_token_ids = self._plan.ids
        return response

    def _choice(self, index: int, outputs: Sequence[Output]) -> ChatChoice:
        reader, finish = self._plan.reader(), outputs[-1].finish
        assert finish is not None
        said = reader.feed("".join(output.text for output in outputs), final=True)
        choice = ChatChoice(
            index=index,
            message=self._message(said),
            logprobs=None,
            finish_reason=self._reason(finish, reader),
            stop_reason=stop_reason(self._call, finish),
        )
        if self._body.logprobs:
            places = [place for output in outputs for place in output.output_logprobs]
            choice.logprobs = chat_logprobs(self._texts, _cut(places, self._top))
        if self._body.return_token_ids:
            choice.token_ids = [token for output in outputs for token in output.token_ids]
        return choice

    def _message(self, said: Sequence[Said]) -> AnswerMessage:
        text = self._echoed + "".join(each.text for each in said if each.kind == "text")
        reasoning = "".join(each.text for each in said if each.kind == "reasoning")
        calls: list[AnswerCall] = []
        for each in said:
            if each.kind == "call":
                calls.append(AnswerCall(id=_call_id(), function=CalledFunction(name=each.text, arguments="")))
            elif each.kind == "arguments":
                calls[each.call].function.arguments += each.text
        message = AnswerMessage(content=None if calls and not text.strip() else text)
        if reasoning and self._body.include_reasoning:
            message.reasoning_content = reasoning
        if calls:
            message.tool_calls = calls
        return message

    def _reason(self, finish: FinishReason, reader: AnswerReader) -> str:
        """OpenAI's: an answer with calls ends with ``"tool_calls"``, but ``"stop"`` if the function was named."""
        if finish.type == "stop" and reader.calls and not self._named:
            return "tool_calls"
        return finish.type

    @property
    def _echoed(self) -> str:
        """The beginning of an answer that the client gave."""
        if not (self._body.echo and self._body.continue_final_message):
            return ""
        return str(template_messages(self._body.messages[-1:])[0]["content"])

    # -- while it comes -----------------------------------------------------------------------------------------

    async def chunks(self, generation: Generation) -> AsyncGenerator[bytes, None]:
        """The answer while it comes."""
        body, options = self._body, self._body.stream_options
        count = len(generation.requests)
        chunks = Chunks(
            self._head,
            body.n,
            count,
            include=options is not None and options.include_usage,
            continuous=options is not None and options.continuous_usage_stats,
        )
        await generation.first()
        begin = self._begin()
        voices = [_Voice(self._plan.reader()) for _ in range(count)]
        simple = voices[0].reader.plain and not body.logprobs and not body.return_token_ids
        head = b"".join(chunks.chunk(index, begin) for index in range(count))
        yield head
        async for parts in generation:
            data: list[bytes] = []
            for index, output in parts:
                chunks.count(index, output)
                if simple and output.finish is None:
                    data.append(chunks.chunk(index, _TEXT + json_string(output.text) + _TEXT_END))
                else:
                    data += [chunks.chunk(index, each) for each in self._part(voices[index], output)]
            if data:
                yield b"".join(data)
        yield chunks.end()

    def _begin(self) -> bytes:
        ids = b',"prompt_token_ids":' + encode(self._plan.ids) if self._body.return_token_ids else b""
        if self._echoed:
            delta = encode({"role": "assistant", "content": self._echoed})
            return b'"delta":' + delta + b',"logprobs":null,"finish_reason":null' + ids + b"}"
        return _ROLE + ids + b"}"

    def _part(self, voice: _Voice, output: Output) -> list[bytes]:
        """The chunks that an output becomes, without their heads."""
        finish = output.finish
        if self._body.logprobs:
            voice.places += _cut(output.output_logprobs, self._top)
        said = voice.reader.feed(output.text, final=finish is not None)
        deltas = [delta for each in said if (delta := self._delta(voice, each)) is not None]
        found = [self._fields(voice, delta) for delta in deltas]
        if finish is not None:
            last = self._fields(voice, {})
            reason = self._reason(finish, voice.reader)
            found.append(last | {"finish_reason": reason, "stop_reason": stop_reason(self._call, finish)})
        if self._body.return_token_ids and output.token_ids:
            found = found or [self._fields(voice, {})]
            found[0]["token_ids"] = output.token_ids
        return [encode(each)[1:] for each in found]

    def _fields(self, voice: _Voice, delta: dict[str, Any]) -> dict[str, Any]:
        places, voice.places = voice.places, []
        told = chat_logprobs(self._texts, places) if places else None
        return {"delta": delta, "logprobs": told, "finish_reason": None}

    def _delta(self, voice: _Voice, said: Said) -> dict[str, Any] | None:
        match said.kind:
            case "text":
                return {"content": said.text}
            case "reasoning":
                return {"reasoning_content": said.text} if self._body.include_reasoning else None
            case "call":
                voice.ids.append(_call_id())
                function = {"name": said.text, "arguments": ""}
                started = {"index": said.call, "id": voice.ids[-1], "type": "function", "function": function}
                return {"tool_calls": [started]}
            case "arguments":
                return {"tool_calls": [{"index": said.call, "function": {"arguments": said.text}}]}


def _cut(places: Sequence[PlaceLogprobs], top: int) -> list[PlaceLogprobs]:
    """Places with as many of the likeliest tokens as were asked for."""
    return [place if len(place.top) <= top else place._replace(top=place.top[:top]) for place in places]


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        chat,
        "Answer a conversation",
        body=ChatRequest,
        response=ChatResponse,
        streams=True,
    ),
)
