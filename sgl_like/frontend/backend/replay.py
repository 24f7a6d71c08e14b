"""`replay`: run programs again from what `record` wrote down. There is no model, and nothing of one is imported."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgl_like.errors import EngineClosedError, ReplayError, SglError
from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink, ToolForm
from sgl_like.frontend.backend.default import swap_default_backend
from sgl_like.frontend.backend.events import call_key, joined, segments_key
from sgl_like.frontend.backend.recording import Recording
from sgl_like.frontend.backend.wrapped import NoHandle
from sgl_like.runtime.protocol import Output

__all__ = ["Replayer", "replay"]

_CONTEXT = 30  # characters shown before and after a difference


def replay(path: str | Path) -> Replayer:
    """A backend that answers every call as it was answered when the file was recorded.

        with sgl.replay("run.jsonl"):
            state = program.run("...")

    Inside of the ``with`` it is the default backend; otherwise it is given as ``backend=``. Calls that were made
    several times get their answers in the order of the recording. A call that was not recorded is a `ReplayError`
    that says how it differs from the nearest one that was. Whether the run streams need not be as it was.

    Raises:
        DataError: the file is no recording; says which line.
    """
    return Replayer(Recording(path))


class Replayer(Backend):
    """What `replay` gives."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        self._closed = False
        self._outer: Backend | None = None

    @property
    def model_name(self) -> str:
        """That of the model that was recorded."""
        return str(self._recording.header["model"])

    @property
    def supported_params(self) -> frozenset[str]:
        """Those of the backend that was recorded."""
        return frozenset(self._recording.header["supported_params"])

    @property
    def supports_images(self) -> bool:
        """As the backend that was recorded."""
        return bool(self._recording.header["supports_images"])

    @property
    def ids_are_tokens(self) -> bool:
        """As the backend that was recorded."""
        return bool(self._recording.header["ids_are_tokens"])

    def scores(self, prompt_ids: Sequence[int]) -> bool:
        """As the backend that was recorded; of a prompt that was not, `score` will say so."""
        return self._recording.scores.get(json.dumps(list(prompt_ids)), True)

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """As the backend that was recorded; of a prompt that was not, `submit` will say so."""
        return self._recording.openings.get(json.dumps(list(prompt_ids)))

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """See `Backend.encode`.

        Raises:
            ReplayError: such text was never tokenised in the recording.
        """
        found = self._recording.encoded.get(segments_key(segments, start))
        if found is not None:
            return list(found)
        asked = "".join(segment.text for segment in segments)
        texts = ["".join(text for text, *_ in json.loads(key)[0]) for key in self._recording.encoded]
        raise self._miss("this text was never sent when it was recorded", _nearest(asked, texts))

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str] | None:
        """See `Backend.token_pieces`."""
        pieces = [self._recording.pieces.get(token) for token in ids]
        known = [piece for piece in pieces if piece is not None]
        return known if len(known) == len(pieces) else None

    @property
    def tool_form(self) -> ToolForm | None:
        """As the backend that was recorded."""
        return self._recording.tool_form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """See `Backend.role_affixes`.

        Raises:
            ReplayError: no such conversation was recorded.
        """
        key = json.dumps([list(messages), role])
        found = self._recording.affixes.get(key)
        if found is None:
            what = f"no {role} message came here when it was recorded"
            raise self._miss(what, _nearest(key, list(self._recording.affixes)))
        if isinstance(found, SglError):
            raise found
        return found

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """See `Backend.submit`.

        Raises:
            ReplayError: no such call was recorded, or not so many.
        """
        events = self._answer(prompt_ids, params)
        self._deliver(events if stream else [joined(events)], sink)
        return NoHandle()

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """See `Backend.score`.

        Raises:
            ReplayError: as for `submit`.
        """
        self._deliver(self._answer(prompt_ids, {"choices": [list(choice) for choice in choices]}), sink)
        return NoHandle()

    def flush_cache(self) -> bool:
        """There is no cache."""
        return True

    def shutdown(self) -> None:
        """Answer nothing more."""
        self._closed = True

    def __enter__(self) -> Replayer:
        self._outer = swap_default_backend(self)
        return self

    def __exit__(self, *_: object) -> None:
        swap_default_backend(self._outer)
        self.shutdown()

    def _answer(self, prompt_ids: Sequence[int], asked: Mapping[str, Any]) -> list[Output]:
        if self._closed:
            raise EngineClosedError(f"the replay of {self._recording.path} is closed")
        key = call_key(prompt_ids, asked)
        with self._lock:
            answers = self._recording.calls.get(key, ())
            place = self._taken.get(key, 0)
            if place < len(answers):
                self._taken[key] = place + 1
        if not answers:
            raise self._miss("no such call was recorded", self._difference(key))
        if place >= len(answers):
            raise self._miss(
                f"this call was recorded {len(answers)} times, and comes once more",
                f"its prompt ends with {self._recording.text(prompt_ids)[-_CONTEXT:]!r}",
            )
        answer = answers[place]
        if isinstance(answer, SglError):
            raise answer
        return answer

    def _deliver(self, events: Sequence[Output], sink: Sink) -> None:
        """Hand out events once the caller has returned, as from a backend's own thread."""

        def job() -> None:
            for event in events:
                sink(event)

        self.executor.post(job)

    def _difference(self, key: str) -> str:
        """How the call differs from the nearest recorded one: that with the longest part of its prompt in common."""
        ids, asked = json.loads(key)
        best: tuple[int, int] | None = None
        text = "there are no calls in it at all"
        for other in self._recording.calls:
            other_ids, other_asked = json.loads(other)
            changed = [
                name for name in sorted({*asked, *other_asked}) if asked.get(name) != other_asked.get(name)
            ]
            score = (_common(ids, other_ids), -len(changed))
            if best is not None and score <= best:
                continue
            best, parts = score, []
            if ids != other_ids:
                texts = self._recording.text(ids), self._recording.text(other_ids)
                parts.append("the prompt, " + _at_difference(*texts))
            for name in changed:
                parts.append(
                    f"{name}: {_shown(other_asked.get(name))} when recorded, {_shown(asked.get(name))} now"
                )
            text = "the nearest differs in " + "; ".join(parts)
        return text

    def _miss(self, what: str, more: str) -> ReplayError:
        return ReplayError(f"{self._recording.path}: {what}; {more}")


def _nearest(asked: str, recorded: Sequence[str]) -> str:
    if not recorded:
        return "there is none in it at all"
    best = max(recorded, key=lambda text: _common(asked, text) + _common(asked[::-1], text[::-1]))
    return "the nearest is " + _at_difference(asked, best)


def _at_difference(asked: str, recorded: str) -> str:
    """Both around the first place where they differ."""
    at = _common(asked, recorded)
    low = max(at - _CONTEXT, 0)
    old, new = recorded[low : at + _CONTEXT], asked[low : at + _CONTEXT]
    return f"{old!r} when recorded, {new!r} now (from character {at} on)"


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _shown(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
