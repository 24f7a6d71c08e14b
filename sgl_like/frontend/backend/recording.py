"""The file between `record` and `replay`: JSON lines, each written whole when what it tells of has happened.

    {"format": "sgl-like-recording", "version": 1, "model": ..., "supported_params": [...], ...}
    {"type": "encode", "key": ..., "ids": [...]}
    {"type": "affixes", "key": ..., "affixes": [prefix, suffix]}    or with "error"
    {"type": "scores", "key": ..., "answer": true}    and "opening" likewise
    {"type": "tool_form", "key": "", "form": null}    or the fields of a `ToolForm`
    {"type": "tokens", "pieces": {"12": "hexadecimal bytes", "1": ["<|end|>"]}}
    {"type": "call", "number": 0, "key": ..., "rid": ..., "events": [...]}    or with "error": the call was refused

Calls have numbers in the order in which they were made and stand in the order in which they ended. A line that is torn
at the end of the file, because the process was killed, is left out.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgl_like.errors import DataError, EngineClosedError, SglError
from sgl_like.frontend.backend.base import ToolForm
from sgl_like.frontend.backend.events import error_from_json, output_from_json
from sgl_like.runtime.protocol import Output

__all__ = ["Recording", "Writer"]

FORMAT, VERSION = "sgl-like-recording", 1


class Writer:
    """Writes a recording. Any thread may; every line is one system call.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - lives as long as this
        weakref.finalize(self, self._file.close)  # of one that nobody closes
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._calls = 0
        self.lines = 0
        self.write({"format": FORMAT, "version": VERSION, **header})

    def next_call(self) -> int:
        """The number of a call that is made now.

        Raises:
            EngineClosedError: the recording was closed.
        """
        with self._lock:
            if self._file.closed:
                raise EngineClosedError(f"the recording {self.path} is closed")
            self._calls += 1
            return self._calls - 1

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line; does nothing once the recording is closed."""
        data = (json.dumps(line) + "\n").encode()
        with self._lock:
            if not self._file.closed:
                self._file.write(data)
                self.lines += 1

    def write_once(self, line: Mapping[str, Any]) -> None:
        """Write a line unless one of its type and key was written before."""
        name = f"{line['type']} {line['key']}"
        with self._lock:
            known = name in self._known
            self._known.add(name)
        if not known:
            self.write(line)

    def close(self) -> None:
        """Put everything on the disk, and take nothing more."""
        with self._lock:
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._file.close()


class Recording:
    """A recording as it was read.

    Raises:
        DataError: there is no such file, or a line of it is not of a recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            lines = Path(path).read_bytes().split(b"\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        self.header = _json(path, 1, lines[0])
        if self.header.get("format") != FORMAT or self.header.get("version") != VERSION:
            raise DataError(f"{path}: not a recording of version {VERSION} made by sgl.record")
        self.encoded: dict[str, list[int]] = {}
        self.affixes: dict[str, tuple[str, str] | SglError] = {}
        self.scores: dict[str, bool] = {}
        self.openings: dict[str, int | None] = {}
        self.tool_form: ToolForm | None = None
        self.pieces: dict[int, bytes | str] = {}
        calls: list[tuple[int, str, list[Output] | SglError]] = []
        for number, line in enumerate(lines[1:-1], 2):  # after the last line break is nothing, or a torn line
            data = _json(path, number, line)
            try:
                self._take(data, calls)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{path}, line {number}: not of a recording: {error!r}") from error
        self.calls: dict[str, deque[list[Output] | SglError]] = defaultdict(deque)
        for _, key, answer in sorted(calls, key=lambda call: call[0]):
            self.calls[key].append(answer)

    def _take(self, data: Any, calls: list[tuple[int, str, list[Output] | SglError]]) -> None:
        error = error_from_json(data["error"]) if "error" in data else None
        match data["type"]:
            case "encode":
                self.encoded[data["key"]] = list(map(int, data["ids"]))
            case "affixes":
                self.affixes[data["key"]] = error or tuple(data["affixes"])
            case "scores":
                self.scores[data["key"]] = bool(data["answer"])
            case "opening":
                self.openings[data["key"]] = data["answer"]
            case "tool_form":
                self.tool_form = None if data["form"] is None else ToolForm(**data["form"])
            case "tokens":
                for token, piece in data["pieces"].items():
                    self.pieces[int(token)] = piece[0] if isinstance(piece, list) else bytes.fromhex(piece)
            case "call":
                rid = str(data.get("rid", data["number"]))
                events = [output_from_json(event, rid) for event in data.get("events", ())]
                if error is None and not (events and events[-1].is_terminal):
                    raise ValueError("a call without an end")
                calls.append((data["number"], data["key"], error or events))
            case other:
                raise ValueError(f"unknown type {other!r}")

    def text(self, ids: Sequence[int]) -> str:
        """What tokens stand for, as far as it is known."""
        parts = [self.pieces.get(token, f"<{token}>") for token in ids]
        return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts).decode(
            "utf-8", "replace"
        )


def _json(path: str | Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}, line {number}: an object is needed, not {type(data).__name__}")
    return data
