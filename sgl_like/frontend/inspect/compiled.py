"""Compiled programs: what does not depend on the arguments is found, and prepared, before the first run.

    f.compile(backend, examples=EXAMPLES)     traces the body once, with the other arguments unknown
        the constant beginning of the prompts     computed and pinned while `run_batch` runs
        constraints of the gens                   compiled in the background

A compiled program is the program with these arguments and this backend bound; it gives the same results.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from sgl_like.errors import SglError, TraceError
from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.backend.default import resolve_backend
from sgl_like.frontend.batches.prefix import SharedPrefix
from sgl_like.frontend.expr import Gen
from sgl_like.frontend.function import SglFunction
from sgl_like.frontend.inspect.constant import constant_prefix
from sgl_like.frontend.inspect.run import Traced, traced
from sgl_like.frontend.params import request_params

__all__ = ["CompiledFunction", "compiled"]

R = TypeVar("R")


class CompiledFunction(SglFunction[..., R]):
    """A program whose constant parts are prepared.

    Attributes:
        prefix: text that all its prompts begin with.
        prefix_ids: the tokens of it that do not depend on what comes after.
        constraints: one future for each different constraint that is compiled in the background.
    """

    def __init__(self, program: SglFunction[..., R], backend: Backend, run: Traced) -> None:
        super().__init__(program.func, program.bound, program.num_api_spec_tokens)
        self._backend = backend
        self.prefix, self.prefix_ids = constant_prefix(run)
        self.constraints: tuple[Future[None], ...] = tuple(_prepared(backend, run))

    def cache(self, backend: Backend | None = None) -> None:
        """See `SglFunction.cache`; the prefix of another backend is found anew."""
        if backend is not None and backend is not self._backend:
            super().cache(backend)
        elif self.prefix_ids and (release := self._backend.hold_prefix(self.prefix_ids)) is not None:
            release()

    def bind(self, **kwargs: Any) -> CompiledFunction[R]:
        """See `SglFunction.bind`; what is constant with these arguments is prepared anew."""
        return compiled(self, self._backend, kwargs)

    def compile(self, backend: Backend | None = None, **constants: Any) -> CompiledFunction[R]:
        """See `SglFunction.compile`; the backend stays unless another is given."""
        return compiled(self, backend or self._backend, constants)

    def _chosen(self, backend: Backend | None) -> Backend:
        return super()._chosen(self._backend if backend is None else backend)

    def _shared_prefix(self, backend: Backend) -> SharedPrefix:
        return SharedPrefix(backend, self.prefix_ids if backend is self._backend else ())


def compiled(
    function: SglFunction[..., R], backend: Backend | None, constants: Mapping[str, Any]
) -> CompiledFunction[R]:
    """See `SglFunction.compile`."""
    chosen = resolve_backend(backend)
    bound = SglFunction.bind(function, **constants)
    run = traced(bound, (), {"backend": chosen}, lenient=True)
    if run.failure is not None and not isinstance(run.failure, TraceError):
        raise run.failure
    return CompiledFunction(bound, chosen, run)


def _prepared(backend: Backend, run: Traced) -> list[Future[None]]:
    """The constraints that are known, being compiled."""
    futures: dict[str, Future[None]] = {}
    defaults = run.state._interpreter.context.defaults
    for step in run.trace.walk():
        if isinstance(step.node, Gen) and not run.tracer.unknowns.are_in(step.node.params):
            try:
                params = request_params(defaults, step.node.params, backend)
                future = backend.prepare(params)
            except SglError:
                continue  # its run will say so
            if future is not None:
                futures.setdefault(repr(sorted(params.items(), key=lambda item: item[0])), future)
    return list(futures.values())
