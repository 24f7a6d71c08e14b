"""The stub engine in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sgl_like.runtime.server.config import StubConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.engine.stub import StubEngine


@contextmanager
def stub(**config: Any) -> Iterator[LocalEngine]:
    """An engine until the end of the block."""
    engine = StubEngine(None, StubConfig(**config))
    try:
        yield LocalEngine(engine)
    finally:
        engine.shutdown()
