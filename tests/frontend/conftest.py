"""Settings of the frontend's tests: a test that hangs says where, and ends."""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Iterator

import pytest

from sgl_like.frontend.backend.default import set_default_backend
from tests.support.frontend_fake_backend import FakeBackend


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """What a test makes of the package's log level is its own."""
    logger = logging.getLogger("sgl_like")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    """A fake backend that is the default one."""
    fake = FakeBackend()
    set_default_backend(fake)
    yield fake
    set_default_backend(None)
