"""2,000 random requests under pressure, with aborts and deadlines: the greedy tokens of each as if it ran alone."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sgl_like.runtime.engine.offline import read_call
from sgl_like.runtime.protocol import GenerateRequest
from tests.support.engine_harness import Harness, Result
from tests.support.interpreted import some
from tests.support.small_model import make_model

REQUESTS = 2000
SCHEMA = {"type": "object", "properties": {"ab": {"type": "integer"}, "c": {"enum": ["x", "yz"]}}}
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {}, {"regex": "[a-f]{3,9}"}, {"regex": "(abc|abd)+x"}, {"json_schema": SCHEMA},
)  # fmt: skip
LEAST = 4  # tokens that each of them needs at least


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("fuzz"))


@cache
def prototypes(count: int = 250) -> list[tuple[list[int], dict[str, Any]]]:
    """Prompts that share prefixes of one another, of all lengths, with parameters, free and constrained."""
    rng = random.Random(0)
    stems = [rng.choices(range(256), k=40) for _ in range(6)]
    out: list[tuple[list[int], dict[str, Any]]] = []
    for _ in range(count):
        prompt = rng.choice(stems)[: rng.randrange(41)] + rng.choices(range(256), k=rng.randrange(1, 20))
        constraint = rng.choice(CONSTRAINTS)
        least = LEAST if constraint else 1
        out.append((prompt, {"max_new_tokens": rng.randrange(least, 24), "temperature": 0.0, **constraint}))
    return out


def requests_for(harness: Harness, which: int, n: int = 1) -> list[GenerateRequest]:
    """What `Engine.generate` makes of a prototype asked for `n` times."""
    prompt, params = prototypes()[which]
    return read_call(harness.tokenizer, None, prompt, {**params, "n": n}, {}, {}).requests


@cache
def alone(folder: Path, which: int) -> Result:
    """What a request gives in an engine of its own."""
    harness = Harness(folder, slots=200, budget=1000)
    (request,) = requests_for(harness, which)
    return harness.run([request])[request.rid]


def some_requests(rng: random.Random, harness: Harness, count: int) -> list[tuple[int, GenerateRequest]]:
    """Requests, each with its prototype; some prototypes are asked for with n > 1."""
    out: list[tuple[int, GenerateRequest]] = []
    while len(out) < count:
        which, n = rng.randrange(len(prototypes())), rng.choice([1, 1, 1, 1, 2, 5])
        out += [(which, request) for request in requests_for(harness, which, n)]
    return out[:count]


@pytest.mark.parametrize("seed", some(range(10)))
def test_random_requests_under_pressure(folder: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    harness = Harness(
        folder,
        slots=rng.choice([96, 112, 130, 200, 1000]),
        running=rng.choice([2, 6, 12, 40]),
        budget=rng.choice([5, 17, 64, 500]),
        page_size=rng.choice([1, 1, 1, 16]),
        reuse=seed != 4,
        policy=rng.choice(["lpm", "lpm", "fcfs"]),
        host=tmp_path if seed % 3 == 0 else None,
        quota=[None, 0.2, 0.6][seed % 3],
    )
    waiting = some_requests(rng, harness, REQUESTS // 10)
    which = {request.rid: prototype for prototype, request in waiting}
    cancelled: set[str] = set()
    while waiting or harness.core.has_work:
        arriving = rng.choice([0, 0, 1, 4, 20])
        for _, request in waiting[:arriving]:
            request = replace(
                request,
                priority=rng.choice([0, 0, 0, 1, 2]),
                namespace=rng.choice(["", "", "", "tenant"]),
                stream=rng.random() < 0.3,
                deadline=rng.choice([*[None] * 19, rng.randrange(1, 100)]),
            )
            harness.add(request)
            if request.deadline is not None:
                cancelled.add(request.rid)
        del waiting[:arriving]
        for rid in list(harness.core._requests):
            if rng.random() < 0.0008:
                harness.core.abort(rid)
                harness.core.check_invariants()
                cancelled.add(rid)
        if rng.random() < 0.01:
            harness.core.flush_cache()
        harness.step()
        harness.now += 1.0
    assert len(harness.results) == len(which)
    ends = Counter()
    for rid, result in harness.results.items():
        expected = alone(folder, which[rid])
        assert result.finish is not None
        ends[result.finish.type] += 1
        if result.error is None:
            assert (result.token_ids, result.text) == (expected.token_ids, expected.text)
            assert result.finish == expected.finish
        else:
            assert rid in cancelled and result.finish.type == "abort"
            assert result.token_ids == expected.token_ids[: len(result.token_ids)]
    assert ends["abort"] and ends["length"] and sum(ends.values()) == REQUESTS // 10
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == harness.memory.size
    harness.core.close()
