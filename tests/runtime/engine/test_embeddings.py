"""Embeddings are the mean of the last hidden states, whatever the engine does with the request."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgl_like.errors import RequestError
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.engine.pooling import Pooling
from sgl_like.runtime.logprobs import LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.families import FAMILIES, make_family
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

NOTHING = SamplingParams(max_new_tokens=0)
GREEDY = {"temperature": 0.0, "max_new_tokens": 9, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def expected(model: Any, ids: list[int]) -> list[float]:
    with torch.inference_mode():
        out: list[float] = model.base_model(torch.tensor([ids])).last_hidden_state[0].mean(0).tolist()
    return out


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_transformers(name: str, tmp_path: Path) -> None:
    theirs = make_family(tmp_path, name)
    rng = random.Random(3)
    stem = rng.choices(range(256), k=40)
    prompts = [stem + rng.choices(range(256), k=count) for count in (1, 17, 30)]
    with Engine(tmp_path, dtype="float32", max_batch_tokens=23) as engine:
        for _ in range(2):  # the second time all of it is cached, and must not be taken from there
            results = engine.encode(input_ids=prompts)
            for ids, result in zip(prompts, results, strict=True):
                assert result["embedding"] == pytest.approx(expected(theirs, ids), abs=2e-4)
                assert result["meta_info"]["completion_tokens"] == 0 and "text" not in result


@settings(max_examples=fewer(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    slots=st.sampled_from([90, 1000]),
    running=st.integers(1, 12),
    budget=st.sampled_from([5, 64, 500]),
    reuse=st.booleans(),
    page_size=st.sampled_from([1, 1, 16]),
)
def test_beside_others_in_chunks_under_pressure(
    folder: Path, model: Any, seed: int, slots: int, running: int, budget: int, reuse: bool, page_size: int
) -> None:
    rng = random.Random(seed)
    stem = [rng.randrange(256) for _ in range(40)]
    requests = []
    for i in range(12):
        ids = [*stem[: rng.randrange(41)], *(rng.randrange(256) for _ in range(rng.randrange(1, 20)))]
        embed = rng.random() < 0.6
        params = NOTHING if embed else SamplingParams.from_dict(GREEDY)
        requests.append(
            GenerateRequest(
                ids,
                params,
                rid=str(i),
                embed=embed,
                stream=rng.random() < 0.5,
                priority=rng.choice([0, 0, 1]),
            )
        )
    harness = Harness(folder, slots, running, budget, reuse, page_size)
    results = harness.run(requests, arrive=lambda: rng.random() < 0.4)
    for request in requests:
        result = results[request.rid]
        assert result.error is None
        if not request.embed:
            assert result.embedding is None and len(result.token_ids) == 9
            continue
        assert result.events == 1 and not result.token_ids
        assert result.embedding == pytest.approx(expected(model, list(request.input_ids)), abs=1e-4)
    harness.core.flush_cache()
    assert harness.memory.allocator.free_count == harness.memory.size


def test_to_the_bit_the_same_in_any_chunks_where_hidden_states_are(folder: Path) -> None:
    rng = random.Random(5)
    prompts = [rng.choices(range(256), k=k) for k in (7, 150, 90)]
    found = []
    for options in ({}, {"max_batch_tokens": 16}, {"page_size": 16, "max_batch_tokens": 100}):
        with Engine(folder, quantization="int8", **options) as engine:
            together = [result["embedding"] for result in engine.encode(input_ids=prompts)]
            alone = [engine.encode(input_ids=ids)["embedding"] for ids in prompts]
            assert together == alone
            found.append(alone)
    assert found[0] == found[1] == found[2]


def test_pooling_does_not_depend_on_the_cuts() -> None:
    rows = torch.randn(100, 33, generator=torch.Generator().manual_seed(1)) * 100
    whole, parts = Pooling(100), Pooling(100)
    whole.add(rows)
    for part in rows.split([1, 0, 50, 7, 42]):
        parts.add(part)
    assert whole.mean() == parts.mean()
    assert whole.mean() == pytest.approx(rows.double().mean(0).tolist(), rel=1e-6)


def test_one_text(folder: Path) -> None:
    with Engine(folder, dtype="float32") as engine:
        one, (same, other) = engine.encode("abc"), engine.encode(["abc", "abcd"])
        assert len(one["embedding"]) == 32 and one["meta_info"]["prompt_tokens"] == 3
        assert one["embedding"] == pytest.approx(same["embedding"], abs=1e-5)
        assert one["embedding"] != other["embedding"]
        with pytest.raises(RequestError, match="the prompt is empty"):
            engine.encode("")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"params": SamplingParams(max_new_tokens=1)}, "a request with embed is only computed"),
        ({"logprobs": LogprobParams()}, "a request with embed is only computed"),
        ({"choices": [(1,)]}, "is only scored"),
        ({"embed": 1}, "embed must be True or False"),
    ],
)
def test_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    harness = Harness(folder)
    with pytest.raises(RequestError, match=message):
        harness.add(GenerateRequest([1], **{"params": NOTHING, "embed": True, **values}))
    assert not harness.core.has_work
