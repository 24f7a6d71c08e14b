"""`SglFunction`: a Python function, plain or async, as a program. How its body is run is in `bodies`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from functools import update_wrapper
from os import PathLike
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from sgl_like.errors import TraceError
from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.backend.default import resolve_backend
from sgl_like.frontend.backend.speculation import checked_spec_tokens, speculating
from sgl_like.frontend.batches.abatch import AsyncBatch
from sgl_like.frontend.batches.batch import Batch, BatchOptions, BatchProgram, Rows
from sgl_like.frontend.batches.checkpoint import fingerprint
from sgl_like.frontend.batches.prefix import SharedPrefix
from sgl_like.frontend.batches.retry import Backoff, exponential_backoff
from sgl_like.frontend.bodies.bodies import Body
from sgl_like.frontend.bodies.current import current_body
from sgl_like.frontend.bodies.deferred import DeferredState
from sgl_like.frontend.bodies.hooks import Hooks
from sgl_like.frontend.bodies.loops import running_loop
from sgl_like.frontend.calls import Arguments, Call, positive_seconds
from sgl_like.frontend.inspect.active import calls_instead
from sgl_like.frontend.interpreter import Interpreter
from sgl_like.frontend.params import RUN_DEFAULTS, check_sampling_options
from sgl_like.frontend.run_context import RunContext
from sgl_like.frontend.state import ProgramState

if TYPE_CHECKING:
    from sgl_like.frontend.inspect.compiled import CompiledFunction
    from sgl_like.frontend.inspect.findings import Finding
    from sgl_like.frontend.inspect.graph import Graph
    from sgl_like.frontend.inspect.trace import Trace

__all__ = ["SglFunction"]

P = ParamSpec("P")
R = TypeVar("R")


class SglFunction(Generic[P, R]):
    """A program. Call it (or ``run`` it) to get a `ProgramState`; its own arguments keep their types."""

    def __init__(
        self,
        func: Callable[Concatenate[ProgramState, P], R],
        bound: Mapping[str, Any] | None = None,
        num_api_spec_tokens: int | None = None,
    ) -> None:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func.__qualname__}: a program's body cannot yield; return a value instead")
        update_wrapper(self, func)
        self.func = func
        self.is_async = inspect.iscoroutinefunction(func)
        self.arguments = Arguments(func, bound or {})
        self.signature = self.__signature__ = self.arguments.signature  # without the state
        self.bound: Mapping[str, Any] = self.arguments.bound
        self.name: str = func.__name__
        self._is_method = False
        self.num_api_spec_tokens = checked_spec_tokens(num_api_spec_tokens)

    def __set_name__(self, owner: type, name: str) -> None:
        """Called for a program that is defined in the body of a class: it is a method, with the instance first."""
        self._is_method = self.func.__qualname__ == f"{owner.__qualname__}.{name}"

    def __get__(self, instance: object, owner: type | None = None) -> SglFunction[..., R]:
        """The program of a method, for one instance."""
        if instance is None or not self._is_method:
            return self
        return SglFunction(MethodType(self.func, instance), self.bound, self.num_api_spec_tokens)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ProgramState:
        """The same as `run`; in the body of a program it begins when its result is used, see `deferred`."""
        kept = current_body() is not None or (self.is_async and running_loop() is not None)
        if kept and not self.arguments.call(args, kwargs).options.get("stream"):
            return DeferredState(self, args, kwargs)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> ProgramState:
        """Run the program, and return its state when everything it has added is done.

        Args:
            *args: of the program.
            **kwargs: of the program. Besides: ``max_new_tokens=128``, ``temperature=1.0`` and the other sampling
                parameters, which hold for every gen that does not say otherwise; ``backend``; ``timeout`` in
                seconds; ``hooks``, e.g. ``{"gen_end": function}``, see `sgl_like.on`; ``stream=True`` to return
                at once, while the body runs on a thread of a pool.

        A generation that fails does not raise here but where its result is read. What the body itself raises
        is raised unchanged (with ``stream``, kept in the state).

        Raises:
            TypeError: the arguments do not fit the program.
            ProgramError: called from the event loop of an async program, which it would block.
        """
        if (instead := calls_instead.get()) is not None:
            return instead.call(self, args, kwargs)
        call = self.arguments.call(args, kwargs)
        body = self._body(call)
        return body.start() if call.options.get("stream") else body.run()

    def stream(self, *args: Any, **kwargs: Any) -> ProgramState:
        """``run(..., stream=True)``: the state at once, while the body runs on a thread of a pool.

        ``for text in f.stream(x)`` gives the text as it arrives; to leave the loop cancels the program.
        """
        return self._body(self._streaming(args, kwargs)).start()

    async def arun(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`run` for a coroutine: waiting leaves the event loop free, and to cancel the task cancels the program.

        The body of an ``async def`` program runs in the caller's task, that of a plain one on a thread of a pool
        (see `sgl_like.set_worker_threads`). Arguments and errors are those of `run`.
        """
        if (instead := calls_instead.get()) is not None:
            return await instead.acall(self, args, kwargs)
        call = self.arguments.call(args, kwargs)
        body = self._body(call)
        return body.astart() if call.options.get("stream") else await body.arun()

    def astream(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`stream` from a coroutine: the state at once, while the body runs as a task of this event loop.

        ``async for text in f.astream(x)`` gives the text as it arrives; to leave the loop cancels the program.
        """
        return self._body(self._streaming(args, kwargs)).astart()

    def bind(self, **kwargs: Any) -> SglFunction[..., R]:
        """Give some arguments ahead; a later call may still give others in their place.

        Raises:
            TypeError: the program has no such parameter.
        """
        return SglFunction(self.func, {**self.bound, **kwargs}, self.num_api_spec_tokens)

    def trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the body once without a model, and return the steps it takes.

        Args:
            *args: of the program.
            **kwargs: of the program; those without a default that are missing are unknown. Besides: ``values``, a
                dict of what gens and selects shall have given (text, or an iterator with one for each time that the
                name comes); ``backend``, whose chat template and tokenizer are used; ``template``, another chat
                template: a registered name, Jinja text, or the path of a file with that.

        An unknown value can be put into text, where it is shown as ``{{name}}``.

        Raises:
            TraceError: the body asked for a value that is unknown, e.g. branched on it; says which.
            ProgramError: the program would fail whatever the values are.
            TypeError: the arguments do not fit the program.
        """
        from sgl_like.frontend.inspect.run import traced

        return traced(self, args, kwargs).trace

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """What the program does, to be printed, or exported by ``.mermaid()``. Arguments and errors: see `trace`."""
        from sgl_like.frontend.inspect.graph import Graph

        return Graph(self.trace(*args, **kwargs))

    def lint(self, *args: Any, **kwargs: Any) -> list[Finding]:
        """What is wrong in the program, or most likely not meant, in the order of its lines; found without a model.

        Arguments: see `trace`; the more is given, the more is looked at. With a ``backend`` it is also checked whether
        shortest outputs fit into ``max_tokens`` in its tokens, and whether it takes all parameters.

        Raises:
            TypeError: the arguments do not fit the program.
        """
        from sgl_like.frontend.inspect.lint import lint

        return lint(self, args, kwargs)

    def render(self, *args: Any, **kwargs: Any) -> str | list[int]:
        """The exact text that a run ends with, without a model; ``{{name}}`` for what is unknown.

        Args:
            *args: as for `trace`.
            **kwargs: as for `trace`. Besides: ``at="name"``, for the prompt that the last gen or select of that name is
                sent; ``tokens=True``, for token ids.

        Without a ``backend``, and if no default one is set, roles and tokens are those of the embedded model.

        Raises:
            ValueError: there is no gen or select of that name.
            TraceError: as for `trace`; or token ids of something unknown are asked for.
            ProgramError, TypeError: as for `trace`.
        """
        from sgl_like.frontend.inspect.render import render

        return render(self, args, kwargs)

    def compile(self, backend: Backend | None = None, **constants: Any) -> CompiledFunction[R]:
        """The program with these arguments and this backend bound, and what then is constant prepared.

        The body is traced once, with the other arguments unknown. Its constraints are compiled in the background, and
        the text that all prompts begin with is pinned in the backend's cache while `run_batch` runs.

        Raises:
            TypeError: the program has no such parameter.
            ProgramError: the program fails whatever the other arguments are.
        """
        from sgl_like.frontend.inspect.compiled import compiled

        return compiled(self, backend, constants)

    def cache(self, backend: Backend | None = None) -> None:
        """Compute what all prompts of the program begin with, for later runs to find it in the prefix cache."""
        self.compile(backend).cache()

    @overload
    def run_batch(
        self,
        rows: Rows,
        *,
        backend: Backend | None = ...,
        num_threads: int | Literal["auto"] = ...,
        progress_bar: bool = ...,
        generator_style: Literal[False] = ...,
        on_error: Literal["return", "raise"] = ...,
        max_retries: int = ...,
        timeout: float | None = ...,
        backoff: Backoff = ...,
        as_completed: bool = ...,
        checkpoint: str | PathLike[str] | None = ...,
        **sampling: Any,
    ) -> list[ProgramState]: ...

    @overload
    def run_batch(
        self,
        rows: Rows,
        *,
        backend: Backend | None = ...,
        num_threads: int | Literal["auto"] = ...,
        progress_bar: bool = ...,
        generator_style: Literal[True],
        on_error: Literal["return", "raise"] = ...,
        max_retries: int = ...,
        timeout: float | None = ...,
        backoff: Backoff = ...,
        as_completed: bool = ...,
        checkpoint: str | PathLike[str] | None = ...,
        **sampling: Any,
    ) -> Generator[ProgramState, None, None]: ...

    def run_batch(
        self,
        rows: Rows,
        *,
        backend: Backend | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        on_error: Literal["return", "raise"] = "return",
        max_retries: int = 0,
        timeout: float | None = None,
        backoff: Backoff = exponential_backoff,
        as_completed: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        **sampling: Any,
    ) -> list[ProgramState] | Generator[ProgramState, None, None]:
        """Run the program on each row, many at a time; one finished state per row, in the order of the rows.

        Args:
            rows: each a dict of keyword arguments or a tuple of positional ones. Anything but a list or tuple of
                rows is read as it is needed; it may be an asynchronous iterator. ``state.row`` is a row's number.
            backend: what runs it; by default the default one.
            num_threads: how many rows at a time; "auto" is 64.
            progress_bar: show one on stderr.
            generator_style: return an iterator that runs ahead of its consumer by a bounded number of rows; to
                close it cancels what is running.
            on_error: ``"return"``: a row that fails, also by an exception of the body, is a state with an
                ``error()``. ``"raise"``: the first such error, in the order of the states, is raised and the rest
                cancelled.
            max_retries: how many times more to run a row whose failure may be transient, see
                `sgl_like.frontend.batches.retry.is_transient`. Such a row is run from its beginning, body and all.
            timeout: seconds after which a run of a row fails, waiting for a thread not counted. The batch goes on even
                if the body does not notice. What ran out of time may be transient.
            backoff: seconds to wait before attempt 1, 2, ... after the first.
            as_completed: hand out the states in the order in which they end.
            checkpoint: JSONL file that gets a line for each row as soon as it has ended. If it is there, rows that have
                ended in it without an error are not run but restored from it, and the others are. Program, bound
                arguments, sampling parameters, model and rows have to be those it was written with.
            **sampling: as for `run`.

        Raises:
            ProgramError: a row of a list has the wrong shape (before anything runs); or see `on_error`.
            TypeError: an option is unknown.
            ValueError: an option is out of range.
            DataError: the checkpoint cannot be written, or is of something else; says what, or which row.
        """
        batch = self._batch("run_batch", rows, backend, sampling, BatchOptions(
            num_threads=num_threads, progress_bar=progress_bar, on_error=on_error, max_retries=max_retries,
            timeout=timeout, backoff=backoff, as_completed=as_completed, checkpoint=checkpoint,
        ))  # fmt: skip
        return batch.states() if generator_style else list(batch.states())

    def abatch(
        self,
        rows: Rows,
        *,
        backend: Backend | None = None,
        max_concurrency: int = 64,
        progress_bar: bool = False,
        on_error: Literal["return", "raise"] = "return",
        max_retries: int = 0,
        timeout: float | None = None,
        backoff: Backoff = exponential_backoff,
        as_completed: bool = False,
        checkpoint: str | PathLike[str] | None = None,
        **sampling: Any,
    ) -> AsyncBatch:
        """`run_batch` for coroutines: ``await`` it for a list of states, or take them by ``async for``.

        To stop iterating, or to cancel the task, cancels what is running.

        Args:
            rows: as for `run_batch`.
            backend: what runs it; by default the default one.
            max_concurrency: how many rows at a time.
            progress_bar: show one on stderr.
            on_error: this and the others are as for `run_batch`.
            max_retries: see there.
            timeout: see there.
            backoff: see there.
            as_completed: see there.
            checkpoint: see there; one that `run_batch` has begun can be continued, and the other way round.
            **sampling: as for `run`.

        Raises:
            TypeError, ValueError, ProgramError: as for `run_batch`; other errors when it is awaited or iterated.
        """
        return AsyncBatch(self._batch("abatch", rows, backend, sampling, BatchOptions(
            num_threads=max_concurrency, progress_bar=progress_bar, on_error=on_error, max_retries=max_retries,
            timeout=timeout, backoff=backoff, as_completed=as_completed, checkpoint=checkpoint,
        )))  # fmt: skip

    def _batch(
        self,
        caller: str,
        rows: Rows,
        backend: Backend | None,
        sampling: Mapping[str, Any],
        options: BatchOptions,
    ) -> Batch:
        check_sampling_options(caller, sampling)
        chosen = self._chosen(backend)
        prefix = self._shared_prefix(chosen)
        program = BatchProgram(
            name=self.name,
            make_state=lambda: self._state(chosen, sampling, stream=False),
            make_call=self.arguments.row,
            make_body=lambda state, call: Body(self.func, self.is_async, state, call, None),
            call_later=chosen.executor.call_later,
            fingerprint=lambda: fingerprint(self.func, self.bound, sampling, chosen.fingerprint),
            ended=prefix.saw,
        )
        return Batch(rows=rows, program=program, options=options, around=prefix.held)

    def _chosen(self, backend: Backend | None) -> Backend:
        return resolve_backend(backend)

    def _shared_prefix(self, backend: Backend) -> SharedPrefix:
        return SharedPrefix(backend)

    def _streaming(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        call = self.arguments.call(args, kwargs)
        call.options["stream"] = True
        return call

    def _body(self, call: Call) -> Body:
        options = dict(call.options)
        timeout = positive_seconds(options.pop("timeout", None))
        stream, hooks = bool(options.pop("stream", False)), Hooks(options.pop("hooks", None))
        state = self._state(options.pop("backend", None), options, stream, hooks)
        return Body(self.func, self.is_async, state, call, timeout)

    def _state(
        self, backend: Backend | None, sampling: Mapping[str, Any], stream: bool, hooks: Hooks | None = None
    ) -> ProgramState:
        if self._is_method:
            raise TypeError(f"{self.func.__qualname__} is a method; call it on an instance")
        if calls_instead.get() is not None:
            raise TraceError(f"{self.name}: only plain calls of programs can be traced, no batch or stream")
        given = {name: value for name, value in sampling.items() if value is not None}
        chosen = speculating(self._chosen(backend), self.num_api_spec_tokens)
        context = RunContext(chosen, self.name, {**RUN_DEFAULTS, **given}, stream, hooks or Hooks())
        return ProgramState(Interpreter(context))
