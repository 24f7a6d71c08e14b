from __future__ import annotations

import statistics
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.cli.bench.load import Level, Result
from sgl_like.cli.bench.measure import Record
from sgl_like.cli.bench.options import levels, objectives
from sgl_like.cli.bench.summary import Spread, Summary, spread, summarize
from sgl_like.errors import DataError


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200))
def test_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    found = spread(values)
    assert (found.p50, found.p90, found.p99) == pytest.approx((cuts[49], cuts[89], cuts[98]))
    assert (found.mean, found.max) == (pytest.approx(statistics.fmean(values)), max(values))


def test_nothing_is_spread_nowhere() -> None:
    assert spread([]) == Spread()


def record(**fields: Any) -> Record:
    made = Record(
        sent=0.0, ended=2.0, first=0.5, last=1.5, output_tokens=11, prompt_tokens=100, cached_tokens=50
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def summary(records: list[Record], **slo: float) -> Summary:
    result = Result(
        Level(concurrency=1, requests=len(records)), records, array("d", [0.1, 0.3]), 0.0, 10.0, 1.0, 3
    )
    return summarize(result, slo)  # type: ignore[arg-type]


def test_rates() -> None:
    found = summary(
        [record(), record(outcome="aborted", output_tokens=4), record(outcome="http_503", output_tokens=0)]
    )
    assert (found.completed, found.aborted, found.errors) == (1, 1, {"http_503": 1})
    assert found.requests_per_s == 0.2
    assert found.output_tokens_per_s == 1.5
    assert found.cached_share == 0.5
    assert (found.goodput, found.slo_share) == (None, None)
    assert found.client_cpu_share == 0.1
    assert found.itl.mean == pytest.approx(0.2)
    assert found.e2e.count == 1


def test_goodput_is_what_meets_every_objective() -> None:
    records = [
        record(),
        record(first=0.6),
        record(last=1.6),
        record(ended=2.1),
        record(outcome="broken"),
        record(outcome="aborted"),
    ]
    assert summary(records, ttft=0.5, itl=0.1, e2e=2.0).goodput == 0.1
    assert summary(records, ttft=0.5, itl=0.1, e2e=2.0).slo_share == 0.2
    assert summary(records, ttft=0.5).goodput == pytest.approx(0.3)


def test_cached_tokens_count_where_a_server_says_them() -> None:
    assert summary([record(cached_tokens=None)]).cached_share is None
    assert summary([record(cached_tokens=None), record()]).cached_share == 0.5


def test_errors_keep_a_few_different_messages() -> None:
    records = [record(outcome="http_400", message=f"m{i % 5}") for i in range(10)]
    assert summary(records).messages == {"http_400": ["m0", "m1", "m2"]}


def test_rejects() -> None:
    found = summary([record(outcome="http_503", ended=0.25, retry_after=True), record(outcome="broken")])
    assert (found.rejects.count, found.rejects.max, found.rejects_with_retry_after) == (1, 0.25, 1)


def test_levels_have_seeds_of_their_own() -> None:
    found = levels("1,16", None, None, None, 5)
    assert [(each.concurrency, each.requests) for each in found] == [(1, 32), (16, 64)]
    assert len({each.seed for each in found}) == 2
    assert [(each.rate, each.requests) for each in levels("1", "0.5,2", 10, None, 0)] == [
        (0.5, 10),
        (2.0, 10),
    ]


@pytest.mark.parametrize(
    ("concurrency", "rate", "message"),
    [
        ("1,x", None, "not a list of numbers"),
        ("0", None, "larger than 0"),
        ("1.5", None, "whole"),
        ("nan", None, "larger than 0"),
        ("1", "-1", "larger than 0"),
        ("1", "5", "needs --requests or --seconds"),
    ],
)
def test_levels_that_are_none(concurrency: str, rate: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        levels(concurrency, rate, None, None, 0)


def test_objectives() -> None:
    assert objectives(["ttft=0.5", "itl=.05"]) == {"ttft": 0.5, "itl": 0.05}
    for wrong in ("ttft", "ttft=", "ttft=-1", "other=1"):
        with pytest.raises(DataError, match="--slo"):
            objectives([wrong])
