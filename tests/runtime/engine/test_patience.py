"""A constraint whose every step is slow ends its own output instead of slowing down all others."""

from __future__ import annotations

from queue import SimpleQueue

import pytest

from sgl_like import Engine, SamplingParams
from sgl_like.errors import ConstraintTooComplex, EngineError, RequestAborted
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.engine import patience
from sgl_like.runtime.engine.patience import UNBOUNDED, Patience
from sgl_like.runtime.protocol import GenerateRequest, Output


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "thread_time", made)
    return made


def test_long_steps_add_up(clock: Clock) -> None:
    of_request = Patience(0.25)
    for _ in range(4):
        with of_request:
            clock.now += 0.12
    with pytest.raises(ConstraintTooComplex, match=r"more than 0\.5 s of this output"), of_request:
        clock.now += 0.12


def test_short_steps_do_not_count(clock: Clock) -> None:
    of_request = Patience(0.25)
    for _ in range(1000):
        with of_request:
            clock.now += 0.009
        with UNBOUNDED:
            clock.now += 1000.0


def test_what_went_wrong_within_is_what_is_told(clock: Clock) -> None:
    with pytest.raises(EngineError) as caught, Patience(0.25):
        clock.now += 1000.0
        _ = 1 // 0
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(RequestAborted), Patience(0.25):
        clock.now += 1000.0
        raise RequestAborted("by its owner")


def test_what_nests_too_deeply_ends_its_own_output(clock: Clock) -> None:
    with pytest.raises(ConstraintTooComplex, match="nests too deeply"), Patience(0.25):
        raise RecursionError


def test_others_go_on_when_a_constraint_nests_too_deeply(monkeypatch: pytest.MonkeyPatch) -> None:
    def deeper(matcher: AutomatonMatcher, *rest: object) -> None:
        raise RecursionError

    with Engine(kv_cache_memory=32 * 2**20) as engine:
        params = [{"max_new_tokens": 8, "regex": "[a-z]+"}, {"max_new_tokens": 8, "ignore_eos": True}]
        alone = engine.generate("a", params[1] | {"temperature": 0})["output_ids"]
        for step in ("mask_parts", "accept_token", "forced_tokens"):
            with monkeypatch.context() as patched:
                patched.setattr(AutomatonMatcher, step, deeper)
                ended: SimpleQueue[Output] = SimpleQueue()
                for each in params:
                    given = SamplingParams(**each, temperature=0)
                    ids = engine.tokenizer.encode("a")
                    engine.submit(GenerateRequest(ids, given), ended.put)
                outputs = [ended.get(timeout=60) for _ in params]
            failed = [output for output in outputs if output.error is not None]
            assert [type(output.error) for output in failed] == [ConstraintTooComplex]
            assert [list(o.token_ids) for o in outputs if o.error is None] == [alone]
            engine.check_invariants()
