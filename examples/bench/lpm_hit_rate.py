"""Cache hit rate of the scheduler's order on a shuffled few-shot trace that does not fit the cache, without a model.

    .venv/bin/python examples/bench/lpm_hit_rate.py [--requests 10000]

Prompts are a task's stem (256 tokens), one of four sets of examples (512) and a question (32 to 96); all wait from the
start, in random order. The best possible is what depth-first order reaches: every distinct prefix is computed once.
"""

from __future__ import annotations

import argparse
import random
from typing import Any, cast

from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.request import IntBuffer, Request
from sgl_like.runtime.engine.scheduler import Scheduler
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams


def trace(count: int, tasks: int) -> list[list[int]]:
    """Prompts in random order."""
    rng = random.Random(0)

    def some(length: int) -> list[int]:
        return rng.choices(range(30_000), k=length)

    stems = [(some(256), [some(512) for _ in range(4)]) for _ in range(tasks)]
    prompts = []
    for i in range(count):
        stem, examples = stems[i % tasks]
        prompts.append([*stem, *rng.choice(examples), *some(rng.randrange(32, 97))])
    rng.shuffle(prompts)
    return prompts


def best_rate(prompts: list[list[int]], page: int) -> float:
    """Share of tokens that need not be computed if every distinct prefix (in whole pages) is computed once."""
    seen: set[int] = set()
    computed = 0
    for prompt in prompts:
        path = 0
        whole = (len(prompt) - 1) // page * page
        for at in range(0, whole, page):
            path = hash((path, tuple(prompt[at : at + page])))
            computed += page * (path not in seen)
            seen.add(path)
        computed += len(prompt) - whole
    return 1 - computed / sum(map(len, prompts))


def hit_rate(prompts: list[list[int]], slots: int, policy: str, page: int, new: int) -> float:
    """Share of prompt tokens that the scheduler found in the cache."""
    memory = KVMemory(slots, page_size=page)
    scheduler = Scheduler(memory, 32, 2048, policy)
    unused = cast(Any, None)
    for prompt in prompts:
        scheduler.add(
            Request(
                source=GenerateRequest(prompt, SamplingParams(max_new_tokens=new)),
                sink=lambda output: None,
                max_tokens=len(prompt) + new,
                sampler=unused,
                detokenizer=unused,
                matcher=None,
                tokens=IntBuffer(prompt),
            )
        )
    cached = 0
    while rows := scheduler.plan():
        memory.settle(computed=True)
        for request, count, _ in rows:
            request.computed += count
            if request.computed - count < request.prompt_length:
                memory.publish(request)
            if request.pending == 0 and len(request.tokens) == request.max_tokens:
                cached += request.cached_tokens or 0
                scheduler.remove(request)
            elif request.pending == 0:
                request.tokens.extend((7,))
    return cached / sum(map(len, prompts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    prompts = trace(options.requests, options.tasks)
    distinct = options.tasks * (256 + 4 * 512)
    print(f"{options.requests} requests, {distinct} tokens of stems and examples")
    for page in (1, 16, 64):
        best = best_rate(prompts, page)
        for slots in (distinct // 8, distinct // 2):
            for policy in ("fcfs", "lpm"):
                rate = hit_rate(prompts, slots, policy, page, options.new)
                print(
                    f"page {page:2}, {slots:6} slots, {policy:4}: {rate:.4f} of prompt tokens cached, "
                    f"best {best:.4f}, {rate / best:.1%} of it"
                )


if __name__ == "__main__":
    main()
