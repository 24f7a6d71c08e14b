"""Hooks: functions of the user that are told what programs do, for logs, counters and traces.

    run_start ── gen_start ── gen_end ── gen_start ── error ── run_end

A hook is called between two steps of the program that it is about, on whatever thread the step is done, and never
while a lock is held. The program goes on when it returns: whoever reads a value does so after the hooks of its
``gen_end``. So it should be quick, and cannot wait for the program itself. What it raises is logged and goes no
further.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_like.errors import ProgramError
from sgl_like.runtime.protocol import Usage

__all__ = ["EVENTS", "Event", "Hook", "Hooks", "on"]

EVENTS = ("run_start", "run_end", "gen_start", "gen_end", "error")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What has happened.

    Args:
        name: one of `EVENTS`. ``gen_start`` and ``gen_end`` are of gens and selects; one that fails has an ``error`` in
            place of its ``gen_end``. Everything between ``run_start`` and ``run_end`` of a run has its number.
        run: number of the run in this process.
        program: name of the program; of one that is called in another, ``"outer > inner"``.
        model: name of the model.
        gen: number of the gen or select within the process; ``None`` for what is about the whole run.
        node: what runs, e.g. ``"gen('answer')"``.
        variable: its variable.
        value: at ``gen_end``, of the variable; at ``run_end``, what the body returned.
        meta: at ``gen_end``, as from ``s.get_meta_info``.
        usage: at ``gen_end`` and ``run_end``, the tokens it took.
        error: at ``error``, and at ``run_end`` if the run has failed.
    """

    name: str
    run: int
    program: str
    model: str
    gen: int | None = None
    node: str | None = None
    variable: str | None = None
    value: Any = None
    meta: Mapping[str, Any] | None = None
    usage: Usage | None = None
    error: ProgramError | None = None


Hook = Callable[[Event], object]

_lock = threading.Lock()
_of_all: dict[str, tuple[Hook, ...]] = {}
_numbers = itertools.count(1)


def on(event: str, hook: Hook) -> Callable[[], None]:
    """Call `hook` with an `Event` whenever `event` happens in any run; returns a function that ends this.

        sgl.on("gen_end", lambda event: print(event.node, event.usage))

    Args:
        event: one of ``"run_start"``, ``"run_end"``, ``"gen_start"``, ``"gen_end"`` and ``"error"``.
        hook: what is called, on any thread; see `Event` for what it is told. For one run only, give
            ``hooks={"gen_end": hook}`` to it.

    Raises:
        ValueError: there is no such event.
        TypeError: `hook` cannot be called.
    """
    _check(event, hook)
    with _lock:
        _of_all[event] = (*_of_all.get(event, ()), hook)

    def remove() -> None:
        with _lock:
            hooks = list(_of_all[event])
            if hook in hooks:
                hooks.remove(hook)
            _of_all[event] = tuple(hooks)

    return remove


class Hooks:
    """The hooks of one run: those of all runs, then its own.

    Args:
        own: what was given as ``hooks=``: to each event a function, or a list of them.

    Raises:
        ValueError, TypeError: as for `on`.
    """

    def __init__(self, own: Mapping[str, Hook | Sequence[Hook]] | None = None) -> None:
        if own is not None and not isinstance(own, Mapping):
            raise TypeError(f'hooks must be a dict such as {{"gen_end": function}}, not {type(own).__name__}')
        self._own: dict[str, tuple[Hook, ...]] = {}
        self.run = next(_numbers)
        for event, hooks in (own or {}).items():
            listed = tuple(hooks) if isinstance(hooks, Sequence) else (hooks,)
            for hook in listed:
                _check(event, hook)
            self._own[event] = listed

    def heard(self, name: str) -> bool:
        """Whether an event has any hooks."""
        return bool(_of_all.get(name) or self._own.get(name))

    def tell(self, name: str, **what: Any) -> None:
        """Call the hooks of an event. `what` are fields of `Event`."""
        hooks = (*_of_all.get(name, ()), *self._own.get(name, ()))
        if not hooks:
            return
        event = Event(name=name, run=self.run, **what)
        for hook in hooks:
            try:
                hook(event)
            except BaseException:  # also sys.exit(): the thread it is called on belongs to all programs
                _log.exception("a hook of %s raised", name)


def _check(event: str, hook: Any) -> None:
    if event not in EVENTS:
        raise ValueError(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
    if not callable(hook):
        raise TypeError(f"a hook must be a function, not {type(hook).__name__}")
