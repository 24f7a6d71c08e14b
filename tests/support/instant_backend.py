"""A backend that answers within `submit`, and keeps nothing: for tests with very many requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
from sgl_like.runtime.protocol import FinishReason, Output, Usage


class InstantBackend(Backend):
    """Says ``ok`` to everything."""

    model_name = "instant"
    supported_params = frozenset({"max_new_tokens", "temperature"})

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        return [ord(char) for segment in segments for char in segment.text]

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        return "", ""

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        sink(Output("rid", "ok", (1, 2), FinishReason("stop"), usage=Usage(len(prompt_ids), 2)))
        return _Handle()

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        raise NotImplementedError

    def flush_cache(self) -> bool:
        return True

    def shutdown(self) -> None:
        pass


class _Handle:
    def cancel(self) -> None:
        pass
