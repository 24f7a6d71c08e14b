"""What a GPU's attention plan takes on the CPU, once a step.

    python examples/bench/attention_plan.py

Medians of many plans, of Llama-3.1-8B's 4 query heads for a key; the upload is to memory of the CPU.
"""

from __future__ import annotations

import time
from statistics import median

from kernel_cases import make_rows

from sgl_like.kernels.triton.attention_plan import plan

CASES = {
    "256 rows of 4,096": ([(1, 4096)] * 256, 0),
    "64 rows that share 8,192 of 8,320": ([(1, 8320)] * 64, 8192),
    "64 rows of 4,096, and 8,192 new tokens": ([(1, 4096)] * 64 + [(8192, 8192)], 0),
    "a row of 512": ([(1, 512)], 0),
}


def main() -> None:
    """Measure and print."""
    for name, (sizes, shared) in CASES.items():
        slots = shared + sum(length - shared for _, length in sizes)
        rows, times = make_rows(sizes, slots, shared), []
        for _ in range(200):
            begun = time.perf_counter()
            plan(rows, 4, "cpu")
            times.append(time.perf_counter() - begun)
        print(f"{name}: {1e3 * median(times):.2f} ms")


if __name__ == "__main__":
    main()
