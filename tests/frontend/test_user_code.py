"""The threads of validators and tools."""

from __future__ import annotations

import threading

import pytest

from sgl_like.frontend.bodies.workers import Workers
from sgl_like.frontend.tools import user_code
from sgl_like.frontend.tools.user_code import called, post
from sgl_like.frontend.watch import Watch


def test_one_who_waits_for_a_program_lends_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job waits for the next one, deeper than there are threads: else nobody would ever be done."""
    monkeypatch.setattr(user_code, "_pool", Workers(2, "test-user-code", always_lends=True))
    watch, ended, finished = Watch(), set(), threading.Event()

    def job(depth: int) -> None:
        if depth > 0:
            post(lambda: job(depth - 1))
            watch.wait_for(lambda: depth - 1 in ended)
        with watch.changing():
            ended.add(depth)
        if depth == 10:
            finished.set()

    post(lambda: job(10))
    assert finished.wait(20)
    user_code._pool.close()


def test_coroutine_functions() -> None:
    async def double(x: int) -> int:
        return 2 * x

    assert called(double, 4) == 8 and called(len, "abc") == 3
