"""A backend without a model: answers are scripted, tokens are words, events come from its own thread at random.

Text is cut into words with their leading blank, so that tokens depend on what is joined (``"is "`` + ``"yes"`` is
``"is"``, ``" yes"``), as in a real vocabulary. What is *sampled* comes one character per token instead: whoever
tokenises sampled text again gets other ids. Between two events of one request come those of others, in an order
drawn from `seed`.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sgl_like.errors import ChatTemplateError, EngineError, RequestError, SglError
from sgl_like.frontend.backend.base import Backend, Segment, Sink, ToolForm
from sgl_like.runtime.protocol import FinishReason, Output, Usage, new_request_id
from sgl_like.runtime.sampling_params import SamplingParams

SPECIAL = re.compile(r"(<\|[a-z]+\|>)")
WORD = re.compile(r" ?\w+|\s|[^\w\s]")
LACKS = {"frequency_penalty", "presence_penalty", "min_new_tokens", "stop_regex"}
ROLES = ("system", "user", "assistant")


@dataclass(eq=False)
class Call:
    """One request, as the backend saw it."""

    prompt: str
    ids: tuple[int, ...]
    params: Mapping[str, Any]
    choices: tuple[tuple[int, ...], ...] | None
    sink: Sink
    rid: str = field(default_factory=new_request_id)
    events: list[Output] = field(default_factory=list)
    cancelled: bool = False
    sampled: tuple[int, ...] = ()

    def cancel(self) -> None:
        self.cancelled = True


Answer = str | Exception


class FakeBackend(Backend):
    """Answers with ``respond(call)``: a text, or an error: a RequestError is raised by submit, others come as events.

    Args:
        respond: the script; by default the number of requests so far.
        logprob: log-probability of a token's text after a prefix.
        bos: text of a beginning-of-sequence token.
        seed: of the order of events.
        tool_form: of its chat template.
    """

    def __init__(
        self,
        respond: Callable[[Call], Answer] | None = None,
        logprob: Callable[[str, str], float] = lambda prefix, token: -1.0,
        bos: str | None = None,
        seed: int = 0,
        tool_form: ToolForm | None = None,
    ) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.max_threads = 0
        self._respond = respond or (lambda call: f"answer {len(self.calls)}")
        self._logprob = logprob
        self._bos = bos
        self._tool_form = tool_form
        self._texts: list[str] = []
        self._ids: dict[tuple[str, bool], int] = {}
        self._random = random.Random(seed)
        self._condition = threading.Condition()
        self._pending: list[Call] = []
        self._held: Callable[[Call], bool] = lambda call: False
        self._thread: threading.Thread | None = None
        self.closed = False

    @property
    def model_name(self) -> str:
        return "fake"

    @property
    def supported_params(self) -> frozenset[str]:
        return frozenset(field.name for field in fields(SamplingParams)) - LACKS

    # -- tokens ---------------------------------------------------------------------------------------------

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        ids: list[int] = []
        if start and self._bos:
            ids.append(self._id(self._bos, special=True))
        plain = ""
        for text, trusted, _ in segments:
            for part in SPECIAL.split(text) if trusted else [text]:
                if trusted and SPECIAL.fullmatch(part):
                    ids += self._words(plain)
                    plain = ""
                    ids.append(self._id(part, special=True))
                else:
                    plain += part
        return ids + self._words(plain)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[token] for token in ids)

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str]:
        texts = [self._texts[token] for token in ids]
        return [
            text if self.is_special(token) else text.encode("utf-8", "surrogatepass")
            for token, text in zip(ids, texts, strict=True)
        ]

    def is_special(self, token: int) -> bool:
        return self._ids.get((self._texts[token], True)) == token

    def _words(self, text: str) -> list[int]:
        return [self._id(word) for word in WORD.findall(text)]

    def _id(self, text: str, special: bool = False) -> int:
        with self._condition:
            if (text, special) not in self._ids:
                self._ids[text, special] = len(self._texts)
                self._texts.append(text)
            return self._ids[text, special]

    @property
    def tool_form(self) -> ToolForm | None:
        return self._tool_form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        if role not in ROLES:
            raise ChatTemplateError(f"unknown role {role!r}")
        return f"<|{role}|>", "<|end|>"

    # -- requests -------------------------------------------------------------------------------------------

    def submit(self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool) -> Call:
        checked = SamplingParams.from_dict(params)
        call = Call(self.decode(prompt_ids), tuple(prompt_ids), params, None, sink)
        with self._condition:
            self.calls.append(call)
        answer = self._respond(call)
        if isinstance(answer, RequestError):
            raise answer
        if isinstance(answer, Exception):
            error = answer if isinstance(answer, SglError) else EngineError(str(answer))
            finish = FinishReason("error", message=str(error))
            half = Output(call.rid, "half", self._chars("half"))
            call.events = [*([half] if stream else []), Output(call.rid, finish=finish, error=error)]
        else:
            call.events = self._events(call, answer, checked, stream)
        return self._queue(call)

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Call:
        assert prompt_ids and all(choices)
        taken = tuple(tuple(choice) for choice in choices)
        call = Call(self.decode(prompt_ids), tuple(prompt_ids), {}, taken, sink)
        with self._condition:
            self.calls.append(call)
        logprobs = tuple(
            tuple(
                self._logprob(self.decode((*prompt_ids, *choice[:at])), self.decode(choice[at : at + 1]))
                for at in range(len(choice))
            )
            for choice in taken
        )
        finish, usage = FinishReason("length"), Usage(prompt_tokens=len(prompt_ids))
        call.events = [Output(call.rid, finish=finish, usage=usage, choice_logprobs=logprobs)]
        return self._queue(call)

    def _events(self, call: Call, text: str, params: SamplingParams, stream: bool) -> list[Output]:
        """Cut at a stop string or at max_new_tokens; else end with the end-of-sequence token."""
        eos = self._id("<|end|>", special=True)
        finish, sampled = FinishReason("stop", eos), (*self._chars(text), eos)
        stops = [(text.find(stop), stop) for stop in params.stop if stop in text]
        if stops:
            at, stop = min(stops)
            finish, sampled, text = FinishReason("stop", stop), self._chars(text[: at + len(stop)]), text[:at]
        if len(sampled) > params.max_new_tokens:
            sampled = sampled[: params.max_new_tokens]
            finish, text = FinishReason("length"), text[: params.max_new_tokens]
        call.sampled = sampled
        usage = Usage(prompt_tokens=len(call.ids), completion_tokens=len(sampled))
        if not stream:
            return [Output(call.rid, text, sampled, finish, usage=usage)]
        events = [Output(call.rid, char, (token,)) for char, token in zip(text, sampled, strict=False)]
        return [*events, Output(call.rid, "", sampled[len(text) :], finish, usage=usage)]

    def _chars(self, text: str) -> tuple[int, ...]:
        return tuple(self._id(char) for char in text)

    def flush_cache(self) -> bool:
        return True

    def shutdown(self) -> None:
        self.closed = True

    # -- the thread -----------------------------------------------------------------------------------------

    def hold(self, which: Callable[[Call], bool] = lambda call: True) -> None:
        """Deliver nothing (of the calls that `which` says) until `release`."""
        with self._condition:
            self._held = which
            self._condition.notify_all()

    def release(self) -> None:
        self.hold(lambda call: False)

    def wait_for_calls(self, count: int) -> None:
        """Block until that many requests have come in."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self._pending) >= count, timeout=20)

    def cancelled(self) -> int:
        """How many requests were cancelled."""
        return sum(call.cancelled for call in self.calls)

    def _queue(self, call: Call) -> Call:
        with self._condition:
            self._pending.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fake-engine", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return call

    def _deliverable(self) -> list[Call]:
        return [call for call in self._pending if not self._held(call)]

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: bool(self._deliverable()))
                call = self._random.choice(self._deliverable())
                event = call.events.pop(0)
                if not call.events:
                    self._pending.remove(call)
            self.max_threads = max(self.max_threads, threading.active_count())
            if call.cancelled and event.finish is not None:
                event = Output(call.rid, finish=FinishReason("abort", message="cancelled"))
            call.sink(event)
