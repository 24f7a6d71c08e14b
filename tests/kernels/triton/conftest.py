"""Triton's kernels run on the GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch

from tests.support.poison import Poison

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported


@pytest.fixture(autouse=True)
def _triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton: pip install 'sgl-like[gpu]'")


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[Poison]:
    """Whatever is allocated without being filled is full of NaNs, and may not be left."""
    found = Poison()
    monkeypatch.setattr(torch, "empty", found.empty)
    monkeypatch.setattr(torch, "empty_like", found.empty_like)
    yield found
    found.check()
