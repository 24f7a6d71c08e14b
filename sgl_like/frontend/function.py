"""``@function``: a Python function as a program.

The function's own parameters come first: an argument that it declares is its, even if a sampling parameter has
the same name (bind it, or give a default in ``gen``). What is left must be a sampling parameter, which then is
the default for every ``gen`` of the run, or one of ``backend`` and ``stream``.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, NamedTuple, ParamSpec, TypeVar, overload

from sgl_like.errors import ProgramError
from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.backend.default import resolve_backend
from sgl_like.frontend.batch import Batch, Row
from sgl_like.frontend.inspect.active import calls_instead
from sgl_like.frontend.interpreter import Interpreter, RunContext
from sgl_like.frontend.params import RUN_DEFAULTS, SAMPLING_OPTIONS
from sgl_like.frontend.state import ProgramState
from sgl_like.frontend.workers import in_thread

if TYPE_CHECKING:
    from sgl_like.frontend.inspect.graph import Graph
    from sgl_like.frontend.inspect.trace import Trace

__all__ = ["SglFunction", "function"]

P = ParamSpec("P")
R = TypeVar("R")
_OPTIONS = SAMPLING_OPTIONS | {"backend", "stream"}


class Call(NamedTuple):
    """Arguments of one run, sorted."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]


