"""The engine room of one program state: a queue of operations, advanced by completions.

    program's thread    submit(nodes) ──> queue ──┐
    executor's thread                             └─> start ── done at once ──> next
                                                         └──── in flight ... finish ──> next
    backend's thread    sink(output) ──> guarded: posted to the executor

No thread belongs to a state. The prompt is touched by the executor's thread alone; what others read or wait for
(variables, text, error, busy) changes inside the watch. The first failure is final: it is stored once, whatever is
queued or comes later is dropped with it, and every reader gets it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sgl_like.errors import DeadlineExceeded, ProgramError
from sgl_like.frontend.backend.speculation import Speculation
from sgl_like.frontend.bodies.names import Names
from sgl_like.frontend.compile import operations_for, role_after
from sgl_like.frontend.expr import Expr, Node, RoleEnd
from sgl_like.frontend.failures import failure
from sgl_like.frontend.operations.base import Operation
from sgl_like.frontend.operations.expect import operations_ahead
from sgl_like.frontend.operations.fork import Fork
from sgl_like.frontend.operations.sample import sum_usages
from sgl_like.frontend.prompt import Prompt
from sgl_like.frontend.run_context import RunContext
from sgl_like.frontend.variables import Variable
from sgl_like.frontend.watch import Watch
from sgl_like.runtime.protocol import Usage

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["Interpreter"]

E = TypeVar("E")
_TAIL = 200


class Interpreter:
    """Runs the operations of one state in order.

    Args:
        context: of the run.
        parent: for a fork, the state it comes from. A fork waits for `adopt`.
        number: which of the parent's forks it is.
    """

    def __init__(self, context: RunContext, parent: Interpreter | None = None, number: int = 0) -> None:
        self.context = context
        self.watch = Watch()
        self.prompt = Prompt()
        self.chunks: list[str] = []  # the whole text as it arrived
        self.scopes: list[Variable] = []  # open ones; they get all text
        self.names = Names(context.program, parent.variables if parent else {})
        self.error: ProgramError | None = None
        self.usage = Usage()
        self.role: str | None = (
            parent.role if parent else None
        )  # open message in program order, ahead of prompt.role
        self.closed: str | None = None  # why nothing more can be added
        self.apart = False  # whether a body runs apart from its caller and has not ended
        # Where the run is awaited: a read that would block there is refused.
        self.loop: AbstractEventLoop | None = parent.loop if parent else None
        self.stop_body: Callable[[], None] | None = None  # interrupts the body, if that can be done
        self.children: list[Interpreter] = []
        self.placeholders: list[Expr] = []  # what f-strings of the body stand for, until it ends
        self.deferred: list[
            ProgramState
        ] = []  # runs that the body has called for, and that may not have begun
        self._parent = parent
        self._path: tuple[int, ...] = (*parent._path, parent._places, number) if parent else ()
        self._places: int = 0
        self._queue: deque[Operation] = deque()
        self._current: Operation | None = None
        self._busy = parent is not None
        self._failing = False  # an error is on its way
        self._idle_callbacks: list[Callable[[], None]] = []

    # -- the program's side: any thread ---------------------------------------------------------------------

    @property
    def variables(self) -> dict[str | None, Variable]:
        """The variables by name, with those of called programs."""
        return self.names.variables

    def submit(self, nodes: Sequence[Node], names: Names | None = None) -> None:
        """Queue `nodes`, all or none, for the program with these `names` (the state's own if there are none).

        Raises:
            ProgramError: messages are nested, or none is open to be ended, or the state is closed.
        """
        names = names or self.names
        with self.watch.lock:
            role = role_after(self.role, nodes, names.program)
            self._enqueue(self._operations(names.with_defaults(nodes)), names)
            self.role = role
            self.watch.changed()

    def enqueue(self, operation: Operation, names: Names | None = None) -> None:
        """Queue an operation that no node stands for.

        Raises:
            ProgramError: the state is closed.
        """
        with self.watch.changing():
            self._enqueue([operation], names or self.names)

    def fork(self, size: int, names: Names | None = None) -> list[Interpreter]:
        """Children that start when the operations queued so far are done."""
        names = names or self.names
        with self.watch.changing():
            children = [type(self)(self.context, self, number) for number in range(size)]
            for child in children:
                child.names = names.of_fork()
            self._places += 1
            self._enqueue([Fork(children)], names)
            self.children.extend(children)
        return children

    def assign(self, name: str | None, value: Any, names: Names | None = None) -> None:
        """Give a variable a value now; operations queued before with that name do not change it."""
        with self.watch.changing():
            (names or self.names).define(Variable.of(name, value))

    def close(self, reason: str, end_role: bool = True) -> None:
        """End the program of this state: an open message is ended, nothing can be added any more."""
        with self.watch.changing():
            if self.closed is None:
                if end_role and self.role is not None:
                    self.submit([RoleEnd(self.role)])
                self.closed = reason
                self.placeholders.clear()
                self.apart = False
            children = list(self.children)
        for child in children:
            child.close(reason)

    def cancel(self, cause: BaseException) -> None:
        """Stop this state and its forks, and the body if it can be interrupted. Does nothing if all is done."""
        if self.closed is None or self._busy:
            self._fail_told(self._failure(cause, None), None)
        if (stop := self.stop_body) is not None:
            stop()
        for child in list(self.children):
            child.cancel(cause)

    def wait(self) -> None:
        """Block until this state and its forks have nothing left to do."""
        self.watch.wait_for(lambda: not self._busy)
        for child in list(self.children):
            child.wait()

    async def wait_async(self) -> None:
        """The same for a coroutine."""
        await self.watch.wait_for_async(lambda: not self._busy)
        for child in list(self.children):
            await child.wait_async()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or in flight."""
        return not self._busy

    def call_when_idle(self, callback: Callable[[], None]) -> bool:
        """Whether it is idle; if not, `callback` is called, on any thread, when it is."""
        with self.watch.lock:
            if self._busy:
                self._idle_callbacks.append(callback)
            return not self._busy

    # -- the operations' side: the executor's thread ---------------------------------------------------------

    def emit(self, text: str, variable: Variable | None = None) -> None:
        """Add to the text that readers see, and to that of `variable`."""
        if text:
            with self.watch.lock:
                self.chunks.append(text)
                if variable is not None:
                    variable.chunks.append(text)
                for scope in self.scopes:
                    scope.chunks.append(text)
                self.watch.changed()

    def note(self, variable: Variable, text: str, event: tuple[str, dict[str, Any]] | None = None) -> None:
        """Add to the text of `variable` alone; `event` is for who reads it with its meta data."""
        with self.watch.changing():
            if text:
                variable.chunks.append(text)
            if event is not None:
                variable.events.append(event)

    def give(
        self,
        variable: Variable,
        value: Any,
        meta: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Give `variable` its value, and count the tokens it took."""
        if usage is not None:
            self.count(usage)
        current = self._current
        if usage is not None and current is not None and current.is_model_call:
            self._tell("gen_end", current, value=value, meta=meta, usage=usage)
        with self.watch.lock:
            variable.finish(value, meta)
            self.watch.changed()

    def count(self, usage: Usage) -> None:
        """Count tokens. A fork's count for the states it comes from, too."""
        state: Interpreter | None = self
        while state is not None:
            state._count(usage)
            state = state._parent

    def finish(self, operation: Operation) -> None:
        """An operation that was in flight is done; go on with the next."""
        with self.watch.lock:
            if self._current is not operation:
                return
            self._current = None
        operation.stop_timer()
        self._advance()

    def guarded(self, operation: Operation, handler: Callable[[Interpreter, E], None], event: E) -> None:
        """From any thread: have `handler` take `event` on the executor's thread, while `operation` is running."""

        def job() -> None:
            if self._current is operation:
                try:
                    handler(self, event)
                except BaseException as error:  # also sys.exit() of the user's code
                    self._fail_at(operation, error)

        self.context.backend.executor.post(job)

    def adopt(self, prompt: Prompt, text: str) -> None:
        """Start this fork from its parent's prompt and text."""
        with self.watch.changing():
            self.prompt = prompt
            self.chunks = [text] if text else []
        self.context.backend.executor.post(self._advance)

    def fail(self, error: ProgramError) -> None:
        """Stop here, from any thread. Only the first failure counts."""
        with self.watch.changing():
            if self.error is not None:
                return
            self.error = error
            current, self._current = self._current, None
            dropped = [*([current] if current else []), *self._queue]
            self._queue.clear()
            for operation in dropped:
                for variable in operation.variables:
                    variable.fail(error)
            callbacks = self._rest()
        if current is not None:
            current.stop_timer()
            current.cancel(error)
        for operation in dropped:
            if operation is not current:
                operation.drop(error)
        for callback in callbacks:
            callback()

    def raise_error(self) -> None:
        """Raise the error, if there is one now."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    # -- inside ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Start operations until one stays in flight or none is left. The executor's thread only."""
        while (operation := self._take()) is not None:
            if operation.is_model_call:
                self._tell("gen_start", operation)
            try:
                done = operation.start(self)
            except BaseException as error:
                self._fail_at(operation, error)
                return
            with self.watch.lock:
                stopped = self.error  # from another thread, which may have come too early to cancel it
                if done and stopped is None:
                    self._current = None
            if stopped is not None:
                operation.cancel(stopped)
            elif not done:
                self._limit(operation)
            if not done or stopped is not None:
                return

    def _limit(self, operation: Operation) -> None:
        """Have the operation that is in flight fail if it takes too long."""
        if operation.timeout is not None:
            late = DeadlineExceeded(f"it was not done after {operation.timeout} s")

            def stop() -> None:
                if self._current is operation:
                    self._fail_at(operation, late)

            operation.timer = self.context.backend.executor.call_later(operation.timeout, stop)

    def _take(self) -> Operation | None:
        """The next operation, now the current one; without one the state is idle."""
        with self.watch.lock:
            if self._current is not None or self.error is not None:
                return None
            if self._queue:
                self._current = self._queue.popleft()
                return self._current
            callbacks = self._rest()
            self.watch.changed()
        for callback in callbacks:
            callback()
        return None

    def _rest(self) -> list[Callable[[], None]]:
        """Become idle, within the watch; returns whom to tell, outside of it."""
        self._busy = False
        callbacks, self._idle_callbacks = self._idle_callbacks, []
        return callbacks

    def _enqueue(self, operations: Sequence[Operation], names: Names) -> None:
        if (closed := self.closed or names.closed) is not None:
            raise ProgramError(f"nothing can be added: {closed}", program=names.program)
        for operation in operations:
            operation.program = names.program
            for variable in operation.variables:
                names.define(variable)
                if self.error is not None:
                    variable.fail(self.error)
            if self.error is not None:
                operation.drop(self.error)
        if self.error is None and operations:
            self._queue.extend(operations)
            if not self._busy:
                self._busy = True
                self.context.backend.executor.post(self._advance)

    def _operations(self, nodes: Sequence[Node]) -> list[Operation]:
        """What is done for `nodes`. A trace does something else here."""
        make = operations_ahead if isinstance(self.context.backend, Speculation) else operations_for
        return make(nodes, self._gen_places())

    def _gen_places(self) -> Iterator[tuple[int, ...]]:
        while True:
            self._places += 1
            yield (*self._path, self._places)

    def _fail_at(self, operation: Operation, cause: BaseException) -> None:
        self._fail_told(self._failure(cause, operation), operation)

    def _fail_told(self, error: ProgramError, operation: Operation | None) -> None:
        """`fail`, and tell the hooks before anybody else if it is the first failure."""
        with self.watch.lock:
            first, self._failing = not self._failing and self.error is None, True
        if first:
            try:
                self._tell("error", operation, error=error)
            finally:
                self.fail(error)

    def _tell(self, event: str, operation: Operation | None, **what: Any) -> None:
        if not self.context.hooks.heard(event):
            return
        if operation is not None:
            what |= {"gen": operation.number, "node": operation.label, "variable": operation.variable_name}
        program = (operation and operation.program) or self.context.program
        self.context.tell(event, program=program, **what)

    def _failure(self, cause: BaseException, operation: Operation | None) -> ProgramError:
        program = (operation and operation.program) or self.context.program
        return failure(cause, program, operation, self.prompt.tail(_TAIL))

    def _count(self, usage: Usage) -> None:
        with self.watch.lock:
            self.usage = sum_usages([self.usage, usage])
