"""Triton's kernels on a GPU: the share each reaches of the ceiling that binds it, beside torch's own.

    python examples/bench/kernel_bench.py [--quick] [--only attention,sampling] [-o kernels.json]

Ceilings are measured first: bytes per second of a device copy (read and written bytes), and operations per second of
a bfloat16 matmul. A kernel's share is the least time that its bytes or its operations take at the ceiling, over the
time that it took. Shapes are those of Llama-3.1-8B, Llama-3.2-1B and Qwen3-0.6B. Needs a GPU, torch and Triton; no
network. The whole run takes under nine minutes; the L2 cache is emptied before each measurement.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel_cases import BF16, GROUPS, Case


@dataclass(frozen=True)
class Ceilings:
    """What the device does at most: bytes and bfloat16 operations per second."""

    bandwidth: float
    matmul: float


def seconds(run: Callable[[], Any], least: float = 0.15) -> float:
    """Median time of a call, by events of the device, with an empty L2 cache."""
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    run()
    run()
    torch.cuda.synchronize()
    begun, times = time.monotonic(), []
    while len(times) < 5 or (time.monotonic() - begun < least and len(times) < 100):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(np.median(times))


def measure_ceilings() -> Ceilings:
    """A copy of 2 GiB, and a product of 8192 x 8192 matrices."""
    source = torch.empty(2**31, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / seconds(partial(target.copy_, source))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=BF16) for _ in range(2))
    return Ceilings(bandwidth, 2 * 8192**3 / seconds(partial(torch.matmul, a, b)))


def measure(case: Case, ceilings: Ceilings) -> dict[str, Any]:
    """Run a case and its peers; what fails says so instead of a number."""
    result: dict[str, Any] = {"name": case.name}
    try:
        took = seconds(case.run)
        floor = max(case.bytes / ceilings.bandwidth, case.operations / ceilings.matmul)
        bound = "memory" if case.bytes / ceilings.bandwidth >= case.operations / ceilings.matmul else "matmul"
        result |= {"us": took * 1e6, "share": floor / took, "bound": bound}
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {str(error)[:200]}"
    for name, run in case.peers.items():
        try:
            result[name] = seconds(run) * 1e6
        except Exception as error:
            result[name] = f"{type(error).__name__}: {str(error)[:100]}"
    return result


def show(result: dict[str, Any]) -> str:
    """One line."""
    if "error" in result:
        return f"{result['name']:58} {result['error']}"
    peers = [
        f"{name} {value:.0f} us ({value / result['us']:.2f} x)"
        if isinstance(value, float)
        else f"{name}: {value}"
        for name, value in result.items()
        if name not in ("name", "us", "share", "bound")
    ]
    ours = f"{result['us']:9.1f} us {result['share']:6.1%} of {result['bound']}"
    return f"{result['name']:58} {ours}   {'; '.join(peers)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the shapes that goals are set for")
    parser.add_argument("--only", help=f"of {', '.join(GROUPS)}")
    parser.add_argument(
        "--limit", type=float, default=510, help="seconds after which no further case is begun"
    )
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "kernel_bench needs a GPU; tests/kernels/triton runs the kernels in Triton's interpreter"
        )
    import triton

    begun = time.monotonic()
    versions = f"torch {torch.__version__}, triton {triton.__version__}, CUDA {torch.version.cuda}"
    print(f"{torch.cuda.get_device_name()}, {versions}")
    ceilings = measure_ceilings()
    print(f"copy {ceilings.bandwidth / 1e12:.2f} TB/s, bfloat16 matmul {ceilings.matmul / 1e12:.0f} TFLOP/s")
    results = []
    for group in options.only.split(",") if options.only else GROUPS:
        for case in GROUPS[group](options.quick):
            if time.monotonic() - begun > options.limit:
                raise SystemExit("out of time; choose groups with --only")
            results.append(measure(case, ceilings))
            print(show(results[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"ceilings": vars(ceilings), "results": results}, indent=1))


if __name__ == "__main__":
    main()
