"""`cached`: a backend that remembers answers, so that what was asked before costs no forward pass and no request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgl_like.errors import ConfigError
from sgl_like.frontend.backend.base import Backend, Handle, Sink
from sgl_like.frontend.backend.default import resolve_backend
from sgl_like.frontend.backend.events import call_key, joined, output_from_json, output_to_json
from sgl_like.frontend.backend.store import DiskStore, MemoryStore
from sgl_like.frontend.backend.wrapped import Collected, NoHandle, Wrapped
from sgl_like.runtime.protocol import Output, new_request_id

__all__ = ["ResponseCache", "cached"]

_VERSION = 1  # of what is kept


def cached(
    backend: Backend | None = None,
    path: str | Path | None = None,
    *,
    max_entries: int = 10_000,
    max_bytes: int = 1 << 30,
    everything: bool = False,
) -> ResponseCache:
    """A backend that answers from a cache what it was asked before, and asks another one for the rest.

    Calls are the same if model, prompt tokens, parameters, constraint and seed are. Only those whose answer is
    determined are remembered: greedy ones, those with a seed, and the scores of a select. Answers that ended with an
    error never are.

    Args:
        backend: what answers; by default the default backend.
        path: of a folder to keep answers in, besides in memory. Several processes may share it.
        max_entries: most answers in memory; the one not used for the longest time goes first.
        max_bytes: most bytes in the folder; likewise.
        everything: remember sampled answers without a seed, too: asking again gives the same text again.

    Raises:
        ConfigError: a limit is below 1, or the folder cannot be used.
        TypeError: `backend` is not a backend.
    """
    for name, limit in (("max_entries", max_entries), ("max_bytes", max_bytes)):
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"{name} must be an integer of at least 1, not {limit!r}")
    try:
        disk = None if path is None else DiskStore(Path(path).expanduser(), max_bytes)
    except OSError as error:
        raise ConfigError(f"the cache's folder {str(path)!r} cannot be used: {error}") from error
    return ResponseCache(resolve_backend(backend), MemoryStore(max_entries), disk, everything)


class ResponseCache(Wrapped):
    """What `cached` gives. `flush_cache` empties the prefix cache of the backend inside, `clear` forgets answers."""

    def __init__(self, inner: Backend, memory: MemoryStore, disk: DiskStore | None, everything: bool) -> None:
        super().__init__(inner)
        self._memory = memory
        self._disk = disk
        self._everything = everything
        self._lock = threading.Lock()
        self._counts = {"hits": 0, "misses": 0, "not_cached": 0}

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """See `Backend.submit`. A remembered answer comes as one event."""
        if not (self._everything or _is_determined(params)):
            self._count("not_cached")
            return self.inner.submit(prompt_ids, params, sink, stream)
        key = self._key(prompt_ids, params)
        if self._answered(key, sink):
            return NoHandle()
        return self.inner.submit(prompt_ids, params, self._keeping(key, sink), stream)

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """See `Backend.score`."""
        key = self._key(prompt_ids, {"choices": [list(choice) for choice in choices]})
        if self._answered(key, sink):
            return NoHandle()
        return self.inner.score(prompt_ids, choices, self._keeping(key, sink))

    def stats(self) -> dict[str, int]:
        """``hits``, ``misses``, calls that are ``not_cached``, and the ``entries`` in memory."""
        with self._lock:
            return {**self._counts, "entries": len(self._memory)}

    def clear(self) -> None:
        """Forget all answers, those in the folder too."""
        self._memory.clear()
        if self._disk is not None:
            self._disk.clear()

    def _key(self, prompt_ids: Sequence[int], asked: Mapping[str, Any]) -> str:
        text = f"{_VERSION}\n{self.inner.fingerprint}\n{call_key(prompt_ids, asked)}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _answered(self, key: str, sink: Sink) -> bool:
        """Whether there is an answer; `sink` gets it when the caller has returned."""
        output = self._found(key)
        self._count("misses" if output is None else "hits")
        if output is not None:
            self.executor.post(lambda: sink(output))
        return output is not None

    def _found(self, key: str) -> Output | None:
        data = self._memory.get(key)
        if data is None and self._disk is not None:
            data = self._disk.get(key)
            if data is not None:
                self._memory.put(key, data)
        if data is None:
            return None
        output = output_from_json(json.loads(data), new_request_id())
        usage = replace(
            output.usage,
            cached_tokens=output.usage.prompt_tokens,
            computed_tokens=0,
            draft_tokens=0,
            accepted_tokens=0,
        )
        return replace(output, usage=usage)

    def _keeping(self, key: str, sink: Sink) -> Collected:
        return Collected(sink, lambda events: self._keep(key, events))

    def _keep(self, key: str, events: Sequence[Output]) -> None:
        output = joined(events)
        if output.error is None and output.finish is not None and output.finish.type in ("stop", "length"):
            data = json.dumps(output_to_json(output)).encode()
            self._memory.put(key, data)
            if self._disk is not None:
                self._disk.put(key, data)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def _is_determined(params: Mapping[str, Any]) -> bool:
    """Whether the same call has the same answer."""
    temperature = params.get("temperature")
    greedy = isinstance(temperature, int | float) and temperature < 1e-5
    return greedy or params.get("top_k") == 1 or params.get("seed") is not None
