"""Numbers of a load: percentiles, rates, goodput, errors by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgl_like.cli.bench.load import Level, Result
from sgl_like.cli.bench.measure import Record

Measure = Literal["ttft", "itl", "e2e"]
MEASURES: tuple[Measure, ...] = ("ttft", "itl", "e2e")
MESSAGES = 3
"""Messages that are kept of each kind of error."""


@dataclass(frozen=True)
class Spread:
    """How times are spread, in seconds. `count` of them; all are 0 if there are none."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a level amounts to.

    Args:
        level: the load.
        seconds: from its beginning to its end.
        completed: requests with a whole answer.
        aborted: requests that were left on purpose.
        errors: requests that failed, by kind.
        messages: of errors, a few of each kind.
        rejects: times until a status other than 200 came; `rejects_with_retry_after` of them said when to come back.
        requests_per_s: completed and aborted ones, of the whole time.
        goodput: completed requests a second that met all objectives; ``None`` without objectives.
        slo_share: share of the requests that were not aborted which did.
        ttft: to the first output.
        itl: from one output of a stream to the next.
        tpot: the same for each request, as an average over its tokens.
        e2e: of completed requests.
        prompt_tokens: as far as the server said.
        cached_share: share of the prompts' tokens that were cached; ``None``: the server does not say.
        client_cpu_share: of one processor that the load generator itself took.
    """

    level: Level
    seconds: float
    completed: int
    aborted: int
    errors: Mapping[str, int]
    messages: Mapping[str, Sequence[str]]
    rejects: Spread
    rejects_with_retry_after: int
    requests_per_s: float
    output_tokens_per_s: float
    goodput: float | None
    slo_share: float | None
    ttft: Spread
    itl: Spread
    tpot: Spread
    e2e: Spread
    prompt_tokens: int
    output_tokens: int
    cached_share: float | None
    client_cpu_share: float
    connections: int


def spread(values: Sequence[float]) -> Spread:
    """Percentiles, with linear interpolation between neighbours."""
    if not len(values):
        return Spread()
    found = np.asarray(values)
    p50, p90, p99 = np.percentile(found, (50, 90, 99))
    return Spread(len(found), float(found.mean()), float(p50), float(p90), float(p99), float(found.max()))


def summarize(result: Result, slo: Mapping[Measure, float]) -> Summary:
    """The numbers of a result.

    Args:
        result: of a level.
        slo: the most seconds that a request may take: to its first output, between tokens on average, in all.
    """
    records = result.records
    seconds = max(result.ended - result.started, 1e-9)
    done = [record for record in records if record.outcome == "ok"]
    aborted = sum(record.outcome == "aborted" for record in records)
    failed = [record for record in records if record.outcome not in ("ok", "aborted")]
    rejects = [record for record in failed if record.outcome.startswith("http_")]
    tokens = sum(record.output_tokens for record in records)
    good = sum(_meets(record, slo) for record in done)
    told = [record for record in records if record.cached_tokens is not None and record.prompt_tokens]
    prompt_tokens = sum(record.prompt_tokens or 0 for record in records)
    told_tokens = sum(record.prompt_tokens or 0 for record in told)
    return Summary(
        level=result.level,
        seconds=seconds,
        completed=len(done),
        aborted=aborted,
        errors=dict(Counter(record.outcome for record in failed).most_common()),
        messages=_messages(failed),
        rejects=spread([record.e2e for record in rejects]),
        rejects_with_retry_after=sum(record.retry_after for record in rejects),
        requests_per_s=(len(done) + aborted) / seconds,
        output_tokens_per_s=tokens / seconds,
        goodput=good / seconds if slo else None,
        slo_share=good / max(1, len(records) - aborted) if slo else None,
        ttft=spread([ttft for record in records if (ttft := record.ttft) is not None]),
        itl=spread(result.gaps),
        tpot=spread([tpot for record in done if (tpot := record.tpot) is not None]),
        e2e=spread([record.e2e for record in done]),
        prompt_tokens=prompt_tokens,
        output_tokens=tokens,
        cached_share=sum(record.cached_tokens or 0 for record in told) / told_tokens if told else None,
        client_cpu_share=result.client_cpu / seconds,
        connections=result.connections,
    )


def _meets(record: Record, slo: Mapping[Measure, float]) -> bool:
    took: dict[Measure, float | None] = {"ttft": record.ttft, "itl": record.tpot, "e2e": record.e2e}
    return all((value := took[measure]) is None or value <= most for measure, most in slo.items())


def _messages(failed: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in failed:
        kept = found.setdefault(record.outcome, [])
        if record.message and record.message not in kept and len(kept) < MESSAGES:
            kept.append(record.message)
    return found
