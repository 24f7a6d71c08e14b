"""Block sizes that are tried once for a class of shapes on a GPU, and kept on disk.

A kernel with several good configurations asks `choose` for the one to use. The first time that a class of shapes comes
up on a kind of GPU, each is run a few times; the fastest is remembered here and in a file of the user's cache directory
(or where ``SGL_LIKE_TUNING`` says), so that later processes start with it. Without a GPU the first one is taken.
Configurations of one kernel add up in the same order, so that outputs do not depend on which is chosen.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
import triton

Config = dict[str, int]
log = logging.getLogger(__name__)

RUNS = 5


def choose(
    op: str, key: Sequence[object], configs: Sequence[Config], run: Callable[[Config], None]
) -> Config:
    """The fastest of some configurations.

    Args:
        op: the kernel's name.
        key: what tells classes of shapes apart.
        configs: at least one.
        run: launches the kernel.
    """
    if len(configs) == 1 or not torch.cuda.is_available() or torch.cuda.is_current_stream_capturing():
        return configs[0]
    name = "/".join(map(str, (op, *key)))
    found = _known().get(name)
    if found is None or found not in configs:
        found = _known()[name] = min(configs, key=lambda config: _seconds(run, config))
        _keep()
    return found


def _seconds(run: Callable[[Config], None], config: Config) -> float:
    try:
        run(config)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(RUNS):
            run(config)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
    except Exception as error:  # too much shared memory for this GPU, say
        log.debug("%s cannot be used: %s", config, error)
        return float("inf")


@cache
def _path() -> Path:
    folder = (
        os.environ.get("SGL_LIKE_TUNING") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "sgl_like"
    )
    device = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    return Path(folder).expanduser() / f"{device}-triton-{triton.__version__}.json"


@cache
def _known() -> dict[str, Config]:
    try:
        read = json.loads(_path().read_text(encoding="utf-8"))
        return {str(name): {str(k): int(v) for k, v in config.items()} for name, config in read.items()}
    except (OSError, ValueError, AttributeError, TypeError):  # no file yet, or not one of ours
        return {}


def _keep() -> None:
    """Write the file anew, in one step, so that no process reads half of it."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(_known(), file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        log.info("the tuning of kernels cannot be kept: %s", error)
