"""The default backend, and `Runtime` on an engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.backend import default, runtime
from sgl_like.frontend.backend.base import Segment
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink, Usage
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def program(s: Any) -> None:
    s += "x" + sgl.gen("a", max_tokens=3, regex="a*") + sgl.select("c", ["p", "q"])


@pytest.fixture
def unset() -> Iterator[None]:
    sgl.set_default_backend(None)
    yield
    sgl.set_default_backend(None)


def test_the_default_is_made_once(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeBackend] = []

    def make() -> FakeBackend:
        made.append(FakeBackend())
        return made[-1]

    assert sgl.flush_cache() is False
    monkeypatch.setattr(runtime, "Runtime", make)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(default.get_default_backend())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found == made * 8
    assert program()["a"] == "ans" and sgl.flush_cache() is True


def test_only_backends_are_backends(unset: None) -> None:
    with pytest.raises(TypeError, match="a backend is needed"):
        sgl.set_default_backend("http://localhost")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        program.run(backend=3)


class StubTokenizer:
    start_ids = (1,)
    template_stops = ((), ())

    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        return [ord(char) for text, _ in segments for char in text]

    def role_affixes(self, messages: Any, role: str) -> tuple[str, str]:
        return f"[{role}]", "[/]"


class StubEngine:
    """What `Runtime` uses of an engine."""

    def __init__(self) -> None:
        self.tokenizer = StubTokenizer()
        self.tokenizer.start_ids = [1]  # type: ignore[assignment]
        self.model_path = "stub"
        self.requests: list[GenerateRequest] = []
        self.aborted: list[str] = []
        self.shut = False

    def submit(self, request: GenerateRequest, on_output: OutputSink) -> None:
        self.requests.append(request)
        if not request.choices:
            output = Output(request.rid, "aa", (97, 97), FinishReason("stop"), usage=Usage(5, 2, 3, 1))
        else:
            logprobs = tuple((-0.5,) * len(choice) for choice in request.choices)
            output = Output(request.rid, finish=FinishReason("length"), choice_logprobs=logprobs)
        threading.Thread(target=on_output, args=(output,)).start()

    def abort(self, rid: str) -> None:
        self.aborted.append(rid)

    def flush_cache(self) -> bool:
        return False

    def shutdown(self) -> None:
        self.shut = True


def test_runtime_speaks_the_engines_language() -> None:
    engine = StubEngine()
    with runtime.Runtime.from_engine(engine) as backend:  # type: ignore[arg-type]
        state = program.run(backend=backend, temperature=0.5)
        assert state["a"] == "aa" and state["c"] == "p", state.error()
        assert state.usage == Usage(5, 2, 3, 1)
        gen, score = engine.requests
        assert gen.input_ids == (1, ord("x")) and not gen.stream
        assert (gen.params.max_new_tokens, gen.params.temperature, gen.params.regex) == (3, 0.5, "a*")
        assert score.input_ids == (1, ord("x"), 97, 97) and score.params.max_new_tokens == 0
        assert score.choices == [(ord("p"),), (ord("q"),)]
        handle = backend.submit((1,), {}, lambda output: None, stream=True)
        handle.cancel()
        assert engine.aborted == [engine.requests[-1].rid] and engine.requests[-1].stream
        assert backend.role_affixes([], "user") == ("[user]", "[/]")
        assert backend.encode([Segment("\x01a", True)], start=True) == [1, ord("a")]
        assert backend.flush_cache() is False and backend.model_name == "stub"
    assert engine.shut


def test_runtime_refuses_what_the_parameters_refuse() -> None:
    @sgl.function
    def bad(s: Any) -> None:
        s += "x" + sgl.gen("a", top_p=3.0)

    state = bad.run(backend=runtime.Runtime.from_engine(StubEngine()))  # type: ignore[arg-type]
    assert "top_p must be between 0 and 1" in str(state.error())
