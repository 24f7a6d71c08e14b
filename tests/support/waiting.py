"""Requests that only wait: what the queue looks at, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.request import IntBuffer, Request
from sgl_like.runtime.engine.scheduler import Scheduler
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams


def waiting_request(
    tokens: Sequence[int], order: int = 0, priority: int = 0, namespace: str = "", new: int = 8
) -> Request:
    """A request without constraint, text or receiver."""
    unused = cast(Any, None)
    source = GenerateRequest(
        tokens, SamplingParams(max_new_tokens=new), priority=priority, namespace=namespace, rid=str(order)
    )
    return Request(
        source=source,
        sink=lambda output: None,
        max_tokens=len(tokens) + new,
        sampler=unused,
        detokenizer=unused,
        matcher=None,
        tokens=IntBuffer(tokens),
        order=order,
    )


def run_without_model(memory: KVMemory, scheduler: Scheduler) -> int:
    """Run all that waits to its end, sampling always the same token; returns prompt tokens that were cached."""
    cached = 0
    while rows := scheduler.plan():
        memory.settle(computed=True)
        for request, count, _ in rows:
            request.computed += count
            if request.computed - count < request.prompt_length:
                memory.publish(request)
            if request.pending == 0 and len(request.tokens) == request.max_tokens:
                cached += request.cached_tokens or 0
                scheduler.remove(request)
            elif request.pending == 0:
                request.tokens.extend((7,))
    return cached
