"""What HTTP adds to a step: the embedded model's rows decoding side by side, through the server and in this process.

    python examples/bench/server_overhead.py [--rows 32] [--tokens 128] [--input 32] [--pairs 5] [--serve OPTIONS]

Both engines have the same options and get the same prompts. A pair is a run in process and one through the server
(a stream for each row, a chunk a token, read by the load generator of ``sgl-like bench``, on the same cores), in turns;
whichever engine does not run waits. The time of a step is that from a row's first token to its last, divided by the
tokens between, as the median over the rows; beside it the engine's own time for a step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from sgl_like import Engine
from sgl_like.cli.bench.datasets import Dataset, RandomTokens
from sgl_like.cli.bench.dialects import Sampling
from sgl_like.cli.bench.launch import launched
from sgl_like.cli.bench.load import Level, Load, Target
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams

Counts = tuple[float, int]
"""Seconds that all steps took, and how many they were."""


def in_process(engine: Engine, dataset: Dataset, rows: int, seed: int) -> list[float]:
    """Seconds of a step, for each row."""
    times: list[list[tuple[float, int]]] = [[] for _ in range(rows)]
    left, done = rows, threading.Event()

    def sink(at: int) -> Callable[[Output], None]:
        def receive(output: Output) -> None:
            nonlocal left
            times[at].append((time.perf_counter(), output.usage.completion_tokens))
            if output.is_terminal:
                left -= 1
                if not left:
                    done.set()

        return receive

    for at, prompt in enumerate(itertools.islice(dataset.prompts(seed), rows)):
        assert isinstance(prompt.text, list)
        params = SamplingParams(max_new_tokens=prompt.max_tokens, temperature=0.0, ignore_eos=True)
        engine.submit(GenerateRequest(prompt.text, params, stream=True), sink(at))
    done.wait()
    return [(row[-1][0] - row[0][0]) / (row[-1][1] - row[0][1]) for row in times]


def through_server(url: str, dataset: Dataset, rows: int, seed: int) -> list[float]:
    """The same through HTTP."""

    async def run() -> list[float]:
        target = Target(url=url, endpoint="completions", sampling=Sampling(model="tiny"))
        load = Load(target, dataset)
        result = await load.run(Level(concurrency=rows, requests=rows, seed=seed))
        load.close()
        assert all(record.outcome == "ok" for record in result.records), result.records
        return [record.tpot for record in result.records if record.tpot is not None]

    return uvloop.run(run())


def steps_of(stats: dict[str, Any]) -> Counts:
    """What an engine says about its steps."""
    found = stats["step_seconds"]
    return float(found["sum"]), int(found["count"])


def server_stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url + "/server_info") as answer:
        return dict(json.load(answer))


def mean(before: Counts, after: Counts) -> float:
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--input", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--serve", default="", help="options of the server")
    given = parser.parse_args()
    dataset = RandomTokens(given.input, given.tokens)
    options = "--speculation off --log-level warning " + given.serve
    pairs: list[Sequence[float]] = []
    with launched(options) as url, Engine(speculation="off") as engine:
        in_process(engine, dataset, given.rows, 0)
        through_server(url, dataset, given.rows, 0)
        for pair in range(1, given.pairs + 1):
            before = steps_of(engine.get_server_info())
            here = statistics.median(in_process(engine, dataset, given.rows, pair))
            here_step = mean(before, steps_of(engine.get_server_info()))
            before = steps_of(server_stats(url))
            there = statistics.median(through_server(url, dataset, given.rows, pair))
            there_step = mean(before, steps_of(server_stats(url)))
            pairs.append((here, there, there / here, here_step, there_step))
            print(
                f"in process {here * 1e3:.3f} ms, through the server {there * 1e3:.3f} ms: {there / here - 1:+.1%}; "
                f"the engine's own: {here_step * 1e3:.3f}, {there_step * 1e3:.3f} ms",
                flush=True,
            )
    here, there, ratio, *_ = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"median of {len(pairs)} pairs: {here * 1e3:.3f} ms, {there * 1e3:.3f} ms, {ratio - 1:+.1%}")


if __name__ == "__main__":
    main()
