"""Many runs of one program: side by side, within a window.

    rows ──> [ ended | running | ended | waits for another attempt ] ──> states, in order or as they end
               `-------------- at most WINDOW x threads ------------´

A row is taken from its source only when there is room in the window, so memory is bounded however many rows there
are and however slow the consumer is. A `Batch` moves rows in and states out on the caller's thread; what happens in
between is `window.py`'s.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sgl_like.frontend.batches.checkpoint import Checkpoint
from sgl_like.frontend.batches.retry import Backoff, exponential_backoff
from sgl_like.frontend.batches.starters import Starter, Threads
from sgl_like.frontend.batches.window import Window
from sgl_like.frontend.bodies.bodies import Body
from sgl_like.frontend.bodies.executor import Timer
from sgl_like.frontend.calls import Call, Row, positive_seconds

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["WINDOW", "Batch", "BatchOptions", "BatchProgram", "Rows"]

Rows = Iterable[Row] | AsyncIterable[Row]
WINDOW = 4  # rows begun or waiting to be taken, per thread
AUTO_THREADS = 64


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What `SglFunction.run_batch` takes besides rows, backend and sampling parameters; explained there.

    Raises:
        ValueError: a value is out of range.
    """

    num_threads: int | Literal["auto"] = "auto"
    progress_bar: bool = False
    on_error: Literal["return", "raise"] = "return"
    max_retries: int = 0
    timeout: float | None = None
    backoff: Backoff = exponential_backoff
    as_completed: bool = False
    checkpoint: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("return", "raise"):
            raise ValueError(f'on_error must be "return" or "raise", not {self.on_error!r}')
        if self.num_threads != "auto" and not _is_whole(self.num_threads, 1):
            raise ValueError(f"num_threads or max_concurrency must be at least 1, not {self.num_threads!r}")
        if not _is_whole(self.max_retries, 0):
            raise ValueError(f"max_retries must be a whole number, not {self.max_retries!r}")
        if not callable(self.backoff):
            raise TypeError(f"backoff must be a function of the attempt's number, not {self.backoff!r}")
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, PathLike)):
            raise TypeError(f"checkpoint must be the path of a file, not {self.checkpoint!r}")
        positive_seconds(self.timeout)

    @property
    def threads(self) -> int:
        """Most rows at a time."""
        return AUTO_THREADS if self.num_threads == "auto" else self.num_threads


@dataclass(frozen=True, kw_only=True)
class BatchProgram:
    """What is run on every row.

    Args:
        name: of the program.
        make_state: a fresh state.
        make_call: arguments from a row's number and the row; raises ProgramError.
        make_body: what to run for a state and its arguments.
        call_later: makes a call in so many seconds.
        fingerprint: what its results depend on besides the rows, for the checkpoint.
        ended: called with the state of every row that has ended, on any thread.
    """

    name: str
    make_state: Callable[[], ProgramState]
    make_call: Callable[[int, Row], Call]
    make_body: Callable[[ProgramState, Call], Body]
    call_later: Callable[[float, Callable[[], None]], Timer]
    fingerprint: Callable[[], Mapping[str, Any]]
    ended: Callable[[ProgramState], None]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One call of ``run_batch``.

    Args:
        rows: where the arguments come from. If they are a list, all are checked here.
        program: what to run.
        options: how.
        around: entered before the first row begins, and left when the last has ended or the batch is given up.

    Raises:
        TypeError: `rows` are none.
        ProgramError: a row of a list has the wrong shape.
    """

    rows: Rows
    program: BatchProgram
    options: BatchOptions
    around: Callable[[], AbstractContextManager[object]] = nullcontext

    def __post_init__(self) -> None:
        wrong = isinstance(self.rows, (str, bytes, Mapping))
        if wrong or not isinstance(self.rows, (Iterable, AsyncIterable)):
            raise TypeError(f"rows must be a list or an iterator of rows, not {type(self.rows).__name__}")
        if isinstance(self.rows, (list, tuple)):
            for number, row in enumerate(self.rows):
                self.program.make_call(number, row)

    def states(self) -> Generator[ProgramState, None, None]:
        """The finished states. Closing it, or an exception, cancels what is running."""
        rows = self.rows if isinstance(self.rows, Iterable) else _waited_for(self.rows)
        with self.window(Threads(self.threads, f"sgl-{self.program.name}")) as window:
            for number, row in enumerate(rows):
                window.begin(number, row)
                while window.ready() or window.full():
                    yield window.take()
            while len(window):
                yield window.take()

    @property
    def total(self) -> int | None:
        """How many rows there are, if that is known."""
        return len(self.rows) if isinstance(self.rows, Sized) else None

    @property
    def threads(self) -> int:
        """Most rows at a time."""
        most = self.options.threads
        return most if self.total is None else min(most, max(self.total, 1))

    @contextmanager
    def window(self, starter: Starter) -> Iterator[Window]:
        """A window for the rows; at the end of the block what is running in it is cancelled."""
        with (
            self._checkpoint() as checkpoint,
            _progress(self.program.name, self.total, self.options.progress_bar) as advance,
            self.around(),
        ):
            size = WINDOW * self.options.threads
            window = Window(size, self.program, self.options, starter, checkpoint, advance)
            try:
                yield window
            finally:
                window.close()

    def _checkpoint(self) -> AbstractContextManager[Checkpoint | None]:
        if self.options.checkpoint is None:
            return nullcontext()
        return Checkpoint(Path(self.options.checkpoint), self.program.fingerprint())


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _waited_for(rows: AsyncIterable[Row]) -> Iterator[Row]:
    """Rows of an asynchronous source, for a thread without an event loop."""
    import asyncio

    end = object()

    async def following(source: AsyncIterator[Row]) -> Row | object:
        return await anext(source, end)

    if asyncio._get_running_loop() is not None:
        raise RuntimeError("run_batch would block the event loop that its rows come from; use abatch here")
    with asyncio.Runner() as runner:
        source = aiter(rows)
        while (row := runner.run(following(source))) is not end:
            yield row  # type: ignore[misc]


def _progress(name: str, total: int | None, shown: bool) -> AbstractContextManager[Callable[[], None]]:
    """A context that gives a function to call for every finished row."""
    return _bar(name, total) if shown else nullcontext(lambda: None)


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)
