"""``/generate``: SGLang's API for text, token ids and log-probabilities, with what our own clients need besides."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from aiohttp import web

from sgl_like.errors import RequestAborted, SglError
from sgl_like.runtime.engine.offline import Collector
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.server.generation import Generation, Part
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import api_error, openai_body
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.http.sse import DONE, EventStream
from sgl_like.runtime.server.native.bodies import GENERATED, GenerateBody
from sgl_like.runtime.server.native.reading import Sequences, read_choices, read_requests

LONG_LISTS = 2048
"""Entries of log-probabilities from on which events that have all of them come less often."""
_GROWTH = 1 / 32


class Answer:
    """What one request has given so far, in SGLang's form.

    Args:
        request: as it runs.
        name: what its client calls it.
        index: its place in the answer's list, if that is one.
        incremental: `take` leaves nothing of what it has given before.
    """

    def __init__(
        self, request: GenerateRequest, name: str, index: int | None = None, incremental: bool = False
    ) -> None:
        self.collector = Collector(request, perf_counter())
        self._name = name
        self._index = index
        self._incremental = incremental
        self._shown = 0  # places with log-probabilities in the last event

    @property
    def is_due(self) -> bool:
        """Whether an event is worth being sent: always, but for long lists of log-probabilities that have hardly grown.
        All of them in every event would be as many bytes as the square of the output's length.
        """
        collector, wanted = self.collector, self.collector.request.logprobs
        if wanted is None or self._incremental or collector.done:
            return True
        places = len(collector.output_logprobs)
        entries = places * (1 + wanted.top + len(wanted.token_ids)) + len(collector.prompt_logprobs)
        return entries <= LONG_LISTS or places >= self._shown * (1 + _GROWTH)

    def take(self) -> dict[str, Any]:
        """The result so far.

        Raises:
            SglError: the request failed.
        """
        collector = self.collector
        if isinstance(collector.error, RequestAborted):  # as SGLang has it, an output that was cut short
            collector.error = None
        result = collector.result()
        self._shown = len(collector.output_logprobs)
        meta = result["meta_info"]
        meta["id"] = self._name
        if collector.forced:
            meta["forced_positions"] = list(collector.forced)
        if collector.choice_logprobs is not None:
            meta["choice_logprobs"] = collector.choice_logprobs
        if self._index is not None:
            result["index"] = self._index
        if self._incremental:
            collector.text = ""
            for each in (
                collector.token_ids, collector.prompt_logprobs, collector.output_logprobs, collector.forced,
            ):  # fmt: skip
                each.clear()
        return result


async def generate(call: Call) -> web.StreamResponse:
    """Continue prompts, or score choices after one."""
    body = await call.body(GenerateBody)
    scores = isinstance(body.choices, list)
    sequences = await (read_choices if scores else read_requests)(call, body)
    async with call.generate(sequences.requests) as generation:
        if body.stream:
            return await _stream(call, body, sequences, generation)
        answers = _answers(sequences, False)
        async for parts in generation:
            for answer in _added(answers, parts):
                if answer.collector.error is not None:
                    answer.take()
        results = [answer.take() for answer in answers]
        return json_response(results if sequences.many else results[0])


async def _stream(
    call: Call, body: GenerateBody, sequences: Sequences, generation: Generation
) -> web.StreamResponse:
    answers = _answers(sequences, body.incremental_streaming_output)
    with suppress(RequestAborted):  # an output that ends at once
        await generation.first()
    stream = EventStream(call.http)
    await stream.open()
    try:
        async for parts in generation:
            for answer in _added(answers, parts):
                if answer.is_due:
                    await stream.send(answer.take())
    except SglError as error:
        await stream.send(openai_body(api_error(error)))
    await stream.write(DONE)
    return await stream.close()


def _answers(sequences: Sequences, incremental: bool) -> list[Answer]:
    return [
        Answer(request, name, at if sequences.many else None, incremental)
        for at, (request, name) in enumerate(zip(sequences.requests, sequences.names, strict=True))
    ]


def _added(answers: Sequence[Answer], parts: Sequence[Part]) -> list[Answer]:
    """Take in parts; the answers that they belong to."""
    changed: dict[int, Answer] = {}
    for at, output in parts:
        answers[at].collector.take(output)
        changed[at] = answers[at]
    return list(changed.values())


ROUTES = tuple(
    Route(
        method, "/generate", generate, "Continue text or token ids (SGLang)",
        body=GenerateBody, response=GENERATED, streams=True,
    )
    for method in ("POST", "PUT")
)  # fmt: skip
