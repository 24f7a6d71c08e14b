"""A constraint whose every step is slow ends its own output instead of slowing down all others."""

from __future__ import annotations

import pytest

from sgl_like.errors import ConstraintTooComplex
from sgl_like.runtime.engine import patience
from sgl_like.runtime.engine.patience import UNBOUNDED, Patience


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
    with pytest.raises(ZeroDivisionError), Patience(0.25):
        clock.now += 1000.0
        _ = 1 // 0
