"""A backend around another one: passes everything on, for subclasses that look at some of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from sgl_like.frontend.backend.base import Backend, CacheStats, Handle, Segment, Sink, ToolForm
from sgl_like.runtime.protocol import Output

__all__ = ["Collected", "NoHandle", "Wrapped"]


class NoHandle:
    """Of a request that is over before it can be cancelled."""

    def cancel(self) -> None:
        """Nothing is in flight."""
        return


class Collected:
    """A sink that passes events on and keeps them; `done` gets them all before the terminal one is passed on."""

    def __init__(self, sink: Sink, done: Callable[[list[Output]], None]) -> None:
        self._sink = sink
        self._done = done
        self._events: list[Output] = []

    def __call__(self, output: Output) -> None:
        """Take an event, on the thread of the backend inside."""
        self._events.append(output)
        if output.is_terminal:
            self._done(self._events)
        self._sink(output)


class Wrapped(Backend):
    """Passes every call on to `inner`."""

    def __init__(self, inner: Backend) -> None:
        super().__init__()
        self.inner = inner

    @property
    def model_name(self) -> str:
        """That of the backend inside."""
        return self.inner.model_name

    @property
    def fingerprint(self) -> str:
        """That of the backend inside."""
        return self.inner.fingerprint

    @property
    def supported_params(self) -> frozenset[str]:
        """Those of the backend inside."""
        return self.inner.supported_params

    @property
    def supports_images(self) -> bool:
        """As the backend inside."""
        return self.inner.supports_images

    @property
    def ids_are_tokens(self) -> bool:
        """As the backend inside."""
        return self.inner.ids_are_tokens

    def scores(self, prompt_ids: Sequence[int]) -> bool:
        """As the backend inside."""
        return self.inner.scores(prompt_ids)

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """As the backend inside."""
        return self.inner.opening(prompt_ids)

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """As the backend inside."""
        return self.inner.encode(segments, start=start)

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str] | None:
        """As the backend inside."""
        return self.inner.token_pieces(ids)

    def token_bytes(self) -> Sequence[bytes | None] | None:
        """As the backend inside."""
        return self.inner.token_bytes()

    @property
    def tool_form(self) -> ToolForm | None:
        """As the backend inside."""
        return self.inner.tool_form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """As the backend inside."""
        return self.inner.role_affixes(messages, role)

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """As the backend inside."""
        return self.inner.submit(prompt_ids, params, sink, stream)

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """As the backend inside."""
        return self.inner.score(prompt_ids, choices, sink)

    def cache_prefix(self, prefix: str) -> None:
        """As the backend inside."""
        self.inner.cache_prefix(prefix)

    def cache_stats(self) -> CacheStats:
        """Of the backend inside."""
        return self.inner.cache_stats()

    def get_server_info(self) -> dict[str, Any]:
        """Of the backend inside."""
        return self.inner.get_server_info()

    def hold_prefix(self, prefix_ids: Sequence[int]) -> Callable[[], None] | None:
        """As the backend inside."""
        return self.inner.hold_prefix(prefix_ids)

    def prepare(self, params: Mapping[str, Any]) -> Future[None] | None:
        """As the backend inside."""
        return self.inner.prepare(params)

    def flush_cache(self) -> bool:
        """As the backend inside."""
        return self.inner.flush_cache()

    def shutdown(self) -> None:
        """Stop the backend inside."""
        self.inner.shutdown()
