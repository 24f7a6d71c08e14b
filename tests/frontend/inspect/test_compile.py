"""Compiled programs, and what every batch keeps of its prompts' common beginning."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import ProgramError, RequestError
from sgl_like.frontend.backend.base import Segment
from sgl_like.frontend.batches.prefix import LEAST, SharedPrefix
from tests.support.frontend_fake_backend import FakeBackend

RULES = "Answer with one word. " * 20


class KeepingBackend(FakeBackend):
    """Notes what is held and let go, and what is prepared."""

    def __init__(self, refuses: Exception | None = None) -> None:
        super().__init__()
        self.held: list[tuple[int, ...]] = []
        self.released: list[tuple[int, ...]] = []
        self.prepared: list[Mapping[str, Any]] = []
        self.calls_when_held: list[int] = []
        self.has_held = threading.Event()
        self.has_released = threading.Event()
        self._refuses = refuses

    def hold_prefix(self, prefix_ids: Sequence[int]) -> Callable[[], None]:
        self.calls_when_held.append(len(self.calls))
        try:
            if self._refuses is not None:
                raise self._refuses
            self.held.append(tuple(prefix_ids))
        finally:
            self.has_held.set()

        def release() -> None:
            self.released.append(tuple(prefix_ids))
            self.has_released.set()

        return release

    def prepare(self, params: Mapping[str, Any]) -> Future[None]:
        self.prepared.append(params)
        future: Future[None] = Future()
        future.set_result(None)
        return future


@sgl.function
def classify(s: Any, text: str, rules: str = RULES) -> None:
    """Classifies a text."""
    s += sgl.system(rules)
    s += sgl.user(f"Text: {text}") + sgl.assistant(sgl.gen("label", regex="[a-z]+", max_tokens=4))


def test_a_compiled_program_keeps_its_prefix_during_a_batch_c13() -> None:
    backend = KeepingBackend()
    program = classify.compile(backend)
    assert not backend.held and not backend.calls, "compiling runs nothing"
    assert program.prefix == f"<|system|>{RULES}<|end|><|user|>Text: "
    states = program.run_batch([{"text": text} for text in "abcd"])
    assert all(state.error() is None for state in states)
    assert backend.calls_when_held == [0], "before the first row"
    assert backend.has_released.wait(20) and backend.held == backend.released == [tuple(program.prefix_ids)]
    assert len(backend.calls) == 4
    for call in backend.calls:
        assert call.ids[: len(program.prefix_ids)] == tuple(program.prefix_ids)
    assert len(program.prefix_ids) >= len(backend.calls[0].ids) - 6


def test_only_tokens_that_cannot_change_are_part_of_the_prefix() -> None:
    """In the fake vocabulary a word has its blank in front: "Text: " ends with a blank that belongs to what follows."""
    backend = KeepingBackend()
    program = classify.compile(backend)
    whole = backend.encode([Segment(program.prefix, True)], start=True)
    assert program.prefix_ids == whole[:-1] and backend.decode(whole[-1:]) == " "


def test_compiling_does_not_change_results_or_arguments() -> None:
    backend = KeepingBackend()
    program = classify.compile(backend, rules="Short.")
    assert program.__name__ == "classify" and program.__doc__ == "Classifies a text."
    assert program("x")["label"] == "answ", "it has its backend"
    assert "Short." in backend.calls[0].prompt
    assert "Longer." in program("x", rules="Longer.").text(), "bound arguments can still be given"
    other = FakeBackend()
    assert program.run("x", backend=other)["label"] == "answ" and len(other.calls) == 1
    with pytest.raises(TypeError):
        classify.compile(backend, nothing=1)


def test_constraints_are_prepared_once_each_c13() -> None:
    @sgl.function
    def program(s: Any, text: str, pattern: str) -> None:
        for _ in range(3):
            s += text + sgl.gen("a", regex="[0-9]+", max_tokens=9)
        s += sgl.gen("b", json_schema={"type": "boolean"}) + sgl.gen("c", regex=pattern)
        if text == "x":
            s += sgl.gen("d", regex="never seen by the trace")

    backend = KeepingBackend()
    compiled = program.compile(backend)
    assert [future.result() for future in compiled.constraints] == [None] * 2
    seen = {str(params.get("regex") or params.get("json_schema")) for params in backend.prepared}
    assert seen == {"[0-9]+", "{'type': 'boolean'}"}


def test_what_is_bound_or_compiled_again_keeps_the_backend() -> None:
    backend, other = KeepingBackend(), KeepingBackend()
    program = classify.compile(backend)
    for again in (program.bind(rules="Short."), program.compile(rules="Short.")):
        assert again.prefix.startswith("<|system|>Short.")
        again("a").sync()
    assert len(backend.calls) == 2
    program.compile(other)("a").sync()
    assert len(other.calls) == 1


def test_a_program_that_cannot_run_is_not_compiled() -> None:
    @sgl.function
    def nested(s: Any) -> None:
        s += sgl.user(sgl.user("x"))

    @sgl.function
    def broken(s: Any) -> None:
        raise KeyError("broken")

    with pytest.raises(ProgramError, match="cannot begin inside"):
        nested.compile(FakeBackend())
    with pytest.raises(KeyError, match="broken"):
        broken.compile(FakeBackend())


def test_a_program_without_a_constant_beginning() -> None:
    @sgl.function
    def program(s: Any, text: str) -> None:
        s += text + sgl.gen("a")

    backend = KeepingBackend()
    compiled = program.compile(backend)
    assert compiled.prefix == "" and compiled.prefix_ids == []
    assert len(compiled.run_batch([("a",), ("b",)])) == 2 and not backend.held


def test_a_batch_keeps_what_its_first_rows_share_b10() -> None:
    """b#10: SGLang finds it by running the body once more."""
    ran: list[str] = []

    @sgl.function
    def program(s: Any, text: str) -> None:
        ran.append(text)
        s += RULES + "Text: " + text + sgl.gen("a")

    backend = KeepingBackend()
    states = program.run_batch([(f"text{number}",) for number in range(6)], num_threads=1, backend=backend)
    assert ran == [f"text{number}" for number in range(6)] and all(state.error() is None for state in states)
    assert backend.has_held.wait(20) and backend.has_released.wait(20)
    assert backend.held == backend.released and len(backend.held) == 1
    assert backend.decode(backend.held[0]) == RULES + "Text:"


