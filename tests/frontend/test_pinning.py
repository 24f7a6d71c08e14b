"""Prefixes that a program keeps in the backend's cache.

Marks: c#10.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


class Keeping(FakeBackend):
    """Notes what is held; `gate` lets `hold_prefix` end."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []
        self.released = 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.failure: Exception | None = None

    def hold_prefix(self, prefix_ids: Sequence[int]) -> Callable[[], None]:
        self.begun.set()
        assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        self.held.append(self.decode(prefix_ids))

        def release() -> None:
            self.released += 1
            self.let_go.set()

        return release


@sgl.function
def program(s: Any, kept: Any = None) -> None:
    s += "one two three"
    with sgl.pinned(s):
        forks = s.fork(2)
        forks += "!" + sgl.gen("x")
        forks.join()
        if kept is not None:
            s.sync()
            assert (kept.held, kept.released) == (["one two"], 0)
    s += "." + sgl.gen("y")


def test_what_a_state_has_is_held_while_the_block_runs() -> None:
    backend = Keeping()
    state = program.run(backend, backend=backend)
    assert (backend.held, backend.released) == (["one two"], 1), "the last token may merge with what comes"
    assert state["x"] == ["answer 1", "answer 2"]
    plain = program.run(backend=FakeBackend())
    assert state.text() == plain.text() and backend.calls[-1].prompt == "one two three."


def test_a_backend_that_keeps_nothing_takes_no_notice() -> None:
    assert program.run(backend=FakeBackend()).error() is None


def test_an_empty_state_has_nothing_to_hold() -> None:
    backend = Keeping()

    @sgl.function
    def empty(s: Any) -> None:
        with sgl.pinned(s):
            s += "a" + sgl.gen("x")

    assert empty.run(backend=backend)["x"] == "answer 1"
    assert backend.held == []


def test_what_cannot_be_held_fails_the_state() -> None:
    backend = Keeping()
    backend.failure = sgl.RequestError("too long")
    error = program.run(backend=backend).error()
    assert error is not None and "pinned(): RequestError: too long" in str(error)


def test_a_state_that_fails_holds_nothing() -> None:
    backend = Keeping()
    backend._respond = lambda call: ValueError("broken")
    assert program.run(backend=backend).error() is not None
    assert backend.let_go.wait(20) and backend.released == 1


def test_cancelled_while_the_backend_computes() -> None:
    backend = Keeping()
    backend.gate.clear()
    state = program.stream(backend=backend)
    assert backend.begun.wait(20)
    state.cancel()
    assert state.error() is not None
    backend.gate.set()
    assert backend.let_go.wait(20) and backend.released == 1


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder: Path = make_model(tmp_path_factory.mktemp("pins"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 20) as runtime:
        yield runtime


def test_c10_pinned_in_the_engine(runtime: sgl.Runtime) -> None:
    @sgl.function
    def counting(s: Any) -> None:
        s += "a" * 50
        before = sgl.cache_stats(runtime).pinned
        with sgl.pinned(s):
            s += "b" + sgl.gen("x", max_tokens=2)
            s.sync()
            counts.append(sgl.cache_stats(runtime).pinned - before)
        s.sync()
        counts.append(sgl.cache_stats(runtime).pinned - before)

    counts: list[int] = []
    counting.run(backend=runtime)
    assert counts == [49, 0]


def test_batches_keep_their_prefix_unless_told_otherwise() -> None:
    @sgl.function
    def rows(s: Any, word: str) -> None:
        s += "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h " + word + sgl.gen("x")

    words = [{"word": f"w{number}"} for number in range(6)]
    try:
        sgl.global_config.enable_precache_with_tracing = False
        quiet = Keeping()
        rows.run_batch(words, backend=quiet, num_threads=1)
        assert not quiet.begun.is_set()
    finally:
        sgl.global_config.enable_precache_with_tracing = True
    keeping = Keeping()
    rows.run_batch(words, backend=keeping, num_threads=1)
    assert keeping.begun.wait(20)


def test_what_a_program_begins_with_can_be_computed_ahead() -> None:
    @sgl.function
    def ask(s: Any, question: str) -> None:
        s += sgl.system("Be brief. Be kind.") + sgl.user(question) + sgl.assistant(sgl.gen("x"))

    backend = Keeping()
    ask.cache(backend)
    (held,) = backend.held
    assert held.startswith("<|system|>Be brief. Be kind.<|end|>") and backend.released == 1
    assert ask.run("?", backend=backend).text().startswith(held)
    assert FakeBackend().hold_prefix([1]) is None
    ask.cache(FakeBackend())
