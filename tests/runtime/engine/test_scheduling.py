"""Sharing, priorities, deadlines, pages and pressure, in an engine that is stepped by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgl_like.errors import DeadlineExceeded
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("scheduling"))


def greedy(ids: list[int], new: int, rid: str = "r", **fields: object) -> GenerateRequest:
    params = SamplingParams(max_new_tokens=new, temperature=0.0, ignore_eos=True)
    return GenerateRequest(ids, params, rid=rid, **fields)  # type: ignore[arg-type]


def alone(folder: Path, request: GenerateRequest) -> list[int]:
    return Harness(folder).run([request])[request.rid].token_ids


@pytest.mark.parametrize("budget", [30, 500])
@pytest.mark.parametrize("page_size", [1, 16])
def test_a_prefix_of_many_that_arrive_together_is_computed_once(
    folder: Path, budget: int, page_size: int
) -> None:
    stem = [i % 250 for i in range(100)]
    requests = [greedy([*stem, 200 + i, 7], 3, str(i)) for i in range(12)]
    harness = Harness(folder, running=16, budget=budget, page_size=page_size)
    results = harness.run(requests)
    shared = 100 // page_size * page_size
    assert harness.core.stats.computed_tokens == shared + 12 * (102 - shared + 2)
    for request in requests:
        assert results[request.rid].token_ids == alone(folder, request)
        usage = results[request.rid].usage
        assert usage.cached_tokens + usage.computed_tokens == 102 + 2


def test_many_samples_of_one_prompt_share_from_the_first_token(folder: Path) -> None:
    harness = Harness(folder, running=16, budget=500)
    harness.run([greedy(list(range(60)), 4, str(i)) for i in range(8)])
    assert (
        harness.core.stats.computed_tokens == 60 + 7 * 1 + 8 * 3
    )  # each looks at the prompt's last token itself


def test_children_of_a_request_that_still_decodes_share_what_it_has(folder: Path) -> None:
    harness = Harness(folder, budget=500)
    harness.add(greedy(list(range(50)), 100, "parent"))
    for _ in range(20):
        harness.step()
    parent = harness.scheduler.running[0]
    so_far = parent.tokens.view().tolist()
    children = [greedy([*so_far, 9, i], 2, str(i)) for i in range(4)]
    before = harness.core.stats.computed_tokens
    for child in children:
        harness.add(child)
    harness.step()
    # the parent goes on by one token; the first child computes what the parent has only sampled and the 9
    assert harness.core.stats.computed_tokens - before == 1 + (1 + 2) + 3 * 1
    results = harness.run([])
    assert results["parent"].token_ids == alone(folder, greedy(list(range(50)), 100, "parent"))
    for child in children:
        assert results[child.rid].token_ids == alone(folder, child)


def test_what_a_failing_step_was_to_compute_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(folder, budget=500)
    harness.run([greedy(list(range(30)), 1, "before")])
    for i in range(3):
        harness.add(greedy([*range(60), i], 3, str(i)))

    def broken(*_: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(harness.core._runner), "forward", broken)
        harness.step()
    assert all(harness.results[str(i)].error is not None for i in range(3))
    assert harness.memory.tree.evictable_count == 30  # what was there before, and no more
    request = greedy([*range(60), 0], 3, "again")
    assert harness.run([request])["again"].token_ids == alone(folder, request)


def test_larger_priority_is_admitted_first(folder: Path) -> None:
    harness = Harness(folder, running=1)
    results = harness.run([greedy([i] * 9, 2, str(i), priority=i % 3) for i in range(6)])
    assert list(results) == ["2", "5", "1", "4", "0", "3"]


@pytest.mark.parametrize(
    "room", [{"running": 1}, {"slots": 70}, {"budget": 10}], ids=["no row", "no slots", "no budget"]
)
def test_larger_priority_makes_the_others_give_way(folder: Path, room: dict[str, int]) -> None:
    harness = Harness(folder, **room)
    low = greedy(list(range(50)), 15, "low")
    harness.add(low)
    for _ in range(3):
        harness.step()
    high = greedy([9] * 30, 10, "high", priority=1)
    harness.add(high)
    results = harness.run([])
    assert list(results) == ["high", "low"] and harness.scheduler.retracted_total == 1
    assert results["high"].token_ids == alone(folder, high)
    assert results["low"].token_ids == alone(folder, low)


def test_nobody_gives_way_in_vain(folder: Path) -> None:
    harness = Harness(folder, budget=10, running=3)
    harness.add(greedy([1] * 5, 30, "low"))
    harness.step()
    for rid in ("first", "second"):  # what the first computes of its prompt takes the whole budget
        harness.add(greedy([ord(rid[0])] * 60, 2, rid, priority=1))
    for _ in range(5):
        harness.step()
    assert harness.scheduler.retracted_total == 0
    harness.run([])


def test_a_deadline_ends_a_request_wherever_it_is(folder: Path) -> None:
    harness = Harness(folder, running=1, budget=10)
    stages = {"decoding": 2, "prefilling": 40, "waiting": 9, "in time": 2}
    for rid, length in stages.items():
        new, deadline = 60 if rid == "decoding" else 2, 50.0 if rid == "in time" else 5.0
        harness.add(greedy([length] * length, new, rid, deadline=deadline))
    for _ in range(4):
        harness.step()
    assert not harness.results
    harness.now = 5.0
    harness.step()
    for rid in ("decoding", "prefilling", "waiting"):
        result = harness.results[rid]
        assert isinstance(result.error, DeadlineExceeded) and "deadline of 5 s" in str(result.error)
        assert result.finish is not None and result.finish.type == "abort"
    assert len(harness.results["decoding"].token_ids) > 0
    assert harness.run([])["in time"].error is None


def test_old_deadlines_are_not_kept(folder: Path) -> None:
    harness = Harness(folder)
    for i in range(fewer(1000, least=400)):
        harness.add(greedy([1], 1, str(i), deadline=1e6))
        harness.step()
    assert len(harness.core._deadlines) < 300


def test_namespaces_do_not_share(folder: Path) -> None:
    harness = Harness(folder)
    for name in ("a", "b", "a"):
        request = greedy(list(range(40)), 2, f"{name}{harness.core.stats.steps}", namespace=name)
        harness.run([request])
    assert [r.usage.cached_tokens for r in harness.results.values()] == [0, 0, 39]


@pytest.mark.parametrize("page_size", [16, 64])
def test_pages_share_whole_pages(folder: Path, page_size: int) -> None:
    harness = Harness(folder, slots=1000, page_size=page_size)
    first = harness.run([greedy([i % 250 for i in range(130)], 20, "a")])["a"]
    again = harness.run([greedy([i % 250 for i in range(130)] + first.token_ids, 2, "b")])["b"]
    assert again.usage.cached_tokens == 149 // page_size * page_size
    assert harness.memory.size % page_size == 0


def test_retraction_keeps_the_oldest_work_of_the_highest_priority(folder: Path) -> None:
    harness = Harness(folder, slots=70)
    requests = [greedy([i] * 20, 40, str(i), priority=int(i == 3)) for i in range(5)]
    for request in requests:
        harness.add(request)
    results = harness.run([])
    assert harness.scheduler.retracted_total > 0 and next(iter(results)) == "3"
    for request in requests:
        assert results[request.rid].token_ids == alone(folder, request)
