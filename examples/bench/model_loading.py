"""Memory and time of loading a model: the peak over the size of its weights.

    python examples/bench/model_loading.py [--weights float32 bfloat16 int8 int4] [--model FOLDER]

Writes a model of 227 million random weights (Qwen2's architecture, 12 layers, 100,000 tokens) with transformers, in
bfloat16 and in float32, with tied and with separate embeddings, or takes the one in a folder, and loads each in a
process of its own; int8 and int4 compute in bfloat16. `peak` is how far the process's resident memory rose above what
it was before loading at the highest (VmHWM in /proc/self/status), `kept` where it ended, both over the size of the
loaded model's tensors; the first includes code that is compiled on first use, about 25 MB. `anon` is the part of `kept`
that is no mapped file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 100_000,
}


def write(folder: Path, dtype: str, tied: bool) -> None:
    import torch
    import transformers

    config = transformers.Qwen2Config(**SHAPE, tie_word_embeddings=tied)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)


def memory() -> dict[str, int]:
    """Bytes of this process's memory: now, at its highest, and without mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}


def load(folder: Path, weights: str) -> dict[str, float]:
    from sgl_like.runtime.engine.info import held_bytes
    from sgl_like.runtime.models.load import load_model

    quantization = weights if weights.startswith("int") else None
    before, start = memory(), perf_counter()
    model = load_model(folder, "bfloat16" if quantization else weights, quantization=quantization)
    seconds, after = perf_counter() - start, memory()
    size = held_bytes(model)
    return {
        "weights_mb": size / 1e6,
        "peak": (after["VmHWM"] - before["VmRSS"]) / size,
        "kept": (after["VmRSS"] - before["VmRSS"]) / size,
        "anon": (after["RssAnon"] - before["RssAnon"]) / size,
        "seconds": seconds,
    }


def measure(folder: str, weights: list[str], name: str) -> None:
    """Print a row for each format of the weights."""
    for kind in weights:
        command = [sys.executable, __file__, "--load", folder, "--weights", kind]
        run = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        r = json.loads(run.stdout.splitlines()[-1])
        print(
            f"{name:20} {kind:10} {r['weights_mb']:6.0f} {r['peak']:6.2f} {r['kept']:6.2f} {r['anon']:6.2f} "
            f"{r['seconds']:6.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("float32", "bfloat16", "int8", "int4")
    parser.add_argument("--weights", nargs="*", choices=kinds, default=kinds)
    parser.add_argument("--model", help="a folder; by default random weights are written")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # in the process that is measured
    args = parser.parse_args()
    if args.load is not None:
        print(json.dumps(load(args.load, args.weights[0])))
        return
    print(f"{'file':20} {'loaded as':10} {'MB':>6} {'peak':>6} {'kept':>6} {'anon':>6} {'s':>6}")
    if args.model:
        measure(args.model, args.weights, Path(args.model).name)
        return
    for stored in ("bfloat16", "float32"):
        for tied in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), stored, tied)
                measure(folder, args.weights, f"{stored}, {'tied' if tied else 'separate'}")


if __name__ == "__main__":
    main()
