"""What it costs, and what it saves, that `run_batch` keeps in the cache what its prompts begin with.

    python examples/bench/shared_prefix.py

On the embedded model. "alone": nothing else uses the cache, so keeping it can only cost. "beside others": between the
rows other prompts fill the cache, which is small. Each line is the median of several rounds in turn; "off" takes the
finding and keeping out.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import sgl_like as sgl
from sgl_like.frontend.batches.prefix import SharedPrefix

RULES = "Answer with one short word, whatever the question may be about. " * 12
ROUNDS = 3


@sgl.function
def classify(s: Any, text: str) -> None:
    """A long constant beginning and a short question."""
    s += sgl.system(RULES) + sgl.user(f"Text {text}") + sgl.assistant(sgl.gen("label", max_tokens=4))


def batch(runtime: sgl.Runtime, rows: int, threads: int, kept: bool, noise: int) -> tuple[float, int]:
    """Seconds, and tokens of prompts that the engine has computed in them, whoever asked for them."""
    runtime.flush_cache()
    before = _computed(runtime)
    off = patch.multiple(SharedPrefix, saw=lambda self, state: None)
    with nullcontext() if kept else off:
        began = time.perf_counter()
        classify.run_batch(_rows(runtime, rows, noise), backend=runtime, temperature=0, num_threads=threads)
        seconds = time.perf_counter() - began
    return seconds, _computed(runtime) - before


def _computed(runtime: sgl.Runtime) -> int:
    stats = runtime.engine.stats()
    return stats["prompt_tokens"] - stats["cached_tokens"]


def _rows(runtime: sgl.Runtime, rows: int, noise: int) -> Any:
    for number in range(rows):
        for other in range(noise):
            runtime.engine.generate(f"{number} {other} " + "noise " * 150, {"max_new_tokens": 1})
        yield (f"number {number}",)


def main() -> None:
    """Print one line for each setting."""
    settings: list[tuple[str, dict[str, Any], int, int, int]] = [
        ("alone, 16 threads", {}, 200, 16, 0),
        ("alone, 1 thread", {}, 60, 1, 0),
        ("beside others", {"kv_cache_memory": 8 << 20}, 12, 1, 4),
    ]
    for name, options, rows, threads, noise in settings:
        with sgl.Runtime(**options) as runtime:
            batch(runtime, rows, threads, True, noise)  # warm
            found: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
            for _ in range(ROUNDS):
                for kept in (False, True):
                    found[kept].append(batch(runtime, rows, threads, kept, noise))
        seconds = {kept: statistics.median(each[0] for each in found[kept]) for kept in found}
        tokens = {kept: int(statistics.median(each[1] for each in found[kept])) for kept in found}
        print(
            f"{name:20} off {seconds[False]:6.3f} s, {tokens[False]:6} tokens computed;"
            f" on {seconds[True]:6.3f} s, {tokens[True]:6} tokens ({seconds[True] / seconds[False]:.2f} x the time)"
        )


if __name__ == "__main__":
    main()
