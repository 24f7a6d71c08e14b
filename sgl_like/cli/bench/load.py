"""Puts load on a server: a number of requests at a time, or a number of them a second."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice

import orjson

from sgl_like.cli.bench.client import Client, Clock
from sgl_like.cli.bench.datasets import Dataset, Prompt
from sgl_like.cli.bench.dialects import PATHS, Endpoint, Sampling, body
from sgl_like.cli.bench.measure import Call, Record
from sgl_like.errors import DataError

_DEFAULT = Sampling()


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go, and how.

    Args:
        url: of the server.
        endpoint: which of its endpoints.
        api_key: sent along.
        sampling: what all requests ask for.
        timeout: seconds after which a request is given up.
        abort_share: share of the requests that are left at a random point.
    """

    url: str
    endpoint: Endpoint
    api_key: str | None = None
    sampling: Sampling = _DEFAULT
    timeout: float = 600.0
    abort_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """How much load.

    Args:
        concurrency: requests at a time; or
        rate: requests a second, at random times, however many are under way.
        requests: how many in all.
        seconds: after which none is begun any more.
        seed: decides prompts, arrivals and aborts.
    """

    concurrency: int | None = None
    rate: float | None = None
    requests: int
    seconds: float | None = None
    seed: int = 0


@dataclass
class Result:
    """What came of a level.

    Args:
        level: the load.
        records: of all requests.
        gaps: seconds between outputs of streams, all together.
        started: when the load began, and `ended` when its last request was over.
        client_cpu: seconds of processor time that the load generator took.
        connections: that were made.
    """

    level: Level
    records: list[Record] = field(default_factory=list)
    gaps: array[float] = field(default_factory=lambda: array("d"))
    started: float = 0.0
    ended: float = 0.0
    client_cpu: float = 0.0
    connections: int = 0


class Load:
    """Runs one level after another against a server, on the running event loop.

    Args:
        target: the server.
        dataset: what is sent.
        clock: for all times that are measured.
    """

    def __init__(self, target: Target, dataset: Dataset, clock: Clock = time.perf_counter) -> None:
        self._target = target
        self._dataset = dataset
        self._clock = clock
        self._client = Client(target.url, clock)
        self._mean = {True: 0.0, False: 0.0}  # seconds to the first output of streams; of whole answers

    def close(self) -> None:
        """End the connections that are kept."""
        self._client.close()

    async def run(self, level: Level) -> Result:
        """Put this load on the server and wait until every request is over.

        Raises:
            DataError: the endpoint does not take the dataset's prompts.
        """
        result = Result(level)
        rng = random.Random(level.seed)
        prompts = islice(self._dataset.prompts(level.seed), level.requests)
        made = self._client.connections
        cpu = time.process_time()
        result.started = self._clock()
        if level.rate is not None:
            await self._open(level, level.rate, prompts, rng, result)
        else:
            workers = min(level.concurrency or 1, level.requests)
            await asyncio.gather(*(self._worker(level, prompts, rng, result) for _ in range(workers)))
        result.ended = self._clock()
        result.client_cpu = time.process_time() - cpu
        result.connections = self._client.connections - made
        return result

    async def _worker(
        self, level: Level, prompts: Iterator[Prompt], rng: random.Random, result: Result
    ) -> None:
        for prompt in prompts:
            if self._is_over(level, result):
                return
            await self._call(prompt, rng, result)

    async def _open(
        self, level: Level, rate: float, prompts: Iterator[Prompt], rng: random.Random, result: Result
    ) -> None:
        async with asyncio.TaskGroup() as calls:
            async for prompt in _arrivals(prompts, rate, rng):
                if self._is_over(level, result):
                    return
                calls.create_task(self._call(prompt, rng, result))

    def _is_over(self, level: Level, result: Result) -> bool:
        return level.seconds is not None and self._clock() - result.started >= level.seconds

    async def _call(self, prompt: Prompt, rng: random.Random, result: Result) -> None:
        target = self._target
        made = body(target.endpoint, prompt, target.sampling)
        abort_after = None
        if target.abort_share and rng.random() < target.abort_share:
            abort_after = rng.randrange(prompt.max_tokens + 1) if made["stream"] else 0
        outputs = made.get("n") or 1
        if not isinstance(outputs, int):
            raise DataError("`n` must be a whole number")
        call = Call(self._request(orjson.dumps(made)), target.endpoint, outputs, result.gaps, abort_after)
        call.record.sent = self._clock()
        self._client.send(call)
        # An abort after 0 events is one while the request waits, or, if it is no stream, while it runs.
        stream = bool(made["stream"])
        patience = rng.random() * self._mean[stream] if abort_after == 0 else target.timeout
        loop = asyncio.get_running_loop()
        timer = loop.call_later(patience, self._give_up, call, "aborted" if abort_after == 0 else "timeout")
        try:
            await call.over
        finally:
            timer.cancel()
            call.stop("cancelled", self._clock())
        result.records.append(call.record)
        took = call.record.ttft if stream else call.record.e2e
        if took is not None and call.record.outcome == "ok":
            self._mean[stream] += 0.1 * (took - self._mean[stream])

    def _give_up(self, call: Call, outcome: str) -> None:
        call.stop(outcome, self._clock())

    def _request(self, content: bytes) -> bytes:
        target, client = self._target, self._client
        key = "" if target.api_key is None else f"Authorization: Bearer {target.api_key}\r\n"
        return (
            f"POST {PATHS[target.endpoint]} HTTP/1.1\r\nHost: {client.host}:{client.port}\r\n{key}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content


async def _arrivals(prompts: Iterator[Prompt], rate: float, rng: random.Random) -> AsyncIterator[Prompt]:
    """Prompts at the times of a Poisson process; those that are late come at once, so the rate holds."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for prompt in prompts:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - loop.time()))
        yield prompt
