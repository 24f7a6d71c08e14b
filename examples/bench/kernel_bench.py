"""Triton's kernels on a GPU: the share each reaches of the ceiling that binds it, beside torch's own.

    python examples/bench/kernel_bench.py [--quick] [--only decode,sampling] [-o kernels.json]
    SGL_LIKE_KERNELS=triton TRITON_INTERPRET=1 python examples/bench/kernel_bench.py --tiny     # no GPU: no times

Ceilings are measured first: bytes per second of a device copy (read and written bytes), and operations per second of
a bfloat16 matmul. A kernel's share is the least time that its bytes or its operations take at the ceiling, over the
time that it took. Where a peer must give the same, that is checked, too. Shapes are those of Llama-3.1-8B,
Llama-3.2-1B and Qwen3-0.6B. Needs a GPU, torch and Triton; no network. The whole run takes under nine minutes; the L2
cache is emptied before each measurement. With ``--tiny`` the cases run once at tiny sizes in Triton's interpreter and
are compared with their peers, to see that they are right.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel_cases import GROUPS, chosen
from kernel_setting import BF16, Case, Setting

MOST_DIFFERENCE = 0.03
"""Of two results in bfloat16, as a share of the greatest number."""


@dataclass(frozen=True)
class Ceilings:
    """What the device does at most: bytes and bfloat16 operations per second."""

    bandwidth: float
    matmul: float


def seconds(run: Callable[[], Any], least: float = 0.15) -> float:
    """Median time of a call, by events of the device, with an empty L2 cache.

    The call is replayed as a graph, so that what Python takes to launch it is not in the time; what cannot be captured
    is called.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    run()
    run()
    torch.cuda.synchronize()
    run = captured(run)
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


def captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """A call as a graph, if it can be one."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except Exception:  # it waits for the device, say
        torch.cuda.synchronize()
        return run
    return graph.replay


def launch_seconds(run: Callable[[], Any]) -> float:
    """What Python takes for a call, while the device works."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(20):
        run()
    took = time.perf_counter() - begun
    torch.cuda.synchronize()
    return took / 20


def measure_ceilings() -> Ceilings:
    """A copy of 2 GiB, and a product of 8192 x 8192 matrices."""
    source = torch.empty(2**31, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / seconds(partial(target.copy_, source))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=BF16) for _ in range(2))
    return Ceilings(bandwidth, 2 * 8192**3 / seconds(partial(torch.matmul, a, b)))


def difference(case: Case, peer: Callable[[], Any]) -> float:
    """The greatest difference from a peer's result, as a share of its greatest number."""
    assert case.same is not None
    found, expected = case.run().float(), case.same(peer()).float()
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def measure(case: Case, ceilings: Ceilings) -> dict[str, Any]:
    """Run a case and its peers; what fails says so instead of a number."""
    result: dict[str, Any] = {"name": case.name, "peers": {}}
    try:
        took = seconds(case.run)
        floor = max(case.bytes / ceilings.bandwidth, case.operations / ceilings.matmul)
        bound = "memory" if case.bytes / ceilings.bandwidth >= case.operations / ceilings.matmul else "matmul"
        result |= {"us": took * 1e6, "share": floor / took, "bound": bound}
        result["launch_us"] = launch_seconds(case.run) * 1e6
        if case.step_bytes:
            result["of_step"] = took / (case.step_bytes / ceilings.bandwidth)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {str(error)[:200]}"
        return result
    for name, run in case.peers.items():
        try:
            peer: dict[str, Any] = {"us": seconds(run) * 1e6}
            if case.same is not None:
                peer["differs"] = difference(case, run)
        except Exception as error:
            peer = {"error": f"{type(error).__name__}: {str(error)[:100]}"}
        result["peers"][name] = peer
    return result


def show(result: dict[str, Any]) -> str:
    """One line."""
    if "error" in result:
        return f"{result['name']:58} {result['error']}"
    notes = [f"launched in {result['launch_us']:.0f} us"]
    if "of_step" in result:
        notes.append(f"{result['of_step']:.1%} of the least decode step")
    for name, peer in result["peers"].items():
        if "error" in peer:
            notes.append(f"{name}: {peer['error']}")
            continue
        note = f"{name} {peer['us']:.0f} us ({peer['us'] / result['us']:.2f} x)"
        notes.append(
            f"{note}, DIFFERS {peer['differs']:.1%}" if peer.get("differs", 0) > MOST_DIFFERENCE else note
        )
    ours = f"{result['us']:9.1f} us {result['share']:6.1%} of {result['bound']}"
    return f"{result['name']:58} {ours}   {'; '.join(notes)}"


def check_tiny(groups: Sequence[str]) -> int:
    """Run tiny cases once, and compare; 1 if something differs."""
    worst = 0.0
    for group in groups:
        for case in GROUPS[group](Setting("cpu", "tiny")):
            case.run()
            differs = {name: difference(case, run) for name, run in case.peers.items()} if case.same else {}
            print(
                case.name, *(f"{name} differs by {value:.1%}" for name, value in differs.items()), flush=True
            )
            worst = max(worst, *differs.values(), 0.0)
    return int(worst > MOST_DIFFERENCE)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the shapes that goals are set for")
    parser.add_argument(
        "--tiny", action="store_true", help="only check, at tiny sizes, in Triton's interpreter"
    )
    parser.add_argument("--only", help=f"of {', '.join(GROUPS)}")
    parser.add_argument(
        "--limit", type=float, default=510, help="seconds after which no further case is begun"
    )
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    groups = chosen(options.only)
    if options.tiny:
        return check_tiny(groups)
    if not torch.cuda.is_available():
        raise SystemExit("kernel_bench needs a GPU; see --tiny, and kernel_compile.py")
    import triton

    begun = time.monotonic()
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout.strip()
    versions = f"torch {torch.__version__}, triton {triton.__version__}, CUDA {torch.version.cuda}"
    print(f"{date.today()}, {torch.cuda.get_device_name()}, driver {driver}, {versions}")
    ceilings = measure_ceilings()
    print(f"copy {ceilings.bandwidth / 1e12:.2f} TB/s, bfloat16 matmul {ceilings.matmul / 1e12:.0f} TFLOP/s")
    results = []
    setting = Setting("cuda", "quick" if options.quick else "full")
    for case in (case for group in groups for case in GROUPS[group](setting)):
        if time.monotonic() - begun > options.limit:
            print("out of time; choose groups with --only")
            break
        results.append(measure(case, ceilings))
        print(show(results[-1]), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps({"ceilings": vars(ceilings), "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
