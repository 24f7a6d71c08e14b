"""What the scheduler, the cache and batch making cost per step, without the model.

    .venv/bin/python examples/bench/scheduler_overhead.py [--waiting 10000] [--page-size 1]

32 requests decode from contexts of 512 tokens, and every 16th step one ends and a waiting one is admitted; `--waiting`
others wait behind. CPU seconds of this process, so a busy machine matters little. The model's share of a step is not
in here: about 50 ms for 0.5B parameters in bfloat16 on two cores.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any, cast

from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.request import IntBuffer, Request
from sgl_like.runtime.engine.runner import make_batch
from sgl_like.runtime.engine.scheduler import Scheduler
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams

BATCH, CONTEXT, NEW = 32, 512, 512


def request(rng: random.Random) -> Request:
    """A prompt of a stem that others have too and some tokens of its own."""
    stem = random.Random(rng.randrange(20)).choices(range(30_000), k=CONTEXT - 64)
    tokens = [*stem, *rng.choices(range(30_000), k=64)]
    unused = cast(Any, None)
    return Request(
        source=GenerateRequest(tokens, SamplingParams(max_new_tokens=NEW)),
        sink=lambda output: None,
        max_tokens=len(tokens) + NEW,
        sampler=unused,
        detokenizer=unused,
        matcher=None,
        tokens=IntBuffer(tokens),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--page-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    rng = random.Random(0)
    memory = KVMemory(64 * (CONTEXT + NEW), page_size=options.page_size)
    scheduler = Scheduler(memory, BATCH, 2048)
    requests = [request(rng) for _ in range(options.waiting + BATCH + options.steps // 16)]
    began = time.process_time()
    for each in requests:
        scheduler.add(each)
    added = time.process_time() - began
    parts: dict[str, list[float]] = {"plan": [], "batch": [], "after": [], "all": [], "all, one admitted": []}
    for step in range(options.steps):
        start = time.process_time()
        if len(scheduler.running) == BATCH and step % 16 == 0:
            scheduler.remove(scheduler.running[0])
        waiting = len(scheduler.waiting)
        rows = scheduler.plan()
        planned = time.process_time()
        make_batch(rows)
        batched = time.process_time()
        memory.settle(computed=True)
        for row, count, _ in rows:
            row.computed += count
            if row.computed - count < row.prompt_length:
                memory.publish(row)
            if row.pending == 0:
                row.tokens.extend((7,))
        end = time.process_time()
        if len(rows) < BATCH or any(count > 64 for _, count, _ in rows):
            continue  # still filling up
        if waiting == len(scheduler.waiting):
            parts["plan"].append(planned - start)
            parts["batch"].append(batched - planned)
            parts["after"].append(end - batched)
            parts["all"].append(end - start)
        else:
            parts["all, one admitted"].append(end - start)
    print(f"adding a request: {added / len(requests) * 1e6:.0f} us")
    for name, times in parts.items():
        print(
            f"{name:18} {statistics.median(times) * 1e6:6.0f} us median, {max(times) * 1e6:6.0f} us at most"
        )


if __name__ == "__main__":
    main()
