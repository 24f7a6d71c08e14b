"""Whether anything was lost or leaked while a server was treated badly (serving.md, 3.1)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sgl_like.runtime.server.observe.invariants import examine
from tests.support.http_clients import call
from tests.support.servers import Running, wait_until

CANARY = {"prompt": "play some jazz by", "max_tokens": 12, "temperature": 0}


@contextmanager
def nothing_lost(server: Running, key: str | None = None) -> Iterator[None]:
    """Compares the server after the block with the server before it.

    The block may leave requests behind, whose clients are gone: they have to end by themselves. Afterwards

    - no request is in flight anywhere, and all that came are accounted for,
    - the engine's invariants hold, no lock is left, and after a flush every KV slot is free,
    - a canary gets the same answer,
    - connections, file descriptors, threads and tasks are as many as before.
    """
    canary = _canary(server, key)
    _settle(server)
    before = _counts(server)
    yield
    _settle(server)
    found = _ask(server, examine(server.server))
    assert found["ok"] and found["idle"], found
    assert _ask(server, server.server.engine.ask("flush_cache")), "something keeps prefixes locked"
    kv = _ask(server, examine(server.server))["kv"]
    assert kv["available"] == kv["total"] and kv["locked"] == kv["protected"] == 0, kv
    assert _canary(server, key) == canary
    _settle(server)
    wait_until(lambda: all(now <= then for now, then in zip(_counts(server), before, strict=True)))


def _canary(server: Running, key: str | None) -> str:
    answer = call(server, "/v1/completions", CANARY, key=key)
    assert answer.status == 200, answer
    text: str = answer.json["choices"][0]["text"]
    return text


def _settle(server: Running) -> None:
    admission, guard = server.server.admission, server.runner.guard
    wait_until(lambda: admission.sequences == admission.tokens == 0, 120)
    wait_until(lambda: guard.connections == guard.waiting == 0, 120)
    wait_until(lambda: not server.server.observer.calls and not server.server.observer.open, 120)
    assert server.server.bodies.in_use == 0


def _counts(server: Running) -> tuple[int, int, int]:
    """File descriptors, threads but for those of the loop's pool, tasks."""

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    threads = [
        thread
        for thread in threading.enumerate()
        if not thread.name.startswith(("asyncio_", "uvloop_", "Thread"))
    ]
    return len(os.listdir("/proc/self/fd")), len(threads), _ask(server, tasks())


def _ask(server: Running, question: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(question, server.loop).result()
