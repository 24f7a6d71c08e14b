"""Requests of one call while they run: their outputs in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, cast

from sgl_like.errors import RequestAborted, SglError
from sgl_like.runtime.protocol import GenerateRequest, Output, Usage
from sgl_like.runtime.server.engine.client import EngineClient
from sgl_like.runtime.server.http.admission import Ticket
from sgl_like.runtime.server.observe.records import CallRecord, RequestRecord

FIRST_SECONDS = 1.0
"""That a stream waits with its headers for its first output."""

_PART_BYTES, _LOGPROB_BYTES = 256, 512  # about what they take, beside the text


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
        admit: makes room for them.
        most_bytes: of outputs that may wait for whoever iterates, who in turn may wait for a client that does not read.
            Beyond, the requests are aborted, and iterating fails.
    """

    def __init__(
        self,
        engine: EngineClient,
        requests: Sequence[GenerateRequest],
        call: CallRecord,
        admit: Callable[[Sequence[GenerateRequest]], Ticket],
        most_bytes: int = 1024 * 1024,
    ) -> None:
        self.requests = requests
        self._engine = engine
        self._call = call
        self._records: list[RequestRecord] = []
        self._admit = admit
        self._most_bytes = most_bytes
        self._bytes = 0
        self._overrun = False
        self._open = dict.fromkeys(range(len(requests)))  # indexes of those that have not ended
        self._parts: list[Part] = []
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Generation:
        self._ticket = ticket = self._admit(self.requests)
        self.requests = ticket.requests
        self._records = self._call.submit(self.requests)
        started = 0
        try:
            for index, request in enumerate(self.requests):
                self._engine.submit(request, partial(self._receive, index))
                started += 1
        except BaseException:
            for index in range(started, len(self.requests)):
                ticket.release(index)
                self._records[index].end("rejected", Usage())
            self._abort(range(started))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abort(self._open)

    async def first(self, seconds: float = FIRST_SECONDS) -> bool:
        """Wait for the first output, but not long: what is wrong with a request is soon known, proxies want headers.

        Returns:
            Whether it is there.

        Raises:
            SglError: it is that of a request that was refused or failed.
        """
        if not self._parts:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            timer = waiter.get_loop().call_later(seconds, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
        for _, output in self._parts:
            if _failed(output):
                raise cast("SglError", output.error)
        return bool(self._parts)

    async def __aiter__(self) -> AsyncIterator[list[Part]]:
        """Outputs as they come.

        Raises:
            SglError: a request failed; what came before it has been given. One that was aborted has not: its last
                output's finish reason says ``"abort"``.
            ConnectionResetError: too much is waiting here.
        """
        while self._open or self._parts:
            await self._wait()
            if self._overrun:
                raise ConnectionResetError("the client does not read")
            parts, self._parts, self._bytes = self._parts, [], 0
            for at, (_, output) in enumerate(parts):
                if _failed(output):
                    if at:
                        yield parts[:at]
                    raise cast("SglError", output.error)
            yield parts

    async def all(self) -> list[list[Output]]:
        """Wait until every request has ended; the outputs of each.

        Raises:
            SglError: a request failed.
        """
        found: list[list[Output]] = [[] for _ in self.requests]
        async for parts in self:
            for index, output in parts:
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
            self._ticket.release(index, output)
        if self.requests[index].stream:
            self._bytes += _PART_BYTES + len(output.text) + _LOGPROB_BYTES * len(output.output_logprobs)
            if self._bytes > self._most_bytes and not self._overrun:
                self._overrun = True
                self._call.cause = "slow_reader"
                self._abort(self._open)
        if self._overrun:
            self._parts.clear()
        self._parts.append(Part(index, output))
        self._wake()

    def _abort(self, indexes: Iterable[int]) -> None:
        for index in tuple(indexes):  # terminal outputs may come at once
            self._engine.abort(self.requests[index].rid)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _failed(output: Output) -> bool:
    """Whether a request ended with an error. Those that the server aborts have an end of their own."""
    return output.error is not None and not isinstance(output.error, RequestAborted)
