"""Requests that only wait: what the queue looks at, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sgl_like.runtime.engine.request import IntBuffer, Request
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
