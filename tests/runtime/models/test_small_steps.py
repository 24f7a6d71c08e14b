"""Passes of few tokens as one sequence of kernel calls: what the blocks compute, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sgl_like.runtime.models.decoder import Decoder
from sgl_like.runtime.models.load import load_model
from sgl_like.runtime.models.small_steps import MOST_TOKENS
from tests.support.families import make_family
from tests.support.forward import run
from tests.support.interpreted import only_cpu

pytestmark = only_cpu("is about how the kernels for CPUs are called")

FORMATS = [
    ("bfloat16", None),
    ("bfloat16", "int8"),
    ("bfloat16", "int4"),
    ("float32", "int8"),
    ("float32", "int4"),
]
PLAIN = ["llama", "mistral", "qwen2, windows above", "phi3, longrope"]
OTHERS = ["gpt2", "gemma2", "qwen3", "qwen3 moe", "llama, GELU, no groups"]


@pytest.mark.parametrize("dtype, quantization", FORMATS)
@pytest.mark.parametrize("name", PLAIN)
def test_equal_to_the_blocks(name: str, dtype: str, quantization: str | None, tmp_path: Path) -> None:
    make_family(tmp_path, name, intermediate_size=96)
    small, blocks = (load_model(tmp_path, dtype, quantization=quantization) for _ in range(2))
    assert isinstance(small, Decoder) and isinstance(blocks, Decoder) and small._small_steps is not None
    blocks._small_steps = None
    ids = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(5)).tolist()
    chunks = [90, MOST_TOKENS, 1, 5, 1, 4, 1, 1, 33]
    assert torch.equal(run(small, ids, chunks), run(blocks, ids, chunks))
    assert torch.equal(run(small, ids[:100], [1] * 100), run(blocks, ids[:100], [100]))


@pytest.mark.parametrize("name", OTHERS)
def test_blocks_with_other_parts_are_not_run_so(name: str, tmp_path: Path) -> None:
    make_family(tmp_path, name)
    model = load_model(tmp_path, "bfloat16", quantization="int8")
    assert isinstance(model, Decoder) and model._small_steps is None


def test_float32_matrices_are_not_run_so(tmp_path: Path) -> None:
    make_family(tmp_path, "llama")
    model = load_model(tmp_path, "float32")
    assert isinstance(model, Decoder) and model._small_steps is None
