"""Requests of one call while they run: their outputs in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple

from sgl_like.runtime.protocol import GenerateRequest, Output, Usage
from sgl_like.runtime.server.engine.client import EngineClient
from sgl_like.runtime.server.observe.records import CallRecord, RequestRecord


class Part(NamedTuple):
    """An output, and which of the call's requests it is of."""

    request: int
    output: Output


class Generation:
    """Runs requests within an ``async with``; what has not ended at its end is aborted.

    Iterating gives lists of what has come since, until every request has ended.

    Args:
        engine: where they run.
        requests: of one call.
        call: what takes note of it.
    """

    def __init__(self, engine: EngineClient, requests: Sequence[GenerateRequest], call: CallRecord) -> None:
        self.requests = requests
        self._engine = engine
        self._call = call
        self._records: list[RequestRecord] = []
        self._open = dict.fromkeys(range(len(requests)))  # indexes of those that have not ended
        self._parts: list[Part] = []
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Generation:
        self._records = self._call.submit(self.requests)
        started: list[str] = []
        try:
            for index, request in enumerate(self.requests):
                self._engine.submit(request, partial(self._receive, index))
                started.append(request.rid)
        except BaseException:
            for rid in started:
                self._engine.abort(rid)
            for record in self._records[len(started) :]:
                record.end("rejected", Usage())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index in self._open:
            self._engine.abort(self.requests[index].rid)

    async def first(self) -> None:
        """Wait for the first output.

        Raises:
            SglError: it is that of a request that was refused or failed.
        """
        await self._wait()
        for _, output in self._parts:
            if output.error is not None:
                raise output.error

    async def __aiter__(self) -> AsyncIterator[list[Part]]:
        while self._open or self._parts:
            await self._wait()
            parts, self._parts = self._parts, []
            yield parts

    async def all(self) -> list[list[Output]]:
        """Wait until every request has ended; the outputs of each.

        Raises:
            SglError: a request failed.
        """
        found: list[list[Output]] = [[] for _ in self.requests]
        async for parts in self:
            for index, output in parts:
                if output.error is not None:
                    raise output.error
                found[index].append(output)
        return found

    async def _wait(self) -> None:
        if not self._parts:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _receive(self, index: int, output: Output) -> None:
        self._records[index].add(output)
        if output.is_terminal:
            self._open.pop(index, None)
        self._parts.append(Part(index, output))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
