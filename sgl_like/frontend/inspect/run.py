"""Running a body under a trace, with what is not given as unknown values."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sgl_like.errors import ProgramError, TraceError
from sgl_like.frontend.backend.default import default_if_set
from sgl_like.frontend.backend.dry import DryBackend
from sgl_like.frontend.bodies.current import running_body
from sgl_like.frontend.bodies.deferred import begin_deferred, begin_deferred_async
from sgl_like.frontend.inspect.active import calls_instead
from sgl_like.frontend.inspect.trace import Trace
from sgl_like.frontend.inspect.tracer import TraceContext, TraceInterpreter, Tracer, TraceState
from sgl_like.frontend.params import RUN_DEFAULTS, SAMPLING_OPTIONS

if TYPE_CHECKING:
    from sgl_like.frontend.function import SglFunction

__all__ = ["Traced", "split_options", "traced"]

_OPTIONS = SAMPLING_OPTIONS | {"backend", "template", "values"}


class Traced(NamedTuple):
    """A trace, with what it was made by."""

    trace: Trace
    state: TraceState
    tracer: Tracer
    backend: DryBackend
    failure: Exception | None  # what ended a lenient trace before the end of the program


def traced(
    function: SglFunction[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    lenient: bool = False,
) -> Traced:
    """Run the body of `function` once, without a model.

    Args:
        function: the program.
        args: of the program.
        kwargs: of the program. Besides ``backend``, ``template``, ``values``, and sampling parameters as for a run.
        lenient: whatever happens in the body is no error, but is noted.

    Raises:
        TraceError: the body asked for a value that is not known.
        TypeError: the program has no such parameter.
        ProgramError: the program fails whatever the values are.
    """
    own, options = split_options(function, kwargs, _OPTIONS)
    real = options.pop("backend", None) or default_if_set()
    tracer = Tracer(function.name, options.pop("values", None) or {}, lenient)
    setting = _Setting(tracer, DryBackend(real, options.pop("template", None)), options)
    given = _arguments(function, args, own, tracer)
    state = setting.state(function, Trace(function.name, given.arguments))
    failure: Exception | None = None
    try:
        setting.run(function, state, given)
    except Exception as error:
        if not lenient:
            raise
        failure = error
    state._interpreter.wait()
    tracer.finish()
    trace = state._interpreter.trace
    trace.ret_value = tracer.unknowns.shown_in(trace.ret_value)
    return Traced(trace, state, tracer, setting.backend, failure)


def split_options(
    function: SglFunction[..., Any], kwargs: Mapping[str, Any], names: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell options of these names from the rest; a parameter of the program is no option."""
    mine = {name for name in kwargs if name in names and name not in function.__signature__.parameters}
    rest = {name: value for name, value in kwargs.items() if name not in mine}
    return rest, {name: kwargs[name] for name in mine}


class _Setting(NamedTuple):
    """What the programs of one trace have in common."""

    tracer: Tracer
    backend: DryBackend
    defaults: Mapping[str, Any]

    def state(self, function: SglFunction[..., Any], trace: Trace) -> TraceState:
        """A state whose steps are noted in `trace`."""
        defaults = {**RUN_DEFAULTS, **self.defaults}
        context = TraceContext(self.backend, function.name, defaults, False, tracer=self.tracer, trace=trace)
        return TraceState(TraceInterpreter(context))

    def run(self, function: SglFunction[..., Any], state: TraceState, given: inspect.BoundArguments) -> None:
        """Run a body, an async one on an event loop for it alone."""
        if function.is_async:
            work, context = self.arun(function, state, given), contextvars.copy_context()
            with ThreadPoolExecutor(1) as thread:  # this one may have a loop that runs already
                return thread.submit(context.run, asyncio.run, work).result()
        with self._noted(state) as trace:
            trace.ret_value = function.func(state, *given.args, **given.kwargs)
            begin_deferred(state._interpreter)

    async def arun(
        self, function: SglFunction[..., Any], state: TraceState, given: inspect.BoundArguments
    ) -> None:
        """Run the body of an async program."""
        with self._noted(state) as trace:
            trace.ret_value = await function.func(state, *given.args, **given.kwargs)
            await begin_deferred_async(state._interpreter)

    @contextmanager
    def _noted(self, state: TraceState) -> Iterator[Trace]:
        """The body of `state` runs in this block."""
        trace = state._interpreter.trace
        token = calls_instead.set(_Calls(self, trace))
        try:
            with running_body(state._interpreter):
                yield trace
        except ProgramError:
            raise
        except Exception as error:
            if not self.tracer.unknowns.made:
                raise
            raise self._explained(error) from error
        finally:
            calls_instead.reset(token)
        state._finish(trace.ret_value)
        state._interpreter.wait()
        state._interpreter.raise_error()

    def _explained(self, error: Exception) -> TraceError:
        unknown = list(dict.fromkeys(each._root._what for each in self.tracer.unknowns.made))
        return TraceError(
            f"{self.tracer.program}: the body raised {type(error).__name__}: {error}; not known in this trace:"
            f" {', '.join(unknown)}. Arguments can be given, and what is generated, by values={{name: text}}",
            program=self.tracer.program,
        )


class _Calls(NamedTuple):
    """Calls of programs in a body that is traced: each has a state of its own, whose steps belong to the caller's."""

    setting: _Setting
    caller: Trace

    def call(
        self, called: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TraceState:
        """See `CallsInstead`."""
        state, given = self._begun(called, args, kwargs)
        self.setting.run(called, state, given)
        return state

    async def acall(
        self, called: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TraceState:
        """See `CallsInstead`."""
        state, given = self._begun(called, args, kwargs)
        if called.is_async:
            await self.setting.arun(called, state, given)
        else:
            await asyncio.to_thread(self.setting.run, called, state, given)
        return state

    def _begun(
        self, called: SglFunction[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TraceState, inspect.BoundArguments]:
        own, _ = split_options(called, kwargs, _OPTIONS | {"stream", "timeout"})
        given = _arguments(called, args, own, self.setting.tracer)
        step = self.setting.tracer.step(self.caller, self.caller.program, "call", f"call {called.name}()")
        trace = Trace(called.name, given.arguments, begins=step)
        self.caller.child_states.append(trace)
        return self.setting.state(called, trace), given


def _arguments(
    function: SglFunction[..., Any], args: tuple[Any, ...], own: Mapping[str, Any], tracer: Tracer
) -> inspect.BoundArguments:
    """What is given, what is bound, defaults, and for the rest unknown values."""
    try:
        given = function.__signature__.bind_partial(*args, **own)
    except TypeError as error:
        raise TypeError(f"{function.name}(): {error}") from None
    for name, parameter in function.__signature__.parameters.items():
        if name in given.arguments:
            continue
        if name in function.bound:
            given.arguments[name] = function.bound[name]
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            given.arguments[name] = tracer.unknowns.argument(name)
    given.apply_defaults()
    return given
