"""`record`: run programs on a backend, and write down every call, so that `replay` runs them without one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sgl_like.errors import SglError
from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink, ToolForm
from sgl_like.frontend.backend.default import resolve_backend, swap_default_backend
from sgl_like.frontend.backend.events import call_key, error_to_json, output_to_json, segments_key
from sgl_like.frontend.backend.recording import Writer
from sgl_like.frontend.backend.wrapped import Collected, Wrapped
from sgl_like.runtime.protocol import Output

__all__ = ["Recorder", "record"]


def record(path: str | Path, backend: Backend | None = None) -> Recorder:
    """A backend that runs programs on another one and records its calls in a file.

        with sgl.record("run.jsonl"):
            state = program.run("...")

    Inside of the ``with`` it is the default backend; programs that name theirs are recorded by
    ``program.run(..., backend=sgl.record("run.jsonl", backend))``. Every call is written when it ends, so
    what is there when a process dies can be replayed. A file that exists is written over.

    Args:
        path: of the file (JSON lines).
        backend: what answers; by default the default backend.

    Raises:
        OSError: the file cannot be written.
        TypeError: `backend` is not a backend.
    """
    return Recorder(path, resolve_backend(backend))


class Recorder(Wrapped):
    """What `record` gives. `close` ends the recording; the backend inside goes on."""

    def __init__(self, path: str | Path, inner: Backend) -> None:
        super().__init__(inner)
        self._pieces: set[int] = set()
        self._outer: Backend | None = None
        self._writer = Writer(
            path,
            {
                "model": inner.model_name,
                "supported_params": sorted(inner.supported_params),
                "supports_images": inner.supports_images,
                "ids_are_tokens": inner.ids_are_tokens,
            },
        )

    def scores(self, prompt_ids: Sequence[int]) -> bool:
        """See `Backend.scores`."""
        answer = self.inner.scores(prompt_ids)
        self._writer.write_once({"type": "scores", "key": json.dumps(list(prompt_ids)), "answer": answer})
        return answer

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """See `Backend.opening`."""
        answer = self.inner.opening(prompt_ids)
        self._writer.write_once({"type": "opening", "key": json.dumps(list(prompt_ids)), "answer": answer})
        return answer

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """See `Backend.encode`."""
        ids = self.inner.encode(segments, start=start)
        self._writer.write_once({"type": "encode", "key": segments_key(segments, start), "ids": ids})
        self._note_tokens(ids)
        return ids

    @property
    def tool_form(self) -> ToolForm | None:
        """See `Backend.tool_form`."""
        form = self.inner.tool_form
        data = None if form is None else asdict(form)
        self._writer.write_once({"type": "tool_form", "key": "", "form": data})
        return form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """See `Backend.role_affixes`."""
        line = {"type": "affixes", "key": json.dumps([list(messages), role])}
        try:
            affixes = self.inner.role_affixes(messages, role)
        except SglError as error:
            self._writer.write_once({**line, "error": error_to_json(error)})
            raise
        self._writer.write_once({**line, "affixes": affixes})
        return affixes

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """See `Backend.submit`."""
        call = self._begin(prompt_ids, dict(params))
        try:
            return self.inner.submit(prompt_ids, params, Collected(sink, partial(self._end, call)), stream)
        except SglError as error:
            self._writer.write({**call, "error": error_to_json(error)})
            raise

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """See `Backend.score`."""
        call = self._begin(prompt_ids, {"choices": [list(choice) for choice in choices]})
        try:
            return self.inner.score(prompt_ids, choices, Collected(sink, partial(self._end, call)))
        except SglError as error:
            self._writer.write({**call, "error": error_to_json(error)})
            raise

    def close(self) -> None:
        """End the recording."""
        self._writer.close()

    def shutdown(self) -> None:
        """End the recording, and stop the backend inside."""
        self.close()
        self.inner.shutdown()

    def __enter__(self) -> Recorder:
        self._outer = swap_default_backend(self)
        return self

    def __exit__(self, *_: object) -> None:
        swap_default_backend(self._outer)
        self.close()
        if self._writer.lines == 1:  # the header
            warnings.warn(
                f"sgl.record: nothing was recorded in {self._writer.path}; a program that names its backend is"
                " recorded by backend=sgl.record(path, backend)",
                stacklevel=2,
            )

    def _begin(self, prompt_ids: Sequence[int], asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "call", "number": self._writer.next_call(), "key": call_key(prompt_ids, asked)}

    def _end(self, call: Mapping[str, Any], events: Sequence[Output]) -> None:
        finish = events[-1].finish
        if finish is not None and finish.type == "abort":
            return  # its owner gave it up; a run that does not will find no half an answer
        for event in events:
            self._note_tokens(event.token_ids)
            for place in (*event.prompt_logprobs, *event.output_logprobs):
                self._note_tokens(token for _, token, _ in (*place.top, *place.asked))
        self._writer.write(
            {**call, "rid": events[-1].rid, "events": [output_to_json(event) for event in events]}
        )

    def _note_tokens(self, ids: Iterable[int]) -> None:
        """Write down what tokens stand for, once for each, so that traces of a replay can show them."""
        new = sorted(set(ids) - self._pieces)
        pieces = self.inner.token_pieces(new) if new else None
        if pieces is not None:
            self._pieces.update(new)
            shown = [[piece] if isinstance(piece, str) else piece.hex() for piece in pieces]
            self._writer.write({"type": "tokens", "pieces": dict(zip(map(str, new), shown, strict=True))})
