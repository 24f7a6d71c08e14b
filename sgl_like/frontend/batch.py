"""Many runs of one program: side by side, in order, within a window.

    rows ──> [ done | running | done | running ... ] ──> states, in the order of the rows
               `----- at most WINDOW x threads ----´

A row is taken from its source only when there is room in the window, so memory is bounded however many rows there
are and however slow the consumer is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sgl_like.errors import ProgramError, RequestAborted
from sgl_like.frontend.calls import Call, Row
from sgl_like.frontend.state import ProgramState
from sgl_like.frontend.workers import Workers, lending_place

__all__ = ["Batch"]

WINDOW = 4  # rows begun or waiting to be taken, per thread


class _Running(NamedTuple):
    state: ProgramState
    done: Future[None]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One call of ``run_batch``.

    Args:
        rows: where the arguments come from.
        make_state: a fresh state for a row.
        make_call: arguments from a row's number and the row; raises ProgramError.
        run: runs the body to its end on a worker's thread; keeps errors in the state.
        name: of the program.
        threads: most rows at a time.
        progress_bar: whether to show one.
        raising: raise a row's error instead of handing out its state.
    """

    rows: Iterable[Row]
    make_state: Callable[[], ProgramState]
    make_call: Callable[[int, Row], Call]
    run: Callable[[ProgramState, Call], None]
    name: str
    threads: int
    progress_bar: bool
    raising: bool

    def states(self) -> Generator[ProgramState, None, None]:
        """The finished states, in order. Closing it, or an exception, cancels what is running."""
        total = len(self.rows) if isinstance(self.rows, Sized) else None
        workers = Workers(
            self.threads if total is None else min(self.threads, max(total, 1)), f"sgl-{self.name}"
        )
        window: deque[_Running] = deque()
        try:
            with _progress(self.name, total, self.progress_bar) as advance:
                for number, row in enumerate(self.rows):
                    window.append(self._begin(workers, number, row, advance))
                    while window and (window[0].done.done() or len(window) >= WINDOW * self.threads):
                        yield self._take(window)
                while window:
                    yield self._take(window)
        finally:
            for running in window:
                running.state._interpreter.cancel(RequestAborted("the batch was cancelled"))
            workers.close()

    def _begin(self, workers: Workers, number: int, row: Row, advance: Callable[[], None]) -> _Running:
        state = self.make_state()
        done: Future[None]
        try:
            call = self.make_call(number, row)
        except ProgramError as error:
            state._interpreter.fail(error)
            done = Future()
            done.set_result(None)
        else:
            done = workers.submit(partial(self._run, state, call))
        done.add_done_callback(lambda _: advance())
        return _Running(state, done)

    def _run(self, state: ProgramState, call: Call) -> None:
        if state._interpreter.error is None:  # or it was cancelled while it waited for a thread
            self.run(state, call)

    def _take(self, window: deque[_Running]) -> ProgramState:
        with lending_place():  # the rows may need the pool that this thread is of
            window[0].done.result()  # stays in the window, to be cancelled if this is interrupted
        state = window.popleft().state
        if self.raising and (error := state.error()) is not None:
            raise error
        return state


def _progress(name: str, total: int | None, shown: bool) -> AbstractContextManager[Callable[[], None]]:
    """A context that gives a function to call for every finished row."""
    return _bar(name, total) if shown else nullcontext(lambda: None)


def _bar(name: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
    from contextlib import contextmanager

    @contextmanager
    def showing() -> Iterator[Callable[[], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(name, total=total)
            yield lambda: progress.advance(task)

    return showing()
