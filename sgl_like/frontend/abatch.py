"""Many runs of one program from a coroutine: side by side, in order, without a thread for each.

    rows ──> [ done | running | done | running ... ] ──> states, in the order of the rows
               `----- at most WINDOW x limit ----´

As in `batch`, a row is taken from its source only when there is room in the window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.batch import WINDOW
from sgl_like.frontend.bodies import Body
from sgl_like.frontend.calls import Row
from sgl_like.frontend.state import ProgramState

__all__ = ["AsyncBatch"]


@dataclass(frozen=True, kw_only=True)
class AsyncBatch:
    """One call of ``abatch``: ``await`` it for all states, or iterate over them with ``async for``.

    Args:
        rows: where the arguments come from.
        begin: the run of a row, not begun; raises ProgramError if the row is not one.
        fail: a state that has failed.
        limit: most rows at a time.
        raising: raise a row's error instead of handing out its state.
    """

    rows: Iterable[Row] | AsyncIterable[Row]
    begin: Callable[[int, Row], Body]
    fail: Callable[[ProgramError], ProgramState]
    limit: int
    raising: bool

    def __await__(self) -> Generator[Any, None, list[ProgramState]]:
        return self._all().__await__()

    async def __aiter__(self) -> AsyncGenerator[ProgramState, None]:
        """The finished states, in order. To close the iterator, or an exception, cancels what is running."""
        places = asyncio.Semaphore(self.limit)
        window: deque[asyncio.Task[ProgramState]] = deque()
        number = 0
        try:
            async for row in _async(self.rows):
                window.append(asyncio.create_task(self._run(places, number, row)))
                number += 1
                while window and (window[0].done() or len(window) >= WINDOW * self.limit):
                    yield await self._take(window)
            while window:
                yield await self._take(window)
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def _all(self) -> list[ProgramState]:
        return [state async for state in self]

    async def _run(self, places: asyncio.Semaphore, number: int, row: Row) -> ProgramState:
        async with places:
            try:
                body = self.begin(number, row)
            except ProgramError as error:
                return self.fail(error)
            await body.arun_kept()
            return body.state

    async def _take(self, window: deque[asyncio.Task[ProgramState]]) -> ProgramState:
        await asyncio.wait([window[0]])  # stays in the window; if this is cancelled, all of them are together
        state = window.popleft().result()
        if self.raising and (error := (await state).error()) is not None:
            raise error
        return state


async def _async(rows: Iterable[Row] | AsyncIterable[Row]) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
            await asyncio.sleep(0)  # a long source does not hold up the loop
