"""Where the time of a decode step goes: scheduling and cache, batch making, kernels, the Python around them, sampling.

    python examples/bench/engine_overhead.py MODEL [--weights bf16 int8] [--rows 32] [--context 1024] [--steps 50]

MODEL is what ../shared/bench/engine/make_model.py wrote; without it the embedded model runs. All rows decode side by
side, ignoring the end of the sequence; with ``--regex`` their outputs are held to a regular expression. Wall time of
the engine's thread, every part without the parts inside it; medians over steps. What the clocks cost (about 0.2 us a
call, one for each kernel) is in the parts around.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from engine_bench import with_tokenizer

from sgl_like import Engine
from sgl_like.kernels import sequence, threads
from sgl_like.runtime.engine import core, draws, memory, output, runner, scheduler
from sgl_like.runtime.models import decoder
from sgl_like.runtime.sampling import masked_logits

BOOKKEEPING = ("plan", "publish")
PARTS: dict[str, tuple[str, list[tuple[Any, str]]]] = {
    "plan": ("scheduler and cache: plan", [(scheduler.Scheduler, "plan")]),
    "publish": (
        "cache: publish, settle",
        [(memory.KVMemory, "publish"), (memory.KVMemory, "settle"), (scheduler.Scheduler, "remove")],
    ),
    "batch": ("batch making", [(runner, "make_batch")]),
    "kernels": (
        "compiled kernels",
        [(threads, "run_tasks"), (sequence, "run_tasks")],
    ),
    "forward": ("the rest of the forward pass (Python, torch)", [(decoder.Decoder, "forward")]),
    "logits": ("the rest of the logits (Python, torch)", [(runner.ModelRunner, "last_logits")]),
    "masks": ("masks", [(core.EngineCore, "_can_go_on"), (core, "with_masks")]),
    "sampling": ("sampling", [(masked_logits, "sample"), (core, "apply_edits"), (draws.Scoring, "add")]),
    "output": ("output", [(output.OutputProcessor, "accept"), (output.OutputProcessor, "send")]),
    "step": ("the rest of the step", [(core.EngineCore, "step")]),
}


class Clock:
    """Seconds by part, each without what is inside it; one dict per step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._inside: list[float] = []

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - started
                own = seconds - self._inside.pop()
                self._now[part] = self._now.get(part, 0.0) + own
                if self._inside:
                    self._inside[-1] += seconds
                if part == "step":
                    self.steps.append(self._now)
                    self._now = {}

        return timed

    def install(self) -> None:
        """Time all of `PARTS`."""
        for part, (_, places) in PARTS.items():
            for owner, name in places:
                setattr(owner, name, self.wrap(part, getattr(owner, name)))


def decode_steps(
    clock: Clock, folder: Path | None, weights: str, options: argparse.Namespace
) -> list[dict[str, float]]:
    """The parts of the steps in which all rows decoded one token."""
    settings: dict[str, Any] = {"threads": options.threads, "max_running_requests": options.rows}
    settings["speculation"] = "off"  # every step is one token of every row
    if folder is not None:
        settings |= {"dtype": "bfloat16", "quantization": None if weights == "bf16" else weights}
        settings["kv_cache_memory"] = 2**30
    with Engine(folder, **settings) as engine:
        rng = random.Random(0)
        prompts = [[rng.randrange(300, 4000) for _ in range(options.context)] for _ in range(options.rows)]
        params = {"max_new_tokens": options.steps + 8, "temperature": 0, "ignore_eos": True}
        if options.regex:
            params["regex"] = options.regex
        clock.steps.clear()
        engine.generate(input_ids=prompts, sampling_params=params)
        return clock.steps[-options.steps - 1 : -1]  # the last one also ends all requests


def report(weights: str, steps: list[dict[str, float]], options: argparse.Namespace) -> None:
    """Print one table."""
    whole = statistics.median(sum(step.values()) for step in steps)
    print(f"\n{weights}, {options.rows} rows of {options.context} tokens: {whole * 1e3:.1f} ms a step\n")
    print("| part | ms | share |\n|---|---:|---:|")
    median = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in PARTS}
    for part, (name, _) in PARTS.items():
        print(f"| {name} | {median[part] * 1e3:.3f} | {median[part] / whole:.2%} |")
    books = sum(median[part] for part in BOOKKEEPING)
    outside = sum(seconds for part, seconds in median.items() if part != "kernels")
    print(f"| scheduling and cache together (aim: 2 %) | {books * 1e3:.3f} | {books / whole:.2%} |")
    print(f"| all but compiled kernels | {outside * 1e3:.3f} | {outside / whole:.2%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--weights", nargs="*", default=["bf16", "int8"])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--regex", help="hold the outputs to this")
    options = parser.parse_args()
    clock = Clock()
    clock.install()
    with tempfile.TemporaryDirectory() as scratch:
        folder = None if options.model is None else with_tokenizer(options.model / "hf", Path(scratch))
        for weights in options.weights if folder else ["embedded model"]:
            report(weights, decode_steps(clock, folder, weights, options), options)


if __name__ == "__main__":
    main()
