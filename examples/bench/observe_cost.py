"""What counting, a log line and a scrape cost the front process.

python examples/bench/observe_cost.py
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from prometheus_client import generate_latest

from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, Usage
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.observe.exposition import registry
from sgl_like.runtime.server.observe.families import Snapshot
from sgl_like.runtime.server.observe.logs import start_logging
from sgl_like.runtime.server.observe.observer import Observer

CALLS, OUTPUTS, ROUNDS = 2000, 200, 5


def measure(observer: Observer) -> tuple[float, float]:
    """Microseconds of a call without its outputs, and nanoseconds of an output; the best of some rounds."""
    outputs = [Output("r", "a", (5,))] * OUTPUTS
    last = Output("r", "a", (5,), finish=FinishReason("length"), usage=Usage(5, OUTPUTS + 1))
    found: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        added = 0.0
        begun = perf_counter()
        for _ in range(CALLS):
            with observer.begin("id", "POST", "/v1/completions", perf_counter(), {}) as call:
                (record,) = call.submit([GenerateRequest([1, 2], SamplingParams(), stream=True)])
                before = perf_counter()
                for output in outputs:
                    record.add(output)
                added += perf_counter() - before
                record.add(last)
                call.status = 200
        whole = perf_counter() - begun
        found.append(((whole - added) / CALLS * 1e6, added / CALLS / OUTPUTS * 1e9))
    return min(call for call, _ in found), min(output for _, output in found)


def main() -> None:
    """Print a line for each."""
    observer = Observer()
    call, output = measure(observer)
    print(f"counted: {call:.1f} us a call, {output:.0f} ns an output")
    with Path("/dev/null").open("w") as nowhere:
        stop = start_logging("info", "json", nowhere)
        call, _ = measure(observer)
        dropped = stop()
    print(f"with a log line: {call:.1f} us a call, with the writing thread's share ({dropped} lines dropped)")
    begun = perf_counter()
    text = generate_latest(registry(Snapshot(totals=observer.totals), "tiny", ("vllm", "sglang")))
    print(f"a scrape: {(perf_counter() - begun) * 1e3:.1f} ms, {len(text) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
