"""What the operating system knows about the front process and its engine, and which version of us it is."""

from __future__ import annotations

import asyncio
import threading
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@cache
def package_version() -> str:
    """Of sgl_like, as installed."""
    try:
        return version("sgl-like")
    except PackageNotFoundError:
        return "unknown"


def front_process() -> dict[str, Any]:
    """Tasks, threads, file descriptors, child processes and memory of this process."""
    me = Path("/proc/self")
    return {
        "asyncio_tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "fds": len(list((me / "fd").iterdir())),
        "children": _children(me),
        **_memory(me),
    }


def engine_process(pid: int) -> dict[str, Any] | None:
    """The engine's; ``None`` if there is no such process, or it may not be looked at."""
    process = Path("/proc") / str(pid)
    try:
        return {
            "pid": pid,
            "threads": len(list((process / "task").iterdir())),
            "fds": len(list((process / "fd").iterdir())),
            "children": _children(process),
            **_memory(process),
        }
    except OSError:
        return None


def _children(process: Path) -> list[int]:
    found: set[int] = set()
    for task in (process / "task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except OSError:  # the thread has ended meanwhile, or the kernel does not say
            continue
    return sorted(found)


def _memory(process: Path) -> dict[str, int]:
    """Bytes; `rss_anon` plus `swapped` is what leaks show in."""
    wanted = {"VmRSS": "rss", "RssAnon": "rss_anon", "VmSwap": "swapped"}
    found = {}
    for line in (process / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            found[wanted[name]] = int(value.split()[0]) * 1024
    return found
