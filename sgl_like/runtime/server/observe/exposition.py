"""``/metrics``: what is counted, in Prometheus's format."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sgl_like.errors import SglError
from sgl_like.runtime.server.observe.aliases import aliases, cache_config
from sgl_like.runtime.server.observe.families import Family, Snapshot, families
from sgl_like.runtime.server.observe.histogram import Histogram
from sgl_like.runtime.server.observe.logs import dropped_lines

if TYPE_CHECKING:
    from sgl_like.runtime.server.server import Server

PREFIX = "sgl_like:"

ENGINE_SECONDS = 1.0
"""That the engine gets to answer; then its last numbers are used. Prometheus itself waits 10 s by default."""

THROUGHPUT_SECONDS = 10.0
"""Over which tokens a second are reckoned."""


class Throughput:
    """Tokens a second, from counts that are looked at now and then."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, now: float, tokens: int) -> float:
        """Since the last look that is at least `THROUGHPUT_SECONDS` ago, or the first one."""
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - THROUGHPUT_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        return (tokens - before) / (now - then) if now > then else 0.0


class EngineReader:
    """Asks the engine for its numbers, and keeps the last ones.

    Args:
        server: whose engine.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._throughput = Throughput()
        self.stats: Mapping[str, Any] = {}

    async def read(self) -> bool:
        """Ask; whether it answered in time."""
        try:
            self.stats = await asyncio.wait_for(self._server.engine.ask("stats"), ENGINE_SECONDS)
        except (SglError, TimeoutError):
            return False
        return True

    async def snapshot(self) -> Snapshot:
        """All numbers of now."""
        await self.read()
        server, engine = self._server, self._server.engine
        totals = server.observer.totals
        return Snapshot(
            totals=totals,
            state=engine.state,
            restarts=engine.restarts,
            info=engine.info,
            stats=self.stats,
            refused=server.admission.rejected,
            in_flight=len(server.observer.open),
            draining=server.draining,
            dropped_lines=dropped_lines(),
            throughput=self._throughput.rate(monotonic(), sum(totals.generation_tokens.values())),
        )


def registry(snapshot: Snapshot, model: str, compat: Sequence[str]) -> CollectorRegistry:
    """A registry that has the metrics of a moment.

    Args:
        snapshot: their values.
        model: what clients call it; the label ``model_name`` of all of them.
        compat: whose names there are besides ours.
    """
    made = CollectorRegistry()
    made.register(_Moment(snapshot, model, compat))
    ProcessCollector(registry=made)
    return made


class _Moment(Collector):
    def __init__(self, snapshot: Snapshot, model: str, compat: Sequence[str]) -> None:
        self._snapshot, self._model, self._compat = snapshot, model, compat

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        ours = families(self._snapshot)
        for family in ours.values():
            yield _metric(family, PREFIX, self._model)
        for engine in self._compat:
            for family in aliases(engine, ours):
                yield _metric(family, "", self._model)
        if "vllm" in self._compat:
            yield _metric(cache_config(self._snapshot), "", None)


def _metric(family: Family, prefix: str, model: str | None) -> Metric:
    """As prometheus_client has it; with the label ``model_name``, if there is a model."""
    name = prefix + family.name
    labels = (*family.labels, *(("model_name",) if model is not None else ()))
    mine = (model,) if model is not None else ()
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=labels)
        for values, value in family.samples.items():
            assert isinstance(value, Histogram)
            histogram.add_metric((*values, *mine), value.cumulative(), value.sum)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=labels)
    for values, value in family.samples.items():
        assert not isinstance(value, Histogram)
        metric.add_metric((*values, *mine), value)
    return metric
