"""Prefixes that outlive eviction: in files, or pinned; and what the engine says about itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgl_like.errors import ConfigError, EngineClosedError, RequestError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.small_model import make_model

GREEDY = {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True}
SLOT = 2 * 2 * 2 * 8 * 4  # bytes of a token's keys and values in the small model
LONG = "a prefix of well over a hundred and twenty-eight bytes, " * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tier"))


@pytest.fixture
def small(folder: Path) -> Iterator[Engine]:
    with Engine(folder, dtype="float32", kv_cache_memory=300 * SLOT) as engine:
        yield engine


def cached(engine: Engine, prompt: str) -> int:
    tokens: int = engine.generate(prompt, GREEDY)["meta_info"]["cached_tokens"]
    engine.check_invariants()
    return tokens


@pytest.mark.parametrize("page_size", [1, 16, 64])
def test_a_later_engine_has_the_prefix(folder: Path, tmp_path: Path, page_size: int) -> None:
    options: dict[str, Any] = {"dtype": "float32", "cache_dir": tmp_path / "kv", "page_size": page_size}
    with Engine(folder, **options) as engine:
        expected = engine.generate(LONG, GREEDY)["output_ids"]
    with Engine(folder, **options) as engine:
        out = engine.generate(LONG, GREEDY)
        assert out["output_ids"] == expected and out["meta_info"]["cached_tokens"] == 128
        assert engine.stats()["kv_loaded"] == 128
        engine.check_invariants()
    with Engine(folder, **{**options, "dtype": "bfloat16"}) as engine:
        assert cached(engine, LONG) == 0
    other = make_model(tmp_path / "model", seed=1)
    with Engine(other, **options) as engine:
        assert cached(engine, LONG) == 0


def test_what_was_evicted_comes_back(folder: Path, tmp_path: Path) -> None:
    with Engine(folder, dtype="float32", kv_cache_memory=300 * SLOT, cache_dir=tmp_path) as engine:
        expected = engine.generate(LONG, GREEDY)["output_ids"]
        for i in range(3):
            engine.generate(f"{i}" * 200, GREEDY)
        assert engine.stats()["kv_evicted"] > 0
        engine._loop.call(lambda core: core.memory.host and core.memory.host._to_write.join())
        out = engine.generate(LONG, GREEDY)
        assert out["meta_info"]["cached_tokens"] == 128 and out["output_ids"] == expected
        engine.check_invariants()
        assert engine.flush_cache() is True
        assert cached(engine, LONG) == 0


def test_damaged_files_are_recomputed(folder: Path, tmp_path: Path) -> None:
    with Engine(folder, dtype="float32", cache_dir=tmp_path) as engine:
        expected = engine.generate(LONG, GREEDY)["output_ids"]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-5] + b"12345")
    with Engine(folder, dtype="float32", cache_dir=tmp_path) as engine:
        out = engine.generate(LONG, GREEDY)
        assert out["output_ids"] == expected and out["meta_info"]["cached_tokens"] == 0
        engine.check_invariants()


def test_a_cache_dir_that_cannot_be_used_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_dir"):
        Engine(folder, cache_dir=tmp_path / "file")


def test_a_pinned_prefix_stays(small: Engine) -> None:
    pin = small.pin("keep this prefix " * 6)
    assert pin.tokens == 102 and small.stats()["kv_pinned"] == 102
    for i in range(4):
        cached(small, f"{i}" * 150)
    assert small.stats()["kv_evicted"] > 0
    assert cached(small, "keep this prefix " * 6 + "!") == 102
    assert small.flush_cache() is False and small.stats()["kv_free"] == 300 - 102
    assert small.unpin(pin) is True and small.unpin(pin) is False
    assert small.flush_cache() is True


def test_pins_have_namespaces_and_limits(small: Engine) -> None:
    pin = small.pin(list(range(100)), namespace="tenant")
    assert small.pin(list(range(100)), namespace="tenant").number != pin.number  # the same slots
    with pytest.raises(RequestError, match="no room to pin 60 tokens: 100 of 300"):
        small.pin(list(range(60)))
    assert small.stats()["kv_pinned"] == 100
    with pytest.raises(RequestError, match="the prompt is empty"):
        small.pin("")
    small.check_invariants()


def test_pins_yield_to_a_request_that_would_never_fit(
    small: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    pin = small.pin("x" * 150)
    out = small.generate("y" * 200, {**GREEDY, "max_new_tokens": 50})
    assert out["meta_info"]["completion_tokens"] == 50 and "a pinned prefix was given up" in caplog.text
    assert small.unpin(pin) is False
    small.check_invariants()


def test_nothing_can_be_pinned_without_a_cache_or_an_engine(folder: Path) -> None:
    engine = Engine(folder, dtype="float32", enable_radix_cache=False)
    with pytest.raises(RequestError, match="enable_radix_cache"):
        engine.pin("abc")
    engine.shutdown()
    with pytest.raises(EngineClosedError):
        engine.pin("abc")


def test_pins_under_pressure_of_many(folder: Path) -> None:
    harness = Harness(folder, slots=100)
    harness.run([GenerateRequest([1] * 40, SamplingParams(max_new_tokens=1), rid="a")])
    number = harness.memory.pin(np.ones(40, dtype=np.int32))
    requests = [
        GenerateRequest([i] * 20, SamplingParams.from_dict({**GREEDY, "max_new_tokens": 70}), rid=str(i))
        for i in range(2, 6)
    ]
    results = harness.run(requests)
    assert all(len(results[str(i)].token_ids) == 70 for i in range(2, 6))
    assert harness.memory.unpin(number) is False


def test_server_info(small: Engine) -> None:
    for _ in range(2):
        small.generate("0123456789" * 5, {**GREEDY, "regex": "[a-z]+"})
    info = small.get_server_info()
    assert info["page_size"] == 1 and info["waiting_requests"] == 0 and info["finished_requests"] == 2
    assert info["cache_hit_rate"] == 49 / 100
    memory = info["memory_bytes"]
    parameters = 260 * 32 * 2 + 32 + 2 * (2 * 32 + 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48)
    assert parameters * 4 <= memory["weights"] <= parameters * 8  # besides: tables of positions
    assert memory["kv_cache"] == 300 * SLOT and memory["constraints"] > 0
