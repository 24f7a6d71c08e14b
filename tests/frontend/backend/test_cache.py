"""c#22: what was answered once costs nothing the second time; damage on the disk is a miss."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.backend.store import DiskStore, MemoryStore
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("cache"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


@sgl.function
def program(s: Any, text: str = "once ", **params: Any) -> None:
    s += text + sgl.gen("a", max_tokens=6, **params)
    forks = s.fork(2)
    forks += lambda i: f" {i} " + sgl.gen("b", max_tokens=4, regex="[0-9a-f]{4}")
    forks.join()
    s += sgl.select("c", ["x", "yz"]) + sgl.gen("d", n=2, max_tokens=3, return_logprob=True)


def seen(state: sgl.ProgramState) -> list[Any]:
    return [state.text(), *(state[name] for name in "abcd")]


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 4}], ids=["greedy", "seeded"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_second_run_computes_nothing(runtime: sgl.Runtime, options: dict[str, Any], stream: bool) -> None:
    backend = sgl.cached(runtime)
    first = program.run(backend=backend, stream=stream, **options)
    recorded = seen(first)
    steps = runtime.engine.stats()["steps"]
    again = program.run(backend=backend, stream=stream, **options)
    assert seen(again) == recorded and runtime.engine.stats()["steps"] == steps
    assert again.usage.computed_tokens == 0 < first.usage.computed_tokens
    assert again.usage.cached_tokens == again.usage.prompt_tokens
    assert again.usage.completion_tokens == first.usage.completion_tokens
    stats = backend.stats()
    assert stats["hits"] >= stats["misses"] > 0 and stats["not_cached"] == 0


def test_another_process_finds_what_is_on_the_disk(runtime: sgl.Runtime, tmp_path: Path) -> None:
    recorded = seen(program.run(backend=sgl.cached(runtime, tmp_path), temperature=0))
    steps = runtime.engine.stats()["steps"]
    other = sgl.cached(runtime, tmp_path)  # with nothing in memory, as in a new process
    assert seen(program.run(backend=other, temperature=0)) == recorded
    assert runtime.engine.stats()["steps"] == steps and other.stats()["misses"] == 0


def one(s: Any, text: str = "x", **params: Any) -> None:
    s += text + sgl.gen("a", **params)


def test_what_makes_calls_differ() -> None:
    inner = FakeBackend()
    backend = sgl.cached(inner)
    ask = sgl.function(one)
    variants: list[dict[str, Any]] = [
        {"temperature": 0}, {"temperature": 0, "text": "y"}, {"temperature": 0, "max_tokens": 5},
        {"temperature": 0, "regex": "a"}, {"temperature": 0, "stop": "b"}, {"seed": 1}, {"seed": 2},
    ]  # fmt: skip
    first = [ask.run(backend=backend, **each)["a"] for each in variants]
    assert len(set(first)) == len(inner.calls) == len(variants)
    assert [ask.run(backend=backend, **each)["a"] for each in variants] == first
    assert len(inner.calls) == len(variants)


def test_another_model_has_other_answers(tmp_path: Path) -> None:
    class Other(FakeBackend):
        model_name = "other"  # type: ignore[assignment]

    ask = sgl.function(one)
    assert ask.run(backend=sgl.cached(FakeBackend(), tmp_path), temperature=0)["a"] == "answer 1"
    other = Other(lambda call: "something else")
    assert ask.run(backend=sgl.cached(other, tmp_path), temperature=0)["a"] == "something else"


def test_what_is_sampled_without_a_seed_is_asked_again() -> None:
    inner = FakeBackend()
    backend, eager = sgl.cached(inner), sgl.cached(inner, everything=True)
    ask = sgl.function(one)
    assert [ask.run(backend=backend)["a"] for _ in range(2)] == ["answer 1", "answer 2"]
    assert backend.stats()["not_cached"] == 2
    assert [ask.run(backend=eager)["a"] for _ in range(2)] == ["answer 3", "answer 3"]


def test_parameters_are_checked_by_the_backend_inside() -> None:
    error = sgl.function(one).run(backend=sgl.cached(FakeBackend()), temperature="hot").error()
    assert error is not None and isinstance(error.__cause__, sgl.SamplingParamsError)


def test_errors_and_cancelled_calls_are_not_kept() -> None:
    inner = FakeBackend(lambda call: RuntimeError("boom") if len(inner.calls) == 1 else "fine")
    backend = sgl.cached(inner)
    ask = sgl.function(one)
    assert ask.run(backend=backend, temperature=0).error() is not None
    inner.hold()
    state = ask.run("y", backend=backend, temperature=0, stream=True)
    inner.wait_for_calls(1)
    state.cancel()
    inner.release()
    assert [ask.run(text, backend=backend, temperature=0)["a"] for text in "xyx"] == ["fine"] * 3
    assert backend.stats()["hits"] == 1


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: data[:40] + b"?" + data[41:], lambda data: b""]
)
def test_a_damaged_file_is_a_miss_and_is_replaced(tmp_path: Path, damage: Any) -> None:
    inner = FakeBackend()
    ask = sgl.function(one)
    ask.run(backend=sgl.cached(inner, tmp_path), temperature=0)
    (file,) = tmp_path.glob("*/*")
    file.write_bytes(damage(file.read_bytes()))
    assert ask.run(backend=sgl.cached(inner, tmp_path), temperature=0)["a"] == "answer 2"
    assert ask.run(backend=sgl.cached(inner, tmp_path), temperature=0)["a"] == "answer 2"


def test_clear(tmp_path: Path) -> None:
    backend = sgl.cached(FakeBackend(), tmp_path)
    ask = sgl.function(one)
    ask.run(backend=backend, temperature=0)
    backend.clear()
    assert ask.run(backend=backend, temperature=0)["a"] == "answer 2" and backend.stats()["entries"] == 1


def test_memory_forgets_what_was_not_used_for_longest() -> None:
    store = MemoryStore(2)
    for key in "ab":
        store.put(key, key.encode())
    assert store.get("a") == b"a"
    store.put("c", b"c")
    assert [store.get(key) for key in "abc"] == [b"a", None, b"c"]


def test_the_folder_keeps_to_its_size(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10_000)
    for number in range(100):
        store.put(f"{number:064x}", bytes(468))
        kept = list(tmp_path.glob("*/*"))
        assert sum(path.stat().st_size for path in kept) <= 10_000
    assert len(kept) >= 15 and store.get(f"{99:064x}") == bytes(468) and store.get(f"{0:064x}") is None


def test_many_writers_of_one_folder(tmp_path: Path) -> None:
    stores = [DiskStore(tmp_path, 20_000) for _ in range(4)]
    wrong: list[bytes] = []

    def work(store: DiskStore) -> None:
        for number in range(200):
            key = f"{number % 50:064x}"
            found = store.get(key)
            if found not in (None, key.encode()):
                wrong.append(found or b"")
            store.put(key, key.encode())

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not list(tmp_path.glob("*/*.part"))


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_bytes": 1.5}, {"max_bytes": True}])
def test_limits_are_checked(limits: Any) -> None:
    with pytest.raises(sgl.ConfigError, match="must be an integer of at least 1"):
        sgl.cached(FakeBackend(), **limits)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(sgl.ConfigError, match="cannot be used"):
        sgl.cached(FakeBackend(), tmp_path / "file")
