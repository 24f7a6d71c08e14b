"""c#11: a seed makes a whole run reproducible, however it is run; without one, runs differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("seeds"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


@sgl.function
def program(s: Any) -> None:
    s += "once " + sgl.gen("a", max_tokens=8)
    forks = s.fork(3)
    forks += " and " + sgl.gen("b", max_tokens=8)
    forks.join()
    s += sgl.select("c", ["x", "y", "z", "w"], temperature=2.0)
    s += sgl.gen("d", n=3, max_tokens=8) + sgl.gen("e", max_tokens=6, regex="[0-9a-f]{6}")


def seen(state: sgl.ProgramState) -> tuple[Any, ...]:
    return (state.text(), *(state[name] for name in "abcde"))


def runs(runtime: sgl.Runtime, **options: Any) -> list[tuple[Any, ...]]:
    """Alone, again, streamed, and three at once."""
    runtime.flush_cache()
    alone = [program.run(backend=runtime, stream=stream, **options) for stream in (False, False, True)]
    return [seen(state) for state in (*alone, *program.run_batch([()] * 3, backend=runtime, **options))]


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_a_seed_gives_the_same_run_any_way(runtime: sgl.Runtime, seed: int) -> None:
    first, *others = runs(runtime, seed=seed)
    assert others == [first] * 5
    assert len(set(first[2])) == 3 and len(set(first[4])) == 3  # forks and outputs draw their own numbers


def test_seeds_differ(runtime: sgl.Runtime) -> None:
    states = [program.run(backend=runtime, seed=seed) for seed in range(8)]
    assert len({state["a"] for state in states}) == 8 and len({state["c"] for state in states}) > 1


def test_greedy_runs_are_the_same_any_way(runtime: sgl.Runtime) -> None:
    @sgl.function
    def greedy(s: Any) -> None:
        s += "once " + sgl.gen("a", max_tokens=8) + sgl.select("b", ["x", "y"]) + sgl.gen("c", max_tokens=8)

    texts = {greedy.run(backend=runtime, temperature=0, stream=stream).text() for stream in (False, True)}
    texts |= {state.text() for state in greedy.run_batch([()] * 3, backend=runtime, temperature=0)}
    assert len(texts) == 1


def test_without_a_seed_runs_differ(runtime: sgl.Runtime) -> None:
    assert len(set(map(str, runs(runtime)))) == 6
