r"""A JSONL file that can be continued after a kill: whole lines, each written once, in one system call.

Beside `OUT.jsonl` lies `OUT.jsonl.meta`: what the lines depend on. A later run has to come with the same. A line that
a kill has torn has no end; `lines` cuts it off:

    {"row": 0, ...}\n    whole
    {"row": 1, ...}\n    whole
    {"row": 2, "te       torn
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from sgl_like.errors import DataError

__all__ = ["Journal"]


class Journal:
    """The file, open for appending from any thread, and locked against a second writer.

    Args:
        path: the file; created if missing, and removed again by `close` if nothing was written to it.
        meta: what the lines depend on; JSON values.
        kind: what a file without a meta is not, e.g. ``"output of sgl-like extract"``.
        remedy: what to do about a file that cannot be continued.
        overwrite: drop what is there.

    Raises:
        DataError: it cannot be written, or was begun with another `meta`.
    """

    def __init__(
        self, path: Path, meta: Mapping[str, Any], *, kind: str, remedy: str, overwrite: bool = False
    ) -> None:
        self.path = path
        self._kind = kind
        self._remedy = remedy
        self._existed = path.exists()
        self._file = self._open()
        self._meta_path = path.with_name(path.name + ".meta")
        self._appending = threading.Lock()
        self._broken: str | None = None  # why nothing can be appended any more
        try:
            self._lock()
            if overwrite:
                self._file.truncate(0)
            if os.fstat(self._file.fileno()).st_size:
                self._check_meta(meta)
            else:
                self._write_meta(meta)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Where each line starts, and the line. At the end a torn one is cut off, and appending goes on there."""
        end = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                yield end, line
                end += len(line)
        self._file.truncate(end)
        self._file.seek(end)

    def line_at(self, start: int) -> bytes:
        """The line that starts there."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.readline()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            DataError: the disk is full or gone, or the journal is closed. What was written of the line will be cut off
                by `lines`; nothing can be appended after it.
        """
        data = _line(record)
        with self._appending:
            if self._broken is not None:
                raise DataError(f"{self.path}: cannot be written: {self._broken}")
            self._broken = "a line was not written to its end"
            try:
                while data:
                    data = data[self._file.write(data) or 0 :]
            except OSError as problem:
                self._broken = problem.strerror
                raise DataError(f"{self.path}: cannot be written: {problem.strerror}") from problem
            self._broken = None

    def close(self) -> None:
        """Close the file; if this run made it and wrote nothing, remove it."""
        with self._appending:
            if self._file.closed:
                return
            self._broken = "it is closed"
            if not self._existed and not os.fstat(self._file.fileno()).st_size:
                self._meta_path.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
            self._file.close()

    def damaged(self, number: int) -> DataError:
        """The error for a line, counted from 0, that does not hold what it should."""
        return DataError(f"{self.path}:{number + 1}: not a line that sgl-like wrote there; {self._remedy}")

    def _open(self) -> FileIO:
        if self._existed and not self.path.is_file():
            raise DataError(f"{self.path}: cannot be written: it is not a regular file")
        folder = self.path.parent
        if not folder.is_dir():
            raise DataError(f"{self.path}: cannot be written: there is no folder {folder}")
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            return FileIO(descriptor, "r+b")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _lock(self) -> None:
        """Until the process ends, however it ends."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{self.path}: another run is writing to it") from error

    def _check_meta(self, meta: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self._meta_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(
                f"{self.path} exists and is no {self._kind}: "
                f"there is no {self._meta_path.name} beside it; {self._remedy}"
            ) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self._meta_path} is damaged; {self._remedy}") from error
        for name in {**meta, **found} if isinstance(found, dict) else meta:
            old = found.get(name) if isinstance(found, dict) else None
            if old != meta.get(name):
                now, before = _short(meta.get(name)), _short(old)
                raise DataError(
                    f"{self.path} was begun with another {name} ({before}, now {now}); {self._remedy}"
                )

    def _write_meta(self, meta: Mapping[str, Any]) -> None:
        fresh = self._meta_path.with_name(self._meta_path.name + ".new")
        try:
            fresh.write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._meta_path)
        except OSError as error:
            raise DataError(f"{self._meta_path}: cannot be written: {error.strerror}") from error


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a text we only repeat holds half of a surrogate pair
        return (json.dumps(record) + "\n").encode("ascii")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else text[:45] + "..."
