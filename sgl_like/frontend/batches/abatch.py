"""Many runs of one program from a coroutine. It is `batch` but for how it waits, and that bodies are tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from dataclasses import dataclass
from typing import Any

from sgl_like.frontend.batches.batch import Batch, Rows
from sgl_like.frontend.batches.starters import Tasks
from sgl_like.frontend.calls import Row
from sgl_like.frontend.state import ProgramState

__all__ = ["AsyncBatch"]


@dataclass(frozen=True)
class AsyncBatch:
    """One call of ``abatch``: ``await`` it for all states, or iterate over them with ``async for``."""

    batch: Batch

    def __await__(self) -> Generator[Any, None, list[ProgramState]]:
        return self._all().__await__()

    async def __aiter__(self) -> AsyncGenerator[ProgramState, None]:
        """The finished states. To close the iterator, or an exception, cancels what is running."""
        tasks = Tasks(self.batch.threads)
        try:
            with self.batch.window(tasks) as window:
                number = 0
                async for row in _async(self.batch.rows):
                    window.begin(number, row)
                    number += 1
                    while window.ready() or window.full():
                        yield await window.take_async()
                while len(window):
                    yield await window.take_async()
        finally:
            await tasks.ended()

    async def _all(self) -> list[ProgramState]:
        return [state async for state in self]


async def _async(rows: Rows) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
            await asyncio.sleep(0)  # a long source does not hold up the loop
