r"""The output of a job: one line per row, in order, one write each, so that a killed run can be continued.

Beside `OUT.jsonl` lies `OUT.jsonl.meta`, what the lines depend on besides their input: schema, model and options.
A later run with the same meta first compares the lines that are there with the input rows, so the output needs
no record of what the input file was called or how long it was:

    {"row": 0, "input": ..., "output": ..., "error": null}\n      equal to input row 0: kept
    {"row": 1, "input": ..., "output": null, "error": "..."}\n    equal to input row 1: kept
    {"row": 2, "inp                                              no end of line: torn by the kill, cut off
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from sgl_like.cli.rows import Row
from sgl_like.errors import DataError

_REMEDY = "use another -o, or --overwrite"


class Journal:
    """`OUT.jsonl`, open for appending and locked against a second writer.

    Args:
        path: the output file; created if missing, and removed again by `close` if nothing was written to it.
        meta: what the lines depend on besides their input; JSON values.
        overwrite: drop what is there.

    Raises:
        DataError: it cannot be written, or is not the output of a job with this `meta`.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.done = 0
        self.failed = 0
        self._existed = path.exists()
        self._file = self._open()
        self._meta_path = path.with_name(path.name + ".meta")
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

    def resume(self, rows: Iterator[Row]) -> None:
        """Take the rows already written from `rows`, and cut off a torn last line; sets `done` and `failed`.

        Raises:
            DataError: a line is not one of ours, or was written for another input.
        """
        end = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._take(line, next(rows, None))
                end += len(line)
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, row: Row, output: Any, error: str | None) -> None:
        """Write the next row.

        Raises:
            DataError: the disk is full or gone. What was written of the line will be cut off by `resume`.
        """
        data = _line({"row": self.done, "input": row.value, "output": output, "error": error})
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as problem:
            raise DataError(f"{self.path}: cannot be written: {problem.strerror}") from problem
        self.done += 1
        self.failed += error is not None

    def close(self) -> None:
        """Close the file; if this run made it and wrote nothing, remove it."""
        if self._file.closed:
            return
        if not self._existed and not os.fstat(self._file.fileno()).st_size:
            self._meta_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._file.close()

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
                f"{self.path} exists and is no output of sgl-like extract: "
                f"there is no {self._meta_path.name} beside it; {_REMEDY}"
            ) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self._meta_path} is damaged; {_REMEDY}") from error
        for name in {**meta, **found} if isinstance(found, dict) else meta:
            old = found.get(name) if isinstance(found, dict) else None
            if old != meta.get(name):
                now, before = _short(meta.get(name)), _short(old)
                raise DataError(f"{self.path} was begun with another {name} ({before}, now {now}); {_REMEDY}")

    def _write_meta(self, meta: Mapping[str, Any]) -> None:
        fresh = self._meta_path.with_name(self._meta_path.name + ".new")
        try:
            fresh.write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._meta_path)
        except OSError as error:
            raise DataError(f"{self._meta_path}: cannot be written: {error.strerror}") from error

    def _take(self, line: bytes, row: Row | None) -> None:
        """Count a line that is there, once it is known to be the output of the next input row."""
        where = f"{self.path}:{self.done + 1}"
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if (
            not isinstance(record, dict)
            or record.get("row") != self.done
            or not {"input", "error"} <= record.keys()
        ):
            raise DataError(f"{where}: not a line that sgl-like wrote there; {_REMEDY}")
        if row is None:
            raise DataError(f"{self.path} has more rows than the input, which has {self.done}; {_REMEDY}")
        if record["input"] != row.value:
            raise DataError(
                f"{where}: written for another input than the one now on line {row.line}; {_REMEDY}"
            )
        self.done += 1
        self.failed += record["error"] is not None


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # a column we only repeat holds half of a surrogate pair
        return (json.dumps(record) + "\n").encode("ascii")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else text[:45] + "..."
