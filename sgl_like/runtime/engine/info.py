"""What an engine says about itself: counts since the start, the state of its queue and cache, memory by part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor

from sgl_like.runtime.engine.core import EngineCore


def read_stats(core: EngineCore) -> dict[str, Any]:
    """Counts since the start, and the state of queue and KV slots. Runs on the engine's thread.

    ``step_seconds`` and ``step_tokens`` are histograms; see `Histogram.read`.
    """
    memory, scheduler, stats = core.memory, core.scheduler, core.stats
    return {
        "steps": stats.steps,
        "computed_tokens": stats.computed_tokens,
        "sampled_tokens": stats.sampled_tokens,
        "forced_tokens": stats.forced_tokens,
        "draft_tokens": stats.draft_tokens,
        "accepted_tokens": stats.accepted_tokens,
        "cached_tokens": stats.cached_tokens,
        "prompt_tokens": stats.prompt_tokens,
        "finished_requests": stats.finished_requests,
        "aborted_requests": stats.aborted_requests,
        "failed_requests": stats.failed_requests,
        "constrained_requests": stats.constrained_requests,
        "running_requests": len(scheduler.running),
        "running_constrained": sum(request.matcher is not None for request in scheduler.running),
        "running_tokens": sum(len(request.tokens) for request in scheduler.running),
        "waiting_requests": len(scheduler.waiting),
        "waiting_tokens": scheduler.waiting.tokens,
        "retracted_requests": scheduler.retracted_total,
        "retracted_input_tokens": scheduler.retracted_input_tokens,
        "retracted_output_tokens": scheduler.retracted_output_tokens,
        "last_step_requests": stats.last_step_requests,
        "last_step_tokens": stats.last_step_tokens,
        "step_seconds": stats.step_seconds.read(),
        "step_tokens": stats.step_tokens.read(),
        "kv_slots": memory.size,
        "kv_free": memory.allocator.free_count,
        "kv_evictable": memory.tree.evictable_count,
        "kv_locked": memory.tree.locked_count,
        "kv_evicted": memory.tree.evicted_total,
        "kv_pinned": memory.pinned,
        "kv_loaded": memory.host.loaded_tokens if memory.host is not None else 0,
    }


def held_bytes(*roots: Any) -> int:
    """Bytes of all tensors and arrays that objects hold, directly or below; memory in common counts once."""
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, np.ndarray):
            sizes[value.__array_interface__["data"][0]] = value.nbytes
        else:
            waiting += _parts(value)
    return sum(sizes.values())


def _parts(value: Any) -> Iterator[Any]:
    """What an object of this package, or a collection, consists of."""
    if isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or ())
    elif type(value).__module__.startswith("sgl_like."):
        yield from getattr(value, "__dict__", {}).values()
        for kind in type(value).__mro__:
            for name in getattr(kind, "__slots__", ()):
                if hasattr(value, name):
                    yield getattr(value, name)