def test_short_prefixes_are_not_worth_it() -> None:
    @sgl.function
    def program(s: Any, text: str, begin: int) -> None:
        s += "word " * begin + text + sgl.gen("a")

    for begin, kept in ((LEAST // 4, False), (LEAST * 2, True)):
        backend = KeepingBackend()
        program.run_batch([(text, begin) for text in "abc"], num_threads=1, backend=backend)
        assert bool(backend.has_held.wait(20 if kept else 0)) == kept


@pytest.mark.parametrize("error", [RequestError("too long to pin"), ValueError("a bug of the backend")])
def test_a_prefix_that_cannot_be_kept_does_no_harm(error: Exception) -> None:
    backend = KeepingBackend(refuses=error)
    for program in (classify, classify.compile(backend)):
        backend.has_held.clear()
        states = program.run_batch([(text,) for text in "abc"], num_threads=1, backend=backend)
        assert all(state.error() is None for state in states)
        assert backend.has_held.wait(20) and not backend.released


def test_one_prefix_is_kept_however_rows_end() -> None:
    """Rows end on many threads, and some after the batch is over: nothing is kept twice, or for ever."""

    @sgl.function
    def program(s: Any, text: str) -> None:
        s += RULES + text + sgl.gen("a")

    quiet = FakeBackend()
    ended = [program.run(f" Text {number}", backend=quiet) for number in range(16)]
    backend = KeepingBackend()
    prefix = SharedPrefix(backend)
    with prefix.held():
        threads = [threading.Thread(target=prefix.saw, args=(state,)) for state in ended]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert backend.has_held.wait(20)
    assert backend.has_released.wait(20) and len(backend.held) == len(backend.released) == 1
    late = SharedPrefix(backend)
    with late.held():
        late.saw(ended[0])
    late.saw(ended[1])
    assert late._held is None


def test_rows_that_fail_are_not_looked_at() -> None:
    backend = KeepingBackend()
    backend._respond = lambda call: RequestError("no") if "a" in call.prompt[-3:] else "yes"

    @sgl.function
    def program(s: Any, text: str) -> None:
        s += RULES + " Text " + text + "." + sgl.gen("x")

    states = program.run_batch([("a",), ("b",), ("a",), ("c",)], num_threads=1, backend=backend)
    assert [state.error() is None for state in states] == [False, True, False, True]
    assert backend.has_held.wait(20)
    assert backend.decode(backend.held[0]) == RULES + " Text"


def test_coroutines_keep_it_too() -> None:
    backend = KeepingBackend()
    program = classify.compile(backend)

    async def main() -> int:
        return len(await program.abatch([(text,) for text in "abc"]))

    assert asyncio.run(main()) == 3
    assert backend.has_released.wait(20) and backend.held == [tuple(program.prefix_ids)]


def test_a_closed_batch_lets_its_prefix_go() -> None:
    backend = KeepingBackend()
    program = classify.compile(backend)
    batch = program.run_batch([(text,) for text in "abcdef"], num_threads=1, generator_style=True)
    next(batch)
    assert backend.held and not backend.released
    batch.close()
    assert backend.has_released.wait(20)


def test_the_engine_pins_during_the_batch_and_not_after_c13() -> None:
    with sgl.Runtime() as runtime:
        program = classify.compile(runtime)
        for future in program.constraints:
            assert future.result(timeout=60) is None
        pinned: list[int] = []

        @sgl.function
        def watched(s: Any, text: str) -> None:
            pinned.append(runtime.engine.stats()["kv_pinned"])
            s += sgl.system(RULES) + sgl.user(f"Text: {text}") + sgl.assistant(sgl.gen("label", max_tokens=2))

        compiled = watched.compile(runtime)
        pinned.clear()
        states = compiled.run_batch([(text,) for text in "abcd"], num_threads=1)
        assert pinned == [len(compiled.prefix_ids)] * 4 and len(compiled.prefix_ids) > 50
        cached = [state.get_meta_info("label")["cached_tokens"] for state in states]
        assert min(cached) >= len(compiled.prefix_ids), "also of the first row"
        assert runtime.engine.stats()["kv_pinned"] == 0
        plain = watched.run_batch([(text,) for text in "abcd"], num_threads=1, backend=runtime, temperature=0)
        again = compiled.run_batch([(text,) for text in "abcd"], num_threads=1, temperature=0)
        assert [state.text() for state in plain] == [state.text() for state in again]


def test_forks_compute_what_they_share_once_b12() -> None:
    """b#12: SGLang's fork looks at the text before it is there, and so never has it computed before the forks."""

    @sgl.function
    def program(s: Any, number: int) -> None:
        s += f"{number}. {RULES}"
        forks = s.fork(3)
        forks += lambda index: f" Question {index}:" + sgl.gen("a", max_tokens=2)
        forks.join()

    with sgl.Runtime() as runtime:
        prefix = len(runtime.encode([Segment(f"1. {RULES}", True)]))
        for number in range(10):
            before = runtime.engine.stats()
            program.run(number, backend=runtime)
            after = runtime.engine.stats()
            asked, cached = (after[name] - before[name] for name in ("prompt_tokens", "cached_tokens"))
            assert asked >= 3 * prefix and asked - cached < prefix + 40


def test_preparing_compiles_the_constraint_of_the_engine() -> None:
    with sgl.Runtime() as runtime:
        assert runtime.prepare({"temperature": 0.5}) is None
        future = runtime.prepare({"regex": "[0-9]{3}", "max_new_tokens": 8})
        assert future is not None and future.result(timeout=60) is None
        compiler = runtime.engine._intake.compiler
        known = len(compiler._grammars)
        compiler.compile_regex("[0-9]{3}")
        assert known == len(compiler._grammars) == 1
        bad = runtime.prepare({"regex": "(a"})
        assert bad is not None and isinstance(bad.exception(timeout=60), RequestError)
