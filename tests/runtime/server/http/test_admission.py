from __future__ import annotations

from typing import Any

import pytest

from sgl_like.runtime.protocol import GenerateRequest, Output, Usage
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.engine.wire import EngineInfo
from sgl_like.runtime.server.http.admission import Admission, Ticket
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.limits import Limits
from sgl_like.runtime.server.quota import Quota

INFO = EngineInfo("", vocab_size=300, context_length=256, kv_slots=1000, max_running_requests=4, pid=0)


class Clock:
    """Goes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def request(tokens: int = 10, new: int = 5, **fields: Any) -> GenerateRequest:
    return GenerateRequest([1] * tokens, SamplingParams(max_new_tokens=new), **fields)


def fill(admission: Admission, name: str, count: int) -> list[Ticket]:
    return [admission.admit(name, INFO, [request()]) for _ in range(count)]


def fits(admission: Admission, name: str) -> int:
    """How many more sequences of a key are taken in."""
    count = 0
    while True:
        try:
            fill(admission, name, 1)
        except ApiError:
            return count
        count += 1


def refused(admission: Admission, name: str = "a", **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        admission.admit(name, INFO, [request(**fields)])
    return caught.value


def test_there_is_room_for_what_runs_and_the_queue() -> None:
    admission = Admission(Limits(queue_requests=6))
    tickets = fill(admission, "default", 10)
    error = refused(admission)
    assert (error.status, error.code, admission.sequences) == (503, "queue_full", 10)
    tickets[0].release(0)
    fill(admission, "default", 1)
    assert (admission.most_sequences, admission.rejected) == (10, {"queue_requests": 1})


def test_a_call_counts_with_all_its_sequences_and_gets_in_whole_or_not_at_all() -> None:
    admission = Admission(Limits(queue_requests=6))
    fill(admission, "default", 4)
    with pytest.raises(ApiError):
        admission.admit("default", INFO, [request() for _ in range(7)])
    assert admission.sequences == 4
    admission.admit("default", INFO, [request(choices=[[1], [2], [3]]) for _ in range(2)])
    assert admission.sequences == 10


def test_every_call_that_is_allowed_fits_into_an_idle_server() -> None:
    limits = Limits()
    assert Admission(limits).room(INFO) >= limits.sequences


def test_tokens_in_flight_are_limited_but_a_call_alone_always_fits() -> None:
    admission = Admission(Limits(queue_tokens=50))
    first = admission.admit("default", INFO, [request(tokens=2000)])
    assert refused(admission).code == "queue_full"
    first.release(0)
    admission.admit("default", INFO, [request(tokens=1000, new=35)])
    admission.admit("default", INFO, [request(tokens=10, new=5)])
    assert refused(admission, tokens=1, new=0).code == "queue_full"


def test_a_request_is_given_back_once_whatever_is_said() -> None:
    admission = Admission(Limits())
    ticket = admission.admit("default", INFO, [request(), request()])
    for index in (0, 0, 1, 0, 1):
        ticket.release(index, Output("", usage=Usage(10, 5)))
    assert (admission.sequences, admission.tokens, admission.admitted, admission.ended) == (0, 0, 2, 2)


def test_when_to_come_back_follows_from_what_ended_lately() -> None:
    clock = Clock()
    admission = Admission(Limits(queue_requests=6), clock=clock)
    tickets = fill(admission, "default", 10)
    for ticket in tickets[:10]:  # one every two seconds
        clock.now += 2
        ticket.release(0)
        fill(admission, "default", 1)
    error = refused(admission)
    assert error.retry_after is not None
    assert 10 <= error.retry_after <= 12, "six wait"


def test_server_deadlines_are_added_to_the_clients_own() -> None:
    admission = Admission(Limits(run_seconds=30, queue_seconds=5))
    ticket = admission.admit("default", INFO, [request(), request(deadline=3.0), request(deadline=1e6)])
    assert [each.deadline for each in ticket.requests] == [30, 3.0, 30]
    assert all(each.start_within == 5 for each in ticket.requests)


class TestSeveralKeys:
    """One that floods, and others."""

    def admission(self, **limits: Any) -> Admission:
        return Admission(Limits(queue_requests=96, **limits), {"flood": Quota(), "other": Quota()})

    def test_a_flood_leaves_room(self) -> None:
        admission = self.admission()
        assert 75 <= fits(admission, "flood") <= 85
        assert refused(admission, "flood").status == 429
        assert fits(admission, "other") >= 10

    def test_a_key_alone_may_use_nearly_everything_once_others_are_gone(self) -> None:
        admission = self.admission()
        for ticket in fill(admission, "other", 10):
            ticket.release(0)
        assert fits(admission, "flood") >= 75

    def test_what_is_beyond_its_share_is_overtaken_whatever_priority_it_claims(self) -> None:
        admission = self.admission()
        flood = [admission.admit("flood", INFO, [request(priority=10**9)]).requests[0] for _ in range(8)]
        other = admission.admit("other", INFO, [request(priority=-(10**9))]).requests[0]
        ahead = [each for each in flood if each.priority > other.priority]
        assert len(ahead) == INFO.max_running_requests // 2

    def test_without_several_keys_priorities_are_the_clients(self) -> None:
        admission = Admission(Limits(), {"only": Quota()})
        assert admission.admit("only", INFO, [request(priority=-7)]).requests[0].priority == -7


class TestQuotas:
    """What a key may use."""

    def test_sequences_at_a_time(self) -> None:
        admission = Admission(Limits(), {"a": Quota(max_requests=3)})
        tickets = fill(admission, "a", 3)
        error = refused(admission)
        assert (error.status, error.code) == (429, "rate_limit_exceeded")
        fill(admission, "default", 1)
        tickets[0].release(0)
        fill(admission, "a", 1)

    def test_requests_a_minute(self) -> None:
        clock = Clock()
        admission = Admission(Limits(), {"a": Quota(requests_per_minute=30)}, clock)
        for _ in range(30):
            admission.count_request("a")
        with pytest.raises(ApiError) as caught:
            admission.count_request("a")
        assert (caught.value.status, caught.value.retry_after) == (429, pytest.approx(2))
        clock.now += 2
        admission.count_request("a")
        assert admission.account("a").headers() == {
            "x-ratelimit-limit-requests": "30",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "60.000s",
        }

    def test_tokens_a_minute_are_planned_with_and_what_was_not_used_is_given_back(self) -> None:
        clock = Clock()
        admission = Admission(Limits(), {"a": Quota(tokens_per_minute=100)}, clock)
        ticket = admission.admit("a", INFO, [request(tokens=20, new=70)])
        assert refused(admission, tokens=10, new=10).retry_after == pytest.approx(6)
        ticket.release(0, Output("", usage=Usage(20, 10)))
        assert admission.account("a").headers()["x-ratelimit-remaining-tokens"] == "70"
        admission.admit("a", INFO, [request(tokens=10, new=60)])
