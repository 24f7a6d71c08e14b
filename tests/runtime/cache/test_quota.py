"""A namespace that floods the cache evicts its own prefixes, and costs no more than without a quota."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgl_like.runtime.cache import eviction
from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import RadixCache
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.small_model import make_model


@pytest.mark.parametrize("quota, kept", [(None, 0), (0.5, 60)])
def test_a_flood_evicts_its_own(tmp_path: Path, quota: float | None, kept: int) -> None:
    harness = Harness(make_model(tmp_path), slots=200, running=3, quota=quota)
    one = SamplingParams(max_new_tokens=1)
    quiet = [7] * 61
    harness.run([GenerateRequest(quiet, one, rid="warm", namespace="quiet")])
    flood = [GenerateRequest([i] * 30, one, rid=str(i), namespace="flood") for i in range(60)]
    harness.run(flood)
    again = harness.run([GenerateRequest(quiet, one, rid="again", namespace="quiet")])["again"]
    assert again.usage.cached_tokens == kept
    if quota is None:
        return
    result = harness.run([GenerateRequest([99] * 150, one, rid="large", namespace="third")])["large"]
    assert result.error is None  # a quota keeps nobody from what can be had
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == 200


def test_without_pressure_a_namespace_may_have_all(tmp_path: Path) -> None:
    harness = Harness(make_model(tmp_path), slots=200, quota=0.1)
    one = SamplingParams(max_new_tokens=1)
    harness.run([GenerateRequest([i] * 30, one, rid=str(i), namespace="a") for i in range(6)])
    assert harness.memory.tree.evictable_count == 180 and harness.memory.tree.evicted_total == 0


def lines_per_eviction(namespaces: int, quota: int | None) -> float:
    allocator = SlotAllocator(20_000)
    tree = RadixCache(allocator, quota)
    rng = random.Random(1)
    for i in range(20_000):
        slots = allocator.allocate(1)
        assert slots is not None
        tree.insert(np.array([i], dtype=np.int32), slots, str(rng.randrange(namespaces)))
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != eviction.__file__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        tree.evict(5_000)
    finally:
        sys.settrace(None)
    tree.check()
    return count / 5_000


def test_work_does_not_grow_with_the_number_of_namespaces() -> None:
    few = lines_per_eviction(2, 5_000)
    assert lines_per_eviction(2_000, 5_000) < 3 * few
    assert lines_per_eviction(10, 1_500) < 3 * few  # all are over
