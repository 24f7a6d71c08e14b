"""Hooks, and the spans that are made by them (c#23)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError, ProgramError
from sgl_like.frontend.bodies.hooks import EVENTS
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def three(s: Any, word: str = "x") -> str:
    s += word + sgl.gen("a") + sgl.select("b", ["1", "22"])
    s += sgl.gen("c")
    return str(s["c"])


@contextmanager
def listening(*names: str) -> Iterator[list[sgl.Event]]:
    events: list[sgl.Event] = []
    removes = [sgl.on(name, events.append) for name in names or EVENTS]
    try:
        yield events
    finally:
        for remove in removes:
            remove()


def test_the_events_of_a_program_with_three_gens(backend: FakeBackend) -> None:
    with listening() as events:
        state = three()
    assert [(event.name, event.variable) for event in events] == [
        ("run_start", None), ("gen_start", "a"), ("gen_end", "a"), ("gen_start", "b"), ("gen_end", "b"),
        ("gen_start", "c"), ("gen_end", "c"), ("run_end", None),
    ]  # fmt: skip
    start, end = events[1], events[2]
    assert start.gen == end.gen is not None and (end.node, end.program, end.model) == (
        "gen('a')",
        "three",
        "fake",
    )
    assert end.value == state["a"] and end.meta == state.get_meta_info("a")
    assert end.usage is not None and end.usage.completion_tokens == end.meta["completion_tokens"]  # type: ignore[index]
    assert len({event.gen for event in events}) == 4 and len({event.run for event in events}) == 1
    assert (
        events[-1].value == state.ret_value and events[-1].usage == state.usage and events[-1].error is None
    )
    three()
    assert len(events) == 8, "nobody listens any more"


def test_hooks_of_one_run(backend: FakeBackend) -> None:
    seen: list[str] = []
    three.run(
        hooks={"gen_end": [lambda event: seen.append(event.variable), lambda event: seen.append(event.node)]}
    )
    assert seen == ["a", "gen('a')", "b", "select('b')", "c", "gen('c')"]
    three()
    assert len(seen) == 6
    for wrong, error, message in (
        ({"gen_stop": print}, ValueError, "no event 'gen_stop'; there are run_start"),
        ({"gen_end": 3}, TypeError, "must be a function, not int"),
        ([print], TypeError, "must be a dict"),
    ):
        with pytest.raises(error, match=message):
            three.run(hooks=wrong)
    with pytest.raises(ValueError, match="no event"):
        sgl.on("nothing", print)


def test_a_failure_is_told_once(backend: FakeBackend) -> None:
    backend._respond = lambda call: EngineError("boom") if len(backend.calls) == 3 else "fine"
    with listening() as events, pytest.raises(ProgramError, match="boom"):
        three()
    names = [event.name for event in events]
    assert names[-3:] == ["gen_start", "error", "run_end"] and names.count("error") == 1
    error = events[-2]
    assert error.variable == "c" and error.gen == events[-3].gen and "boom" in str(error.error)
    assert events[-1].error is error.error

    @sgl.function
    def failing(s: Any) -> None:
        raise LookupError("mine")

    with listening("error") as events:
        failing.stream().sync()
    (event,) = events
    assert event.gen is None and "LookupError: mine" in str(event.error)


def test_a_hook_can_neither_break_nor_stall_a_program(
    backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[Any] = []

    @sgl.function
    def program(s: Any) -> str:
        states.append(s)
        s += "x" + sgl.gen("a")
        s += sgl.gen("b")
        return str(s["b"])

    hooks: Any = {
        "gen_start": lambda event: 1 // 0,
        "gen_end": lambda event: states[0]["b"] if event.variable == "a" else states[0].text(),
    }
    state = program.run(hooks=hooks)
    assert state.ret_value == "answer 2"
    assert "ZeroDivisionError" in caplog.text and "a hook cannot wait" in caplog.text


def test_hooks_are_called_without_locks(backend: FakeBackend) -> None:
    """A hook may look at the state, add to it, and cancel it."""

    @sgl.function
    def program(s: Any) -> None:
        def look(event: sgl.Event) -> None:
            assert event.variable in s._interpreter.variables and repr(s)
            if event.variable == "a":
                s.set_var("seen", event.value)
                s.cancel()

        removes.append(sgl.on("gen_end", look))
        s += "x" + sgl.gen("a") + sgl.gen("b")

    removes: list[Any] = []
    state = program.stream()
    error = state.error()
    removes[0]()
    assert error is not None and "cancelled" in str(error) and state["seen"] == "answer 1"
    assert len(backend.calls) == 1


def test_forks_async_and_called_programs_are_told_of(backend: FakeBackend) -> None:
    @sgl.function
    async def outer(s: Any) -> None:
        s += "x"
        forks = s.fork(2)
        forks += sgl.gen("a")
        forks.join()
        await s.acall(three)

    with listening() as events:
        asyncio.run(outer.arun())
    assert [event.name for event in events].count("gen_end") == 5
    assert {event.program for event in events if event.name == "gen_end"} == {"outer", "outer > three"}


def test_spans(backend: FakeBackend) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    end = sgl.instrument_opentelemetry(provider)
    try:
        with provider.get_tracer("test").start_as_current_span("request"):
            three()
        backend._respond = lambda call: EngineError("boom")
        with pytest.raises(ProgramError):
            three()
        backend.hold()
        ended = threading.Event()
        state = three.run(stream=True, hooks={"run_end": lambda event: ended.set()})
        backend.wait_for_calls(1)
        state.cancel()
        assert ended.wait(timeout=20)
        backend.release()
    finally:
        end()
    with pytest.raises(ProgramError):
        three()
    spans = exporter.get_finished_spans()
    names = [span.name for span in spans]
    assert names == ["gen('a')", "select('b')", "gen('c')", "three", "request", *["gen('a')", "three"] * 2]
    by_name = dict(zip(names[:5], spans[:5], strict=True))
    run = by_name["three"]
    assert all(by_name[name].parent.span_id == run.context.span_id for name in names[:3])
    assert run.parent.span_id == by_name["request"].context.span_id and run.status.is_ok
    attributes = by_name["gen('c')"].attributes
    assert attributes["gen_ai.request.model"] == "fake" and attributes["sgl_like.variable"] == "c"
    assert attributes["gen_ai.usage.output_tokens"] == len("answer 3") + 1
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    for gen, program in (spans[5:7], spans[7:9]):
        assert not gen.status.is_ok and not program.status.is_ok and gen.events[0].name == "exception"


def test_spans_need_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(sgl.ConfigError, match=r"pip install 'sgl-like\[otel\]'"):
        sgl.instrument_opentelemetry()
