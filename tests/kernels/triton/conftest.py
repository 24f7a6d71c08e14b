"""Triton's kernels run on the GPU if there is one, else in Triton's interpreter.

With ``SGL_LIKE_COMPILE=90`` they are compiled for a GPU of that compute capability instead, without one: results are
then what memory held, so tests only fail if something does not compile.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Iterator

import pytest
import torch

from tests.support.poison import Poison

COMPILE_FOR = int(os.environ.get("SGL_LIKE_COMPILE", "0"))

if not torch.cuda.is_available() and not COMPILE_FOR:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported


@pytest.fixture(autouse=True)
def _triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton: pip install 'sgl-like[gpu]'")
    if not COMPILE_FOR:
        yield
        return
    from sgl_like.kernels.triton.offline import compiling

    monkeypatch.setattr(torch.testing, "assert_close", lambda *args, **options: None)
    with compiling(COMPILE_FOR, lambda kernel: None):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except AssertionError:
        if COMPILE_FOR:
            return True  # nothing was computed
        raise


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
    if not COMPILE_FOR:
        found.check()
