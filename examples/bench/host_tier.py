"""Loading a prefix from the second tier's files against computing it, for the shape of a 0.5B model.

    .venv/bin/python examples/bench/host_tier.py [--folder DIR] [--runs 3]

Weights are random: only their shape matters (that of Qwen2.5-0.5B, bfloat16). Files are read from the page cache, and
again after it was told to drop them (`posix_fadvise`; whether the disk below has a cache of its own is another matter).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from sgl_like.runtime.cache.host_tier import HostTier
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.engine.request import IntBuffer
from sgl_like.runtime.engine.runner import make_batch
from sgl_like.runtime.engine.scheduler import Row
from sgl_like.runtime.models.load import load_model

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "torch_dtype": "bfloat16",
    "eos_token_id": 151645,
}
CHUNK = 512


def median(runs: int, function: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> float:
    """Seconds."""
    times = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        model = load_model(folder, "bfloat16", "dummy")
        shape = model.config
        longest = max(options.lengths)
        pool = KVPool(shape.layers, longest, shape.kv_heads, shape.head_dim, model.dtype)
        tokens = np.random.default_rng(0).integers(0, 150_000, longest).astype(np.int32)
        slots = np.arange(longest, dtype=np.int32)

        def compute(length: int) -> None:
            """The prompt in chunks, as the scheduler would."""
            buffers = IntBuffer(tokens[:length]), IntBuffer(slots[:length])
            with torch.inference_mode():
                for at in range(0, length, CHUNK):
                    request = SimpleNamespace(tokens=buffers[0], slots=buffers[1], computed=at)
                    row = Row(cast(Any, request), min(CHUNK, length - at))
                    model.forward(make_batch([row]), pool)

        compute(longest)
        tier = HostTier(folder / "kv", pool, "bench", 10**10)
        save = median(1, lambda: tier.save(tokens, slots, 0, "", wait=True))
        tier._to_write.join()

        def drop() -> None:
            for path in (folder / "kv").iterdir():
                file = os.open(path, os.O_RDONLY)
                os.fsync(file)  # only what is on disk can be dropped
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)

        print(
            f"a block of 64 tokens: {tier.layout.file_bytes / 1e6:.2f} MB; threads {torch.get_num_threads()}"
        )
        print(f"copying {longest} tokens out of the pool, on eviction: {save * 1e3:.1f} ms")
        for length in options.lengths:

            def load(length: int = length) -> None:
                assert tier.load(tokens, 0, slots[:length], "") == length

            computing = median(options.runs, lambda length=length: compute(length))
            warm, cold = median(options.runs, load), median(options.runs, load, drop)
            print(
                f"{length:5} tokens: compute {computing * 1e3:7.1f} ms, load {warm * 1e3:6.1f} ms from memory "
                f"({computing / warm:.0f} times as fast), {cold * 1e3:6.1f} ms from disk ({computing / cold:.0f} times)"
            )
        tier.close()


if __name__ == "__main__":
    main()
