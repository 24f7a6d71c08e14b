"""What the interpreter cannot show: that kernels compile for a GPU, fit onto it, and do not spill registers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **changes: str) -> str:
    """Standard output of a Python that does not interpret kernels, unless told to."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment | changes,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_shapes_of_real_models_compile_without_spills() -> None:
    out = run("examples/bench/kernel_compile.py")
    assert "0 cases failed, 0 spill" in out


@pytest.mark.slow
@pytest.mark.load
@pytest.mark.skipif("SGL_LIKE_COMPILE" in os.environ, reason="is what runs")
def test_all_that_is_tested_compiles() -> None:
    run("-m", "pytest", "-q", "-m", "not slow", "tests/kernels/triton", SGL_LIKE_COMPILE="90")


@pytest.mark.slow
def test_bench_agrees_with_its_peers_at_tiny_sizes() -> None:
    out = run("examples/bench/kernel_bench.py", "--tiny", SGL_LIKE_KERNELS="triton", TRITON_INTERPRET="1")
    assert "decode tiny" in out and "experts" in out


FORWARD = """
import tempfile
from pathlib import Path

import torch

from sgl_like.kernels.triton.offline import compiling
from sgl_like.runtime.models.load import load_model
from tests.support.families import FAMILIES, make_family
from tests.support.forward import run

for name in FAMILIES:
    folder = Path(tempfile.mkdtemp())
    make_family(folder, name)
    launched = []
    with compiling(90, lambda kernel: launched.append(kernel.metadata.name)):
        run(load_model(folder, "bfloat16"), list(range(45)), [40, 1, 4])
    print(name, sorted(set(launched)))
    assert {"_store_heads", "_tile"} <= set(launched)
"""


@pytest.mark.slow
def test_every_family_compiles() -> None:
    out = run("-c", FORWARD, SGL_LIKE_KERNELS="triton")
    assert "gemma" in out and "_layer_norm" in out and "_grouped" in out