class SglFunction(Generic[P, R]):
    """A program. Call it (or ``run`` it) to get a `ProgramState`; its own arguments keep their types."""

    def __init__(
        self, func: Callable[Concatenate[ProgramState, P], R], bound: Mapping[str, Any] | None = None
    ) -> None:
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func.__qualname__}: async programs are not supported yet; use a plain def")
        functools.update_wrapper(self, func)
        self.func = func
        self._bound = dict(bound or {})
        parameters = list(inspect.signature(func).parameters.values())
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise TypeError(
                f"{func.__qualname__}: a program needs a first parameter for its state, e.g. def f(s, ...)"
            )
        self.__signature__ = inspect.Signature(parameters[1:])
        self.name: str = func.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ProgramState:
        """The same as `run`."""
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> ProgramState:
        """Run the program, and return its state when everything it has added is done.

        Args:
            *args: of the program.
            **kwargs: of the program. Besides: ``max_new_tokens=128``, ``temperature=1.0`` and the other sampling
                parameters, which hold for every gen that does not say otherwise; ``backend``; ``stream=True`` to
                return at once, while the body runs in a thread of its own.

        A generation that fails does not raise here but where its result is read. What the body itself raises
        is raised unchanged (with ``stream``, kept in the state).

        Raises:
            TypeError: the arguments do not fit the program.
        """
        if (instead := calls_instead.get()) is not None:
            return instead(self, args, kwargs)
        call = self._sorted(args, kwargs)
        stream = bool(call.options.pop("stream", False))
        state = self._state(call.options.pop("backend", None), call.options, stream)
        if stream:
            state._interpreter.body_thread = -1  # none yet, but not the reader's either
            in_thread(functools.partial(self._run_apart, state, call), f"sgl-{self.name}")
            return state
        try:
            state._finish(self.func(state, *call.args, **call.kwargs))
            state._interpreter.wait()
        except BaseException as error:
            state._interpreter.cancel(error)
            raise
        return state

    def stream(self, *args: Any, **kwargs: Any) -> ProgramState:
        """``run(..., stream=True)``."""
        return self.run(*args, **kwargs, stream=True)

    def bind(self, **kwargs: Any) -> SglFunction[..., R]:
        """Give some arguments ahead; a later call may still give others in their place.

        Raises:
            TypeError: the program has no such parameter.
        """
        self.__signature__.bind_partial(**kwargs)
        return SglFunction(self.func, {**self._bound, **kwargs})

    def trace(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the body once without a model, and return the steps it takes.

        Args:
            *args: of the program.
            **kwargs: of the program; those without a default that are missing are unknown. Besides: ``values``, a
                dict of what gens and selects shall have given (text, or an iterator with one for each time that the
                name comes), and ``backend``, whose chat template and tokenizer are used.

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

    def render(self, *args: Any, **kwargs: Any) -> str | list[int]:
        """The exact text that a run ends with, without a model; ``{{name}}`` for what is unknown.

        Args:
            *args: as for `trace`.
            **kwargs: as for `trace`. Besides: ``at="name"``, for the prompt that the last gen or select of that name is
                sent instead; ``tokens=True``, for its token ids.

        Without a ``backend``, and if no default one is set, roles and tokens are those of the embedded model.

        Raises:
            ValueError: there is no gen or select of that name.
            TraceError: as for `trace`; or token ids of something unknown are asked for.
            ProgramError, TypeError: as for `trace`.
        """
        from sgl_like.frontend.inspect.render import render

        return render(self, args, kwargs)

    @overload
    def run_batch(
        self,
        rows: Iterable[Row],
        *,
        backend: Backend | None = ...,
        num_threads: int | Literal["auto"] = ...,
        progress_bar: bool = ...,
        generator_style: Literal[False] = ...,
        on_error: Literal["return", "raise"] = ...,
        **sampling: Any,
    ) -> list[ProgramState]: ...

    @overload
    def run_batch(
        self,
        rows: Iterable[Row],
        *,
        backend: Backend | None = ...,
        num_threads: int | Literal["auto"] = ...,
        progress_bar: bool = ...,
        generator_style: Literal[True],
        on_error: Literal["return", "raise"] = ...,
        **sampling: Any,
    ) -> Generator[ProgramState, None, None]: ...

    def run_batch(
        self,
        rows: Iterable[Row],
        *,
        backend: Backend | None = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        on_error: Literal["return", "raise"] = "return",
        **sampling: Any,
    ) -> list[ProgramState] | Generator[ProgramState, None, None]:
        """Run the program on each row, many at a time; one finished state per row, in the order of the rows.

        Args:
            rows: each a dict of keyword arguments or a tuple of positional ones. Anything but a list or tuple of
                rows is read as it is needed.
            backend: what runs it; by default the default one.
            num_threads: how many rows at a time; "auto" is 64.
            progress_bar: show one on stderr.
            generator_style: return an iterator that runs ahead of its consumer by a bounded number of rows; to
                close it cancels what is running.
            on_error: ``"return"``: a row that fails, also by an exception of the body, is a state with an
                ``error()``. ``"raise"``: the first such error, in row order, is raised and the rest cancelled.
            **sampling: as for `run`.

        Raises:
            ProgramError: a row of a list has the wrong shape (before anything runs); or see `on_error`.
            TypeError: an option is unknown.
        """
        unknown = sorted(set(sampling) - SAMPLING_OPTIONS)
        if unknown:
            raise TypeError(f"run_batch() got an unexpected keyword argument {unknown[0]!r}")
        if on_error not in ("return", "raise"):
            raise ValueError(f'on_error must be "return" or "raise", not {on_error!r}')
        if num_threads != "auto" and (not isinstance(num_threads, int) or num_threads < 1):
            raise ValueError(f'num_threads must be "auto" or at least 1, not {num_threads!r}')
        if isinstance(rows, (list, tuple)):
            for number, row in enumerate(rows):
                self._row_call(number, row)
        chosen = resolve_backend(backend)
        batch = Batch(
            rows=rows,
            make_state=lambda: self._state(chosen, sampling, stream=False),
            make_call=self._row_call,
            run=self._run_apart,
            name=self.name,
            threads=64 if num_threads == "auto" else num_threads,
            progress_bar=progress_bar,
            raising=on_error == "raise",
        )
        return batch.states() if generator_style else list(batch.states())

    def _state(self, backend: Backend | None, sampling: Mapping[str, Any], stream: bool) -> ProgramState:
        given = {name: value for name, value in sampling.items() if value is not None}
        context = RunContext(resolve_backend(backend), self.name, {**RUN_DEFAULTS, **given}, stream)
        return ProgramState(Interpreter(context))

    def _run_apart(self, state: ProgramState, call: Call) -> None:
        """Run the body in this thread for a caller in another; whatever happens is kept in the state."""
        interpreter = state._interpreter
        if interpreter.body_thread is not None:
            interpreter.body_thread = threading.get_ident()
        try:
            state._finish(self.func(state, *call.args, **call.kwargs))
        except BaseException as error:
            interpreter.cancel(error)
            interpreter.close("the program has failed")
        interpreter.wait()

    def _sorted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Tell the program's arguments from the run's options."""
        parameters = self.__signature__.parameters
        own = {name: value for name, value in kwargs.items() if name in parameters or name not in _OPTIONS}
        options = {name: value for name, value in kwargs.items() if name not in own}
        return self._filled(args, own, options)

    def _filled(self, args: tuple[Any, ...], own: Mapping[str, Any], options: dict[str, Any]) -> Call:
        """Check the program's arguments, and add those that are bound."""
        try:
            given = self.__signature__.bind_partial(*args, **own).arguments
            bound = {name: value for name, value in self._bound.items() if name not in given}
            filled = self.__signature__.bind(*args, **own, **bound)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        return Call(filled.args, filled.kwargs, options)

    def _row_call(self, number: int, row: Row) -> Call:
        """A row holds arguments of the program only; options hold for the whole batch."""
        try:
            if isinstance(row, Mapping):
                return self._filled((), row, {})
            if isinstance(row, (tuple, list)):
                return self._filled(tuple(row), {}, {})
            raise TypeError(f"a row must be a dict or a tuple of arguments, not {type(row).__name__}")
        except TypeError as error:
            raise ProgramError(f"row {number}: {error}", program=self.name) from error


@overload
def function(func: Callable[Concatenate[ProgramState, P], R], /) -> SglFunction[P, R]: ...


@overload
def function() -> Callable[[Callable[Concatenate[ProgramState, P], R]], SglFunction[P, R]]: ...


def function(func: Callable[..., Any] | None = None, /) -> Any:
    """Make a program of a function whose first parameter, of any name, is the state.

    Raises:
        TypeError: it has no such parameter, or is a coroutine function.
    """
    return SglFunction if func is None else SglFunction(func)
