"""One answer to a conversation, which is what the APIs besides OpenAI's older ones have: the way there and back.

Ask  ── prepare ──>  a request, a reader  ── steps ──>  what is said, and the engine's output that said it
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.server.chat.plan import ChatPlan, ToolUse, plan_chat
from sgl_like.runtime.server.chat.reading import AnswerReader, Said
from sgl_like.runtime.server.constraints import Constraint, constraint_params
from sgl_like.runtime.server.generation import Generation
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.sampling import Room, make_params, make_requests

_TOO_LONG = "context_length_exceeded"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a body asks for, whatever its API.

    Args:
        messages: in OpenAI's format; contents are strings, arguments of calls are objects.
        values: sampling parameters under `SamplingParams`' names; ``None`` means the default.
        names: what the client calls them, where that differs.
        use: functions.
        constraints: that hold the output.
        room: see `Room`.
        logprobs: which log-probabilities are wanted.
        resume: the answer goes on from the last message.
        before: token ids that stand before the conversation.
        param: what the client calls the conversation.
    """

    messages: Sequence[Mapping[str, Any]]
    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    use: ToolUse | None = None
    constraints: Sequence[Constraint] = ()
    room: Room = "cut"
    logprobs: LogprobParams | None = None
    resume: bool = False
    before: Sequence[int] = ()
    param: str = "messages"


class Turn(NamedTuple):
    """An `Ask` that is ready to run.

    Args:
        request: for the engine. Its outputs come as they are made, also for answers that are sent as a whole.
        plan: where the request comes from.
    """

    request: GenerateRequest
    plan: ChatPlan


class Step(NamedTuple):
    """What an output of the engine adds to the answer."""

    said: list[Said]
    output: Output


async def prepare(call: Call, ask: Ask) -> Turn:
    """Check everything, and make the prompt.

    Raises:
        ApiError: 400.
    """
    limits, info = call.server.config.limits, call.server.info
    make_params(ask.values, limits, info.vocab_size, ask.names)  # refused before anything is rendered
    plan = await plan_chat(
        call,
        ask.messages,
        use=ask.use,
        held=constraint_params(ask.constraints, limits),
        continue_final_message=ask.resume,
        separate_reasoning=False,
        param=ask.param,
    )
    stops = ask.values.get("stop") or ()
    own = (stops,) if isinstance(stops, str) else tuple(stops)
    values = {
        **ask.values,
        **plan.held,
        "stop": (*own, *plan.stop),
        "stop_token_ids": plan.stop_token_ids,
    }
    params = make_params(values, limits, info.vocab_size, ask.names)
    (request,) = make_requests(
        call,
        [[*ask.before, *plan.ids]],
        params,
        room=ask.room,
        logprobs=ask.logprobs,
        stream=True,
        param=ask.param,
    )
    return Turn(request, plan)


async def prepare_cut(call: Call, ask: Ask) -> Turn:
    """The same; from a conversation that is too long the oldest messages are left out, but for a system message.

    Raises:
        ApiError: 400.
    """
    system = [message for message in ask.messages[:1] if message["role"] == "system"]
    rest = ask.messages[len(system) :]
    chars = call.server.info.context_length * call.server.tokenizer.longest_token
    rest = rest[-max(1, _fitting(rest, chars)) :]  # what is left out without a look at its tokens
    try:
        return await prepare(call, replace(ask, messages=[*system, *_from_user(rest)]))
    except ApiError as error:
        if error.code != _TOO_LONG:
            raise
        problem = error
    low, high, turn = 1, len(rest) - 1, None  # how many are left out: the fewest that make it fit
    while low <= high:
        out = (low + high) // 2
        try:
            turn = await prepare(call, replace(ask, messages=[*system, *_from_user(rest[out:])]))
            high = out - 1
        except ApiError as error:
            low = out + 1
            if error.code != _TOO_LONG:
                raise
            problem = error
    if turn is None:
        raise problem
    return turn


def _fitting(messages: Sequence[Mapping[str, Any]], chars: int) -> int:
    """How many of the last messages have at most so many characters."""
    for count, message in enumerate(reversed(messages)):
        chars -= len(message["content"] or "")
        if chars < 0:
            return count
    return len(messages)


def _from_user(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """From the first message of the user on, so that no result stands there without its call."""
    first = next((at for at, message in enumerate(messages) if message["role"] == "user"), 0)
    return messages[first:]


async def steps(generation: Generation, reader: AnswerReader) -> AsyncIterator[Step]:
    """What comes of a generation of one request. One that is aborted ends as it does, with what there is.

    Raises:
        SglError: it failed.
    """
    async for parts in generation:
        for _, output in parts:
            yield Step(reader.feed(output.text, output.is_terminal), output)
