"""Triton's kernels compiled for a GPU that need not be there: what each one takes of a processor.

    python examples/bench/kernel_compile.py [--target 90] [--full] [--only decode,extend] [-o compiled.json]

Runs what `kernel_bench.py` measures, at the same shapes, with a stand-in for the driver: each launch is compiled by
Triton and NVIDIA's assembler as it would be on the GPU, in all configurations that tuning tries, and not run. Memory of
the tensors is never touched. Shows registers, bytes spilled out of them, shared memory, how many programs fit onto a
processor at once, and which instructions multiply and load. Needs Triton, no GPU; ends with 1 if a kernel does not
compile, spills, or does not fit. Where a configuration limits registers, so that more programs fit, spills are what it
takes: tuning compares it with others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["SGL_LIKE_KERNELS"] = "triton"
os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from kernel_cases import GROUPS, chosen
from kernel_setting import Setting

from sgl_like.kernels.triton.offline import compiling

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
REGISTERS = 65536
THREADS = 2048
SHARED = {80: 164, 86: 100, 89: 100, 90: 228}
"""KiB of shared memory of a processor, by compute capability; a program can have all but one of them."""


@dataclass(frozen=True)
class Compiled:
    """One kernel in one configuration.

    Args:
        kernel: its name.
        warps: of a program.
        registers: of a thread.
        limited: whether there could be more registers, with fewer programs on a processor.
        spilled: bytes of a thread that did not fit into registers.
        shared: bytes of a program.
        programs: that fit onto a processor at once.
        multiplies: the instruction that tensor cores are used with.
        copies: whether global memory is copied to shared memory while computing.
        widest: bytes of the widest load of a thread from global memory.
    """

    kernel: str
    warps: int
    registers: int
    limited: bool
    spilled: int
    shared: int
    programs: int
    multiplies: str
    copies: bool
    widest: int

    def show(self) -> str:
        """One line."""
        notes = [self.multiplies or "no tensor cores", f"loads of {self.widest} bytes"]
        notes += ["asynchronous copies"] if self.copies else []
        notes += [f"SPILLS {self.spilled} bytes"] if self.spilled else []
        size = f"{self.warps:2} warps {self.registers:3} registers {self.shared:6} B shared"
        taken = f"{size} {self.programs:2} a processor"
        return f"    {self.kernel:16} {taken}   {', '.join(notes)}"


def inspect(kernel: Any, capability: int) -> Compiled:
    """Read a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    ptx = kernel.asm["ptx"]
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    registers = -(-used["REG"] // 8) * 8
    fit = [
        REGISTERS // (registers * 32 * warps),
        THREADS // (32 * warps),
        SHARED[capability] * 1024 // (shared + 1024),
        32,
    ]
    multiplies = re.search(r"(wgmma\.mma_async|mma\.sync)[.\w:]*", ptx)
    return Compiled(
        kernel.metadata.name,
        warps,
        used["REG"],
        kernel.metadata.maxnreg is not None,
        used["STACK"] + used["LOCAL"],
        shared,
        min(fit),
        multiplies[0].replace(".sync.aligned", "") if multiplies else "",
        "cp.async" in ptx,
        widest_load(ptx),
    )


def widest_load(ptx: str) -> int:
    """Bytes of the widest load of one thread from global memory."""
    loads = re.findall(r"ld\.global(?:\.\w+::\w+|\.nc|\.L\w+)*(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+),? *[^;]*;", ptx)
    return max(
        [int(many or 1) * int(bits) // 8 for many, bits in loads] + [int(size, 0) for size in copies],
        default=0,
    )


def main() -> int:
    """Compile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target", type=int, default=90, choices=SHARED, help="compute capability, without the dot"
    )
    parser.add_argument(
        "--full", action="store_true", help="all shapes, not only those that goals are set for"
    )
    parser.add_argument("--only", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    setting = Setting("cpu", "full" if options.full else "quick", filled=False)
    found: dict[str, list[Compiled]] = {}
    failed = 0
    known: dict[str, Compiled] = {}
    for group in chosen(options.only):
        for case in GROUPS[group](setting):
            kernels: dict[str, Any] = {}
            print(case.name, flush=True)
            try:
                with compiling(
                    options.target, lambda kernel, into=kernels: into.setdefault(kernel.hash, kernel)
                ):  # type: ignore[misc]
                    case.run()
            except Exception as error:
                failed += 1
                print(f"    {type(error).__name__}: {str(error)[:500]}")
            for key, kernel in kernels.items():
                if key not in known:
                    known[key] = inspect(kernel, options.target)
                    print(known[key].show(), flush=True)
            found[case.name] = [known[key] for key in kernels]
    bad = sum((each.spilled > 0 and not each.limited) or each.programs == 0 for each in known.values())
    print(f"{len(known)} kernels for sm_{options.target}; {failed} cases failed, {bad} spill or do not fit")
    if options.out is not None:
        named = {name: [asdict(each) for each in kernels] for name, kernels in found.items()}
        options.out.write_text(json.dumps(named, indent=1))
    return 1 if failed or bad else 0


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main())
