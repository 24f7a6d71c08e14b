"""Load that is meant to break the server, and what is left of it afterwards (serving.md 3.2: T1, T2, T3, T20).

    python examples/bench/server_storm.py streams|storm|overload|soak [--minutes 3] [--seed 0] [--serve OPTIONS]

streams   the stub engine: 10,000 streams, 1,000 at a time, 30 % left at a random point
storm     the embedded model: 10,000 requests, 30 % left, half of them streams, 20 % constrained, 10 % with n=4
overload  five times the requests a second that the server can do, for a minute, and how soon it is well again
soak      the mix of storm for some minutes, beside how memory grows

After each: what /debug/invariants says when nothing runs any more, whether the same greedy request has the same answer
as before, and the files and memory of both processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import uvloop
from rich.console import Console

from sgl_like.cli.bench.datasets import Prompt, RandomTokens
from sgl_like.cli.bench.dialects import Sampling
from sgl_like.cli.bench.launch import launched
from sgl_like.cli.bench.load import Level, Load, Target
from sgl_like.cli.bench.report import print_results
from sgl_like.cli.bench.summary import Measure, Summary, summarize

CANARY = {"model": "tiny", "prompt": "Play some jazz", "max_tokens": 24, "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "n": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["name", "n"],
}
CONSTRAINTS: tuple[dict[str, Any], ...] = (
    {"regex": "[a-z]{1,8}( [a-z]{1,8}){0,3}"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
    {"guided_choice": ["jazz", "rock", "something else"]},
)
BUSY_QUEUE = 256


class Mix:
    """Requests of all kinds."""

    def prompts(self, seed: int) -> Iterator[Prompt]:
        """See `sgl_like.cli.bench.datasets`."""
        rng = random.Random(seed)
        for prompt in RandomTokens(48, 24, spread=0.3, groups=16, prefix_len=32).prompts(seed):
            extra: dict[str, Any] = {
                "stream": rng.random() < 0.5,
                "seed": rng.randrange(1000),
                "temperature": 0.7,
            }
            if rng.random() < 0.2:
                extra |= {**rng.choice(CONSTRAINTS), "ignore_eos": False, "max_tokens": 64}
            if rng.random() < 0.1:
                extra["n"] = 4
            yield prompt._replace(extra=extra)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def canary(url: str) -> str:
    """What the server answers to a request whose answer never changes."""
    request = urllib.request.Request(
        url + "/v1/completions", json.dumps(CANARY).encode(), {"Content-Type": "application/json"}
    )
    return str(get_choice(request))


def get_choice(request: urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["text"]


def memory(state: dict[str, Any]) -> dict[str, float]:
    """MB of both processes."""
    return {
        which: (state[which]["rss_anon"] + state[which]["swapped"]) / 2**20 for which in ("front", "engine")
    }


def idle(url: str) -> dict[str, Any]:
    """The server's invariants as soon as nothing runs, or after a minute."""
    for _ in range(120):
        state: dict[str, Any] = get(url + "/debug/invariants")
        if state["idle"]:
            break
        time.sleep(0.5)
    return state


def print_oracle(before: dict[str, Any], after: dict[str, Any], same: bool) -> bool:
    """What is left after a load."""
    for which in ("front", "engine"):
        was, now = before[which], after[which]
        print(
            f"{which}: memory {memory(before)[which]:.1f} -> {memory(after)[which]:.1f} MB, files {was['fds']} -> "
            f"{now['fds']}, threads {was['threads']} -> {now['threads']}"
        )
    counts = after["counts"]
    balanced = counts["accepted"] == sum(counts[kind] for kind in ("finished", "aborted", "failed"))
    print(f"counts {counts}, balanced: {balanced}")
    print(f"engines that died: {after['restarts']}; kv {after['kv']}")
    good = after["ok"] and after["idle"] and same and balanced
    print(
        f"invariants: {'hold' if after['ok'] else after['problems']}; idle: {after['idle']}; canary the same: {same}"
    )
    print("PASS" if good else "FAIL", flush=True)
    return bool(good)


