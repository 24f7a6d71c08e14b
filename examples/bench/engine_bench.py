"""Our engine on the workloads of a peers script, beside the peers, with the same weights and token ids.

    python examples/bench/engine_bench.py MODEL --peers ../shared/bench/engine/peers.py --peers-python VENV/bin/python

MODEL is what that folder's ``make_model.py`` wrote (``hf/`` and the peers' formats). Ours run before and after the
peers, because shared machines drift; medians are printed as JSON lines and then as a table with ratios to the best peer
of each workload. ``--workloads`` takes some of them, which makes a shorter run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

OURS = ("bf16", "int8", "int4")
PEERS = ("hf-bf16", "llama-bf16", "llama-q8_0", "llama-q4_0", "ct2-int8")
VOCAB = 131_072
CACHED = "fewshot-32, examples cached"
PATIENCE = 40
"""Seconds after which a workload is not repeated."""
Workload = tuple[list[list[int]], int]


def peers_module(script: Path, model: Path) -> Any:
    """The peers' script as a module, made for a model."""
    kept, sys.argv = sys.argv, [str(script), str(model)]
    spec = importlib.util.spec_from_file_location("peers", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.argv = kept
    return module


def workloads(peers: Path | None, model: Path) -> dict[str, Workload]:
    """The peers' own, and the few-shot one with the examples cached and other questions."""
    if peers is None:
        rng = random.Random(0)

        def ids(count: int) -> list[int]:
            return [rng.randrange(300, VOCAB) for _ in range(count)]

        shared = ids(1024)
        found = {
            "prefill-2048": ([ids(2048)], 1),
            "decode-1": ([ids(128)], 64),
            "decode-16": ([ids(128) for _ in range(16)], 64),
            "fewshot-32": ([shared + ids(32) for _ in range(32)], 16),
        }
    else:
        found = dict(peers_module(peers, model).W)
    prompts, new = found["fewshot-32"]
    rng = random.Random(7)
    others = [p[:1024] + [rng.randrange(300, VOCAB) for _ in p[1024:]] for p in prompts]
    return {**found, CACHED: (others, new)}


def with_tokenizer(folder: Path, out: Path) -> Path:
    """The same weights with a tokenizer that we read: bytes, and as many other pieces as the vocabulary has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate(alphabet)}
    vocab.update((f"t{i}", i) for i in range(len(alphabet), VOCAB))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(out / "tokenizer.json"))
    for name in ("config.json", "model.safetensors"):
        (out / name).symlink_to((folder / name).resolve())
    return out


def run_ours(folder: Path, name: str, work: dict[str, Workload], wanted: list[str], repeats: int) -> None:
    """Time one configuration of our engine, in this process; prints what `report` reads."""
    from sgl_like import Engine

    quantization = None if name == "bf16" else name
    with Engine(
        folder,
        dtype="bfloat16",
        quantization=quantization,
        threads=2,
        kv_cache_memory=2**30,
        speculation="off",
    ) as engine:

        def generate(prompts: list[list[int]], new: int) -> None:
            params = {"max_new_tokens": new, "temperature": 0, "ignore_eos": True}
            engine.generate(input_ids=prompts, sampling_params=params)

        def prepare(workload: str) -> None:
            engine.flush_cache()
            if workload == CACHED:
                generate(work["fewshot-32"][0], 1)

        generate([p[:64] for p in work["decode-16"][0]], 2)
        for workload in wanted:
            prompts, new = work[workload]
            seconds = timed(partial(generate, prompts, new), repeats, partial(prepare, workload))
            report(f"sgl_like-{name}", workload, prompts, new, seconds)


def run_peer(module: Any, name: str, work: dict[str, Workload], wanted: list[str], repeats: int) -> None:
    """The same with a peer, in an environment that has it."""
    engine = module.make(name)
    for workload in wanted:
        if workload != CACHED:
            prompts, new = work[workload]
            engine.run([p[:64] for p in prompts[:2]], 2)
            report(name, workload, prompts, new, timed(partial(engine.run, prompts, new), repeats))


def timed(run: Callable[[], object], repeats: int, prepare: Callable[[], object] = bool) -> float:
    """Median seconds."""
    times: list[float] = []
    while len(times) < repeats and (not times or times[-1] < PATIENCE):
        prepare()
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def report(engine: str, workload: str, prompts: list[list[int]], new: int, seconds: float) -> None:
    """One JSON line in the peers' format."""
    tokens = len(prompts) * new if new > 1 else len(prompts[0])
    line = {
        "engine": engine,
        "workload": workload,
        "s": round(seconds, 3),
        "tok/s": round(tokens / seconds, 1),
    }
    print(json.dumps(line), flush=True)


def lines_of(command: list[str]) -> list[dict[str, Any]]:
    """Run a command and read the JSON lines that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    for line in lines:
        print(json.dumps(line), flush=True)
    return lines


def limits() -> tuple[float, float, float]:
    """(bytes/s read, bfloat16 operations/s, int8 operations/s) that this machine reaches now, on two threads."""
    import torch

    from sgl_like.kernels.linear import BFloat16Linear, Int8Linear

    torch.set_num_threads(2)
    big = torch.ones(2**28, dtype=torch.int8)

    def best(work: Any, repeats: int = 5) -> float:
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    reading = big.nbytes / best(lambda: big.view(torch.int64).sum())
    weight, x = torch.randn(4864, 4864).bfloat16(), torch.randn(1024, 4864).bfloat16()
    operations = 2 * 4864 * 4864 * 1024
    rates = [
        operations / best(lambda layer=layer: layer(x))
        for layer in (BFloat16Linear(weight), Int8Linear(weight))
    ]
    return reading, rates[0], rates[1]


def main() -> None:
    """Parse arguments; run ours, peers, ours; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--peers", type=Path, help="peers.py; without it only ours run")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--engines", nargs="*", default=list(PEERS))
    parser.add_argument("--ours", nargs="*", default=list(OURS))
    parser.add_argument("--workloads", nargs="*", help="by default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--one-peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = workloads(options.peers, options.model)
    wanted = options.workloads or list(work)
    unknown = [name for name in wanted if name not in work]
    if unknown:
        parser.error(f"no such workloads: {', '.join(unknown)}; there are {', '.join(work)}")
    if options.one:
        with tempfile.TemporaryDirectory() as scratch:
            folder = with_tokenizer(options.model / "hf", Path(scratch))
            run_ours(folder, options.one, work, wanted, options.repeats)
        return
    if options.one_peer:
        run_peer(peers_module(options.peers, options.model), options.one_peer, work, wanted, options.repeats)
        return
    again = [__file__, str(options.model), "--repeats", str(options.repeats), "--workloads", *wanted]
    again += ["--peers", str(options.peers)] if options.peers else []

    def ours() -> list[dict[str, Any]]:
        return [line for name in options.ours for line in lines_of([sys.executable, *again, "--one", name])]

    print_limits()
    lines = ours()
    if options.peers and options.engines:
        for name in options.engines:
            lines += lines_of([options.peers_python, *again, "--one-peer", name])
        lines += ours()
        print_limits()
    table(lines)


def print_limits() -> None:
    """What the machine reaches now."""
    reading, halves, bytes_ = limits()
    print(
        f"limits now: {reading / 1e9:.0f} GB/s, bf16 {halves / 1e9:.0f}, int8 {bytes_ / 1e9:.0f} GOP/s",
        flush=True,
    )


def table(lines: list[dict[str, Any]]) -> None:
    """Tokens/s of all engines, and ours as multiples of the best peer."""
    rates: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if "tok/s" in line:
            rates.setdefault((line["engine"], line["workload"]), []).append(line["tok/s"])
    names = dict.fromkeys(workload for _, workload in rates)
    engines = dict.fromkeys(engine for engine, _ in rates)
    print("| tokens/s | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for engine in engines:
        cells = []
        for workload in names:
            mine = rates.get((engine, workload))
            cell = "" if mine is None else f"{statistics.median(mine):.1f}"
            rival = workload.removesuffix(", examples cached")
            peers = [
                statistics.median(v)
                for (e, w), v in rates.items()
                if w == rival and not e.startswith("sgl_like")
            ]
            if mine and peers and engine.startswith("sgl_like"):
                cell += f" ({statistics.median(mine) / max(peers):.2f}x)"
            cells.append(cell)
        print(f"| {engine} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
