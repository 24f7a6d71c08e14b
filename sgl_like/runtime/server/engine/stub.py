"""An engine without a model, for load tests of the rest: after each step every running request has one more token.

It keeps the manners of the real one (checks, queue, stop after ``max_new_tokens``, aborts, deadlines, one terminal
output each), and needs no torch.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from sgl_like.errors import (
    DeadlineExceeded,
    EngineClosedError,
    PromptTooLongError,
    RequestAborted,
    RequestError,
    SglError,
)
from sgl_like.runtime.engine.activity import Activity
from sgl_like.runtime.logprobs import PlaceLogprobs
from sgl_like.runtime.protocol import FinishReason, FinishType, GenerateRequest, Output, OutputSink, Usage
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.config import StubConfig
from sgl_like.runtime.server.engine.wire import EngineInfo, Question
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

_VOCABULARY = 4096
_NEVER = (
    *("computed_tokens", "forced_tokens", "draft_tokens", "accepted_tokens", "cached_tokens"),
    *("retracted_requests", "kv_evictable", "kv_evicted", "kv_pinned", "kv_loaded"),
)
"""Counts of the real engine that stay 0 here."""
_WORDS = 64
_FIRST_WORD = 512


class _Request:
    """One in flight."""

    __slots__ = ("cached", "deadline", "made", "sink", "source", "wanted")

    def __init__(self, source: GenerateRequest, sink: OutputSink, wanted: int) -> None:
        self.source, self.sink, self.wanted = source, sink, wanted
        self.made = source.produced
        self.deadline = math.inf if source.deadline is None else time.monotonic() + source.deadline


class StubEngine:
    """A `HostedEngine`.

    Args:
        model: folder whose tokenizer gives the texts; ``None`` is the embedded model's.
        config: what it pretends.
    """

    def __init__(self, model: str | None, config: StubConfig) -> None:
        self.activity = Activity()
        folder = Path(str(files("sgl_like") / "assets" / "tiny")) if model is None else Path(model)
        self._folder = folder
        self._config = config
        tokenizer = Tokenizer(folder, _VOCABULARY)
        self._texts = [tokenizer.decode([_FIRST_WORD + i]) for i in range(_WORDS)]
        self._waiting: deque[_Request] = deque()
        self._running: dict[str, _Request] = {}
        self._in_flight: dict[str, _Request] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._counts = dict.fromkeys(("steps", "sampled_tokens", "prompt_tokens", "finished_requests"), 0)
        self._thread = threading.Thread(target=self._run, name="stub-engine", daemon=True)
        self._thread.start()

    def info(self) -> EngineInfo:
        """See `HostedEngine`."""
        config = self._config
        return EngineInfo(
            model_path=str(self._folder),
            vocab_size=_VOCABULARY,
            context_length=config.context_length,
            kv_slots=config.kv_slots,
            max_running_requests=config.max_running_requests,
            pid=os.getpid(),
            options=asdict(config),
        )

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def prepare(self, params: SamplingParams) -> None:
        """There are no constraints here."""

    def submit(self, request: GenerateRequest, on_output: OutputSink) -> None:
        """See `HostedEngine`."""
        length, params = request.prompt_length, request.params
        if length == 0:
            raise RequestError("the prompt is empty: at least one token is needed")
        if length >= self._config.context_length:
            raise PromptTooLongError(
                f"the prompt has {length} tokens; the context length is {self._config.context_length}"
            )
        for token in request.input_ids:
            if not 0 <= token < _VOCABULARY:
                raise RequestError(f"input_ids: {token} is outside the vocabulary of {_VOCABULARY} tokens")
        if request.choices or params.n > 1:
            raise RequestError("the stub engine only generates")
        wanted = min(params.max_new_tokens, self._config.context_length - length)
        if request.produced > wanted:
            raise RequestError(
                f"the output is known to have {request.produced} tokens; at most {wanted} are allowed"
            )
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine has been shut down")
            if request.rid in self._in_flight:
                raise RequestError(f"a request with id {request.rid!r} is in flight already")
            self._in_flight[request.rid] = added = _Request(request, on_output, wanted)
            self._waiting.append(added)
            self._changed.notify()

    def abort(self, rid: str) -> None:
        """See `HostedEngine`."""
        with self._changed:
            request = self._in_flight.get(rid)
            if request is not None:
                self._fail(request, RequestAborted("the request was cancelled"), "abort")
        self.activity.turned()

    def answer(self, what: Question, arguments: Mapping[str, Any]) -> Any:
        """See `HostedEngine`."""
        with self._changed:
            match what:
                case "stats":
                    return self._stats()
                case "check_invariants":
                    waiting = [request for request in self._waiting if not self._ended(request)]
                    assert len(self._in_flight) == len(self._running) + len(waiting)
                    return None
                case "flush_cache":
                    return not self._in_flight
        raise RequestError(f"the stub engine has no answer to {what!r}")

    def shutdown(self) -> None:
        """See `HostedEngine`."""
        with self._changed:
            self._closed = True
            for request in list(self._in_flight.values()):
                self._fail(request, EngineClosedError("the engine was shut down while the request ran"))
            self._changed.notify()
        self._thread.join()
        self.activity.turned()

    def _stats(self) -> dict[str, Any]:
        running = self._running.values()
        used = sum(request.source.prompt_length + request.made for request in running)
        return {
            "model_path": str(self._folder),
            **dict.fromkeys(_NEVER, 0),
            **self._counts,
            "running_requests": len(self._running),
            "waiting_requests": len(self._in_flight) - len(self._running),
            "max_running_requests": self._config.max_running_requests,
            "context_length": self._config.context_length,
            "kv_slots": self._config.kv_slots,
            "kv_free": max(0, self._config.kv_slots - used),
            "cache_hit_rate": 0.0,
            "memory_bytes": {"weights": 0, "kv_cache": 0, "constraints": 0},
        }

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._changed:
                while not self._in_flight and not self._closed:
                    self._changed.wait()
                    due = time.monotonic()
                if self._closed:
                    return
            due = max(due + self._config.step, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            self.activity.began()
            with self._changed:
                self._step()
            self.activity.ended()

    def _step(self) -> None:
        waiting, running = self._waiting, self._running
        while waiting and len(running) < self._config.max_running_requests:
            request = waiting.popleft()
            if not self._ended(request):
                running[request.source.rid] = request
                self._counts["prompt_tokens"] += request.source.prompt_length
        now = time.monotonic()
        for request in [r for r in self._in_flight.values() if r.deadline < now]:
            self._fail(request, DeadlineExceeded("the request was not done by its deadline"))
        for request in list(running.values()):
            self._advance(request)
        self._counts["steps"] += 1

    def _advance(self, request: _Request) -> None:
        source, at = request.source, request.made
        if at == request.wanted:
            self._send(request, (), "", FinishReason("length"))
            return
        request.made = made = at + 1
        self._counts["sampled_tokens"] += 1
        if made == request.wanted:
            first = at if source.stream else source.produced
            self._send(request, *self._tokens(first, made), FinishReason("length"))
        elif source.stream:
            self._send(request, *self._tokens(at, made), None)

    def _send(
        self,
        request: _Request,
        ids: tuple[int, ...],
        text: str,
        finish: FinishReason | None,
        error: SglError | None = None,
    ) -> None:
        source = request.source
        if finish is not None:
            self._in_flight.pop(source.rid, None)
            self._running.pop(source.rid, None)
            self._counts["finished_requests"] += error is None
        scored: tuple[PlaceLogprobs, ...] = ()
        if source.logprobs is not None:
            scored = tuple(PlaceLogprobs((-1.0, token, None)) for token in ids)
        usage = Usage(prompt_tokens=source.prompt_length, completion_tokens=request.made)
        request.sink(Output(source.rid, text, ids, finish, error, usage, output_logprobs=scored))

    def _fail(self, request: _Request, error: SglError, kind: FinishType = "error") -> None:
        first = request.made if request.source.stream else request.source.produced
        self._send(request, *self._tokens(first, request.made), FinishReason(kind, message=str(error)), error)

    def _tokens(self, first: int, end: int) -> tuple[tuple[int, ...], str]:
        """Ids and text of a part of an output."""
        places = range(first, end)
        text = "".join([self._texts[i % _WORDS] for i in places])
        return tuple([_FIRST_WORD + i % _WORDS for i in places]), text

    def _ended(self, request: _Request) -> bool:
        return self._in_flight.get(request.source.rid) is not request
