"""Sizes of blocks that are tried once for a class of shapes on a GPU, and kept on disk.

A kernel with several good configurations asks `choose` for the one to use. The first time that a class of shapes comes
up on a kind of GPU, each is run a few times; the fastest is remembered here and in a file, so that later processes
start with it: ``~/.cache/sgl_like/NAME-OF-THE-GPU-triton-VERSION.json`` (``XDG_CACHE_HOME`` and ``SGL_LIKE_TUNING``
change the folder). It may be deleted at any time. Without a GPU the first configuration is taken.

Configurations of one kernel add up in the same order, so that outputs do not depend on which is chosen.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from math import inf
from pathlib import Path
from threading import RLock

import torch
import triton

Config = dict[str, int]
log = logging.getLogger(__name__)

RUNS = 5


def choose(
    op: str, key: Sequence[object], configs: Sequence[Config], run: Callable[[Config], None]
) -> Config:
    """The fastest of some configurations.

    While a CUDA graph is captured nothing is run: what is known is taken, else the first.

    Args:
        op: the kernel's name.
        key: what tells classes of shapes apart, and which `configs` there are.
        configs: at least one.
        run: launches the kernel. It is called many times, so an op that changes its inputs has to be given copies.
    """
    tuner = _tuner()
    return configs[0] if tuner is None else tuner.choose(op, key, configs, run)


class Tuner:
    """What is known about the configurations of kernels.

    Args:
        path: the file that keeps it; other processes may write to it too.
        seconds: how long a call takes.
        capturing: whether a CUDA graph is captured now.
    """

    def __init__(
        self, path: Path, seconds: Callable[[Callable[[], None]], float], capturing: Callable[[], bool]
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._capturing = capturing
        self._read = _read(path)
        self._known: dict[tuple[object, ...], Config] = {}
        self._lock = RLock()

    def choose(
        self, op: str, key: Sequence[object], configs: Sequence[Config], run: Callable[[Config], None]
    ) -> Config:
        """See `choose`."""
        found = self._known.get((op, *key))
        if found is not None:
            return found
        name = "/".join(map(str, (op, *key)))
        found = self._read.get(name)
        if found is None or found not in configs:
            if self._capturing():
                return configs[0]
            with self._lock:
                times = [self._time(run, config) for config in configs]
                found = configs[times.index(min(times))]
                if min(times) < inf:
                    _merge(self._path, {name: found})
        self._known[op, *key] = found
        return found

    def _time(self, run: Callable[[Config], None], config: Config) -> float:
        try:
            return self._seconds(lambda: run(config))
        except Exception as error:  # too much shared memory for this GPU, say
            log.debug("%s cannot be used: %s", config, error)
            return inf


@cache
def _tuner() -> Tuner | None:
    if not torch.cuda.is_available():
        return None
    folder = (
        os.environ.get("SGL_LIKE_TUNING") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "sgl_like"
    )
    device = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    path = Path(os.path.expanduser(folder)) / f"{device}-triton-{triton.__version__}.json"
    return Tuner(path, _seconds_on_gpu, torch.cuda.is_current_stream_capturing)


def _seconds_on_gpu(run: Callable[[], None]) -> float:
    """Of `RUNS` calls, after one that compiles. Before each, other memory fills the cache, as it would in a model."""
    run()
    other = torch.empty(
        2 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.uint8, device="cuda"
    )
    total = 0.0
    for _ in range(RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        other.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        total += start.elapsed_time(end) / 1000
    return total


def _read(path: Path) -> dict[str, Config]:
    """What the file has, as far as it can be read."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {str(k): int(v) for k, v in config.items()} for name, config in read.items()}
    except (OSError, ValueError, AttributeError, TypeError):  # no file yet, or not one of ours
        return {}


def _merge(path: Path, new: dict[str, Config]) -> None:
    """Add to the file. One process does so at a time, and none reads half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
                json.dump(_read(path) | new, file, indent=1)
            os.replace(file.name, path)
    except OSError as error:
        log.info("the tuning of kernels cannot be kept: %s", error)
