"""The rows of a batch that were begun and not yet taken, and what happens to them.

    begin ──> queued ──> running ──────────────> over ──> recorded ──> ended ──> take
                 ^          `── or out of time ──´ `── can be transient ──.
                 `──────────────────── after a while <────────────────────´

An attempt is over when its body has ended and nothing of it is left in flight, or when its time is up, whichever
comes first: a body that does not notice costs a thread, not the batch. Whoever finds it over first carries on with the
row, on whatever thread that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sgl_like.errors import DeadlineExceeded, ProgramError, RequestAborted
from sgl_like.frontend.batches.retry import is_transient
from sgl_like.frontend.batches.starters import Attempt, Starter
from sgl_like.frontend.bodies.executor import Timer
from sgl_like.frontend.bodies.workers import lending_place
from sgl_like.frontend.calls import Call, Row
from sgl_like.frontend.watch import Watch

if TYPE_CHECKING:
    from sgl_like.frontend.batches.batch import BatchOptions, BatchProgram
    from sgl_like.frontend.batches.checkpoint import Checkpoint
    from sgl_like.frontend.state import ProgramState

__all__ = ["Window"]


class _Try:
    """How far one attempt at a row is."""

    def __init__(self, state: ProgramState) -> None:
        self.state = state
        self.over = False
        self.late = False  # it is over because its time was up
        self.timer: Timer | None = None


class _Task:
    """One row."""

    def __init__(self, number: int, state: ProgramState) -> None:
        self.number = number
        self.call: Call | None = None
        self.mark: str | None = None  # what the checkpoint knows the row by
        self.newest = _Try(state)
        self.tries = 1
        self.timer: Timer | None = None  # for the next attempt
        self.ended = False

    @property
    def state(self) -> ProgramState:
        return self.newest.state


class Window:
    """Used by the batch on one thread; what it starts goes on by itself on others.

    Args:
        size: most rows in it.
        program: what to run.
        options: of the batch.
        starter: runs them.
        checkpoint: where rows are kept that have ended, if anywhere.
        advance: called once for every row that has ended, on any thread.
    """

    def __init__(
        self,
        size: int,
        program: BatchProgram,
        options: BatchOptions,
        starter: Starter,
        checkpoint: Checkpoint | None,
        advance: Callable[[], None],
    ) -> None:
        self._size = size
        self._program = program
        self._options = options
        self._checkpoint = checkpoint
        self._starter = starter
        self._advance = advance
        self._watch = Watch()
        self._tasks: dict[int, _Task] = {}  # in the order of the rows
        self._ended: deque[_Task] = deque()  # in the order in which they ended
        self._ending = 0  # rows whose attempt is over, and not yet what follows
        self._stopped = False
        self._failure: BaseException | None = None  # of the batch itself

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, number: int, row: Row) -> None:
        """Start a row, or take it from the checkpoint.

        Raises:
            DataError: the checkpoint has another row in its place.
        """
        task = _Task(number, self._fresh_state(number))
        try:
            task.call = self._program.make_call(number, row)
        except ProgramError as error:
            task.state._interpreter.fail(error)
        restored = False
        if self._checkpoint is not None and task.call is not None:
            task.mark = self._checkpoint.mark(number, task.call)
            restored = self._checkpoint.restore(number, task.mark, task.state)
        self._tasks[number] = task
        if restored or task.call is None:
            self._end(task)
        else:
            self._queue(task)

    def ready(self) -> bool:
        """Whether `take` would not wait."""
        if self._failure is not None:
            return True
        if self._options.as_completed:
            return bool(self._ended)
        return bool(self._tasks) and next(iter(self._tasks.values())).ended

    def full(self) -> bool:
        """Whether no other row may be begun."""
        return len(self) >= self._size

    def take(self) -> ProgramState:
        """The next state: of the first row, or of the first that ended. Waits for it.

        Raises:
            ProgramError: the row has failed, and such errors are to be raised.
            DataError: the checkpoint cannot be written.
        """
        with lending_place():  # the rows may need the pool that this thread is of
            self._watch.wait_for(self.ready)
        return self._taken()

    async def take_async(self) -> ProgramState:
        """The same for a coroutine."""
        await self._watch.wait_for_async(self.ready)
        return self._taken()

    def close(self) -> None:
        """Cancel what is not over. What is over is still recorded."""
        with self._watch.holding():
            self._stopped = True
            left = [task for task in self._tasks.values() if not task.newest.over or task.timer]
            for task in left:
                task.newest.over = True
                for timer in (task.timer, task.newest.timer):
                    if timer is not None:
                        timer.cancel()
        for task in left:
            task.state._interpreter.cancel(RequestAborted("the batch was cancelled"))
        self._starter.close()
        self._watch.wait_for(lambda: not self._ending)

    # -- the life of a row ------------------------------------------------------------------------------------

    def _fresh_state(self, number: int) -> ProgramState:
        state = self._program.make_state()
        state.row = number
        return state

    def _queue(self, task: _Task) -> None:
        assert task.call is not None, "a row without arguments is not run"
        this, body = task.newest, self._program.make_body(task.state, task.call)
        self._starter.start(Attempt(body, partial(self._begun, task, this), partial(self._over, task, this)))

    def _begun(self, task: _Task, this: _Try) -> bool:
        """The attempt has a place now; false if it was cancelled before."""
        with self._watch.holding():
            if not this.over and self._options.timeout is not None:
                expire = partial(self._expire, task, this)
                this.timer = self._program.call_later(self._options.timeout, expire)
            return not this.over

    def _over(self, task: _Task, this: _Try) -> bool:
        """The attempt has ended; false if it was given up before because its time was up."""
        if self._claim(this):
            self._go_on(task)
        return not this.late

    def _expire(self, task: _Task, this: _Try) -> None:
        """On the executor's thread."""
        if self._claim(this, late=True):
            self._starter.lend()  # its body may never notice
            interpreter = this.state._interpreter
            what = f"row {task.number} had not ended after {self._options.timeout:g} s"
            interpreter.cancel(DeadlineExceeded(what))
            interpreter.close("its time was up")  # so that no reader waits for the body
            self._go_on(task)

    def _claim(self, this: _Try, late: bool = False) -> bool:
        """Whether the caller is the first to find the attempt over; it then calls `_go_on`."""
        with self._watch.holding():
            if this.over:
                return False
            this.over, this.late = True, late
            if this.timer is not None:
                this.timer.cancel()
            self._ending += 1
            return True

    def _go_on(self, task: _Task) -> None:
        """What follows an attempt: another one, or the end of the row."""
        try:
            if not self._tried_again(task):
                if self._checkpoint is not None and task.mark is not None:
                    self._checkpoint.record(task.number, task.mark, task.state)
                self._end(task)
        except BaseException as error:  # e.g. a full disk: of the batch, not of the row
            self._failure = self._failure or error
        with self._watch.changing():
            self._ending -= 1

    def _tried_again(self, task: _Task) -> bool:
        if task.tries > self._options.max_retries or not is_transient(task.state._interpreter.error):
            return False
        seconds = self._options.backoff(task.tries)
        with self._watch.holding():
            if not self._stopped:
                task.tries += 1
                task.timer = self._program.call_later(seconds, partial(self._restart, task))
            return not self._stopped

    def _restart(self, task: _Task) -> None:
        """On the executor's thread."""
        state = self._fresh_state(task.number)
        with self._watch.holding():
            if not self._stopped:
                task.timer = None
                task.newest = _Try(state)
                self._queue(task)

    def _end(self, task: _Task) -> None:
        self._program.ended(task.state)
        with self._watch.changing():
            task.ended = True
            self._ended.append(task)
        self._advance()

    def _taken(self) -> ProgramState:
        if self._failure is not None:
            raise self._failure
        task = self._ended[0] if self._options.as_completed else next(iter(self._tasks.values()))
        self._ended.remove(task)
        del self._tasks[task.number]
        error = task.state._interpreter.error
        if error is not None and self._options.on_error == "raise":
            raise error
        return task.state
