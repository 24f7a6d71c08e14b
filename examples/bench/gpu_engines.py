"""Whole engines on a GPU: the embedded model in all formats beside a CPU's, and a step of a 1B model's shape.

    python examples/bench/gpu_engines.py [--rows 64] [--new 64]
    SGL_LIKE_KERNELS=triton TRITON_INTERPRET=1 python examples/bench/gpu_engines.py --device cpu --rows 2 --new 2

The first part shows, for each format, the share of greedy tokens that are those of float32 on a CPU, up to the first
other one of each output; in float32 it must be all of them. The second one runs random weights of Llama-3.2-1B's shape
in bfloat16 (a tiny shape with ``--device cpu``) and shows tokens per second beside the least time in which a step can
read weights, keys and values. Without a GPU it runs in Triton's interpreter, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from kernel_setting import MODELS, TINY

import sgl_like as sgl

FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, fp8 keys and values": {"dtype": "bfloat16", "kv_cache_dtype": "fp8"},
    "fp8": {"dtype": "bfloat16", "quantization": "fp8"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int4": {"dtype": "bfloat16", "quantization": "int4"},
}
PROMPT = "<|system|>Turn the utterance into JSON.<|end|><|user|>{}<|end|><|assistant|>"
UTTERANCES = (
    "play some jazz by Queen",
    "will it rain in Paris tomorrow",
    "book a table for four at six",
    "rate this book five stars",
)


def outputs(device: str, new: int, options: dict[str, Any]) -> list[list[int]]:
    """Greedy tokens for the utterances."""
    params = {"temperature": 0, "max_new_tokens": new, "ignore_eos": True}
    with sgl.Engine(device=device, kv_cache_memory=32 * 2**20, **options) as engine:
        found = engine.generate([PROMPT.format(each) for each in UTTERANCES], params)
        engine.check_invariants()
    return [each["output_ids"] for each in found]


def agreement(found: list[list[int]], expected: list[list[int]]) -> float:
    """Share of tokens before the first other one of each output."""
    same = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True)))
        for a, b in zip(found, expected, strict=True)
    ]
    return sum(same) / sum(map(len, expected))


def large_model(folder: Path, tiny: bool) -> Any:
    """A config of a real model's shape, with the embedded model's tokenizer."""
    shape = TINY[0] if tiny else MODELS[1]
    assets = Path(sgl.__file__).parent / "assets/tiny"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(assets / name, folder)
    config = json.loads((assets / "config.json").read_text())
    config |= {
        "vocab_size": max(shape.vocab, config["vocab_size"]),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.wide,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return shape


def measure_steps(device: str, rows: int, new: int) -> None:
    """Print how fast a batch of prompts of 128 tokens goes on."""
    with tempfile.TemporaryDirectory() as folder:
        shape = large_model(Path(folder), tiny=device == "cpu")
        options: dict[str, Any] = {"load_format": "dummy", "dtype": "bfloat16", "speculation": "off"}
        with sgl.Engine(folder, device=device, max_running_requests=rows, **options) as engine:
            prompts = [[(7 * row + 3 * i) % 4000 for i in range(128)] for row in range(rows)]
            params = {"temperature": 0, "max_new_tokens": new, "ignore_eos": True}
            engine.generate(input_ids=prompts, sampling_params=params)  # kernels are compiled and tuned
            begun = time.perf_counter()
            engine.generate(input_ids=prompts, sampling_params=params)  # prompts are cached
            took = time.perf_counter() - begun
    least = shape.step_bytes(rows, 128 + new // 2) / 4.8e12
    print(
        f"{shape.name}, {rows} rows: {rows * new / took:.0f} tokens/s, {took / new * 1e3:.1f} ms a step; "
        f"an H200 reads what a step needs in {least * 1e3:.1f} ms"
    )


def main() -> int:
    """Compare and measure; 1 if float32 gives other tokens than a CPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", choices=("formats", "steps"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu_engines needs a GPU; see --device")
    shares = {"float32": 1.0}
    if options.only != "steps":
        expected = outputs("cpu", options.new, FORMATS["float32"])
        for name, given in FORMATS.items():
            shares[name] = agreement(outputs(options.device, options.new, given), expected)
            print(f"{name}: {shares[name]:.1%} of the tokens are those of float32 on a CPU", flush=True)
    if options.only != "formats":
        measure_steps(options.device, options.rows, options.new)
    return int(shares["float32"] < 1)


if __name__ == "__main__":
    sys.exit(main())