async def streams(url: str, given: argparse.Namespace) -> list[Summary]:
    target = Target(url=url, endpoint="completions", sampling=Sampling(model="tiny"), abort_share=0.3)
    load = Load(target, RandomTokens(32, 16))
    result = await load.run(Level(concurrency=1000, requests=given.requests, seed=given.seed))
    load.close()
    return [summarize(result, {"ttft": 2.0})]


async def storm(url: str, given: argparse.Namespace) -> list[Summary]:
    target = Target(url=url, endpoint="completions", sampling=Sampling(model="tiny"), abort_share=0.3)
    load = Load(target, Mix())
    result = await load.run(Level(concurrency=128, requests=given.requests, seed=given.seed))
    load.close()
    return [summarize(result, {})]


async def soak(url: str, given: argparse.Namespace) -> list[Summary]:
    target = Target(url=url, endpoint="completions", sampling=Sampling(model="tiny"), abort_share=0.1)
    load, found = Load(target, Mix()), []
    parts = max(2, round(2 * given.minutes))
    for part in range(parts):
        level = Level(concurrency=48, requests=10**9, seconds=30.0, seed=given.seed + part)
        found.append(summarize(await load.run(level), {}))
        state = await asyncio.to_thread(idle, url)
        print(
            f"after {30 * (part + 1)} s: ok {state['ok']}, memory {memory(state)}, counts {state['counts']}",
            flush=True,
        )
    load.close()
    return found


async def overload(url: str, given: argparse.Namespace) -> list[Summary]:
    target = Target(url=url, endpoint="completions", sampling=Sampling(model="tiny"))
    load = Load(target, RandomTokens(64, 16))
    slo: dict[Measure, float] = {"e2e": 10.0}
    peak = summarize(await load.run(Level(concurrency=128, requests=1000, seed=given.seed)), slo)
    rate = 5 * peak.requests_per_s
    queue: list[float] = []

    async def watch() -> None:
        while True:
            loads = await asyncio.to_thread(get, url + "/v1/loads")
            queue.append(loads["loads"][0]["num_waiting_reqs"])
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    busy_level = Level(rate=rate, requests=10**9, seconds=60.0, seed=given.seed + 1)
    busy = summarize(await load.run(busy_level), slo)
    watching.cancel()
    after = summarize(await load.run(Level(concurrency=1, requests=16, seed=given.seed + 2)), slo)
    load.close()
    print(
        f"peak {peak.requests_per_s:.1f} requests/s; offered {rate:.0f}/s; goodput {busy.goodput:.1f}/s, that is "
        f"{(busy.goodput or 0) / peak.requests_per_s:.0%} of the peak; longest queue seen {max(queue):.0f}"
    )
    print(
        f"refused: {busy.rejects.count:,}, of them {busy.rejects_with_retry_after:,} with Retry-After; answered within "
        f"{busy.rejects.p50 * 1e3:.1f} / {busy.rejects.p90 * 1e3:.1f} / {busy.rejects.p99 * 1e3:.1f} ms"
    )
    print(
        f"right afterwards, alone: first token {after.ttft.p50 * 1e3:.0f} ms, {after.ttft.max * 1e3:.0f} at most"
    )
    return [peak, busy, after]


LOADS = {"streams": streams, "storm": storm, "overload": overload, "soak": soak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("load", choices=sorted(LOADS))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", default="", help="options of the server")
    given = parser.parse_args()
    options = ["--max-queue", str(BUSY_QUEUE)] if given.load == "overload" else []
    if given.load == "streams":
        options = ["--engine-kind", "stub"]
    print(f"{given.load}, seed {given.seed}")
    with launched(" ".join([*options, given.serve])) as url:
        answer = canary(url)
        before = idle(url)
        summaries = uvloop.run(LOADS[given.load](url, given))
        print_results(Console(), summaries)
        after = idle(url)
        good = print_oracle(before, after, canary(url) == answer)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
