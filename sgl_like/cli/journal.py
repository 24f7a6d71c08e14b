r"""The output of a job: one line per row, in order, so that a killed run can be continued.

A later run first compares the lines that are there with the input rows, so the output needs no record of what the
input file was called or how long it was. How lines are written and found again is `frontend/batches/journal.py`'s:

    {"row": 0, "input": ..., "output": ..., "error": null}\n      equal to input row 0: kept
    {"row": 1, "input": ..., "output": null, "error": "..."}\n    equal to input row 1: kept
    {"row": 2, "inp                                              torn by the kill: cut off
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sgl_like.cli.rows import Row
from sgl_like.errors import DataError
from sgl_like.frontend.batches.journal import Journal

__all__ = ["OutputFile"]

_REMEDY = "use another -o, or --overwrite"


class OutputFile:
    """`OUT.jsonl`, open for appending.

    Args:
        path: the file; see `Journal`.
        meta: what the lines depend on besides their input; JSON values.
        overwrite: drop what is there.

    Raises:
        DataError: it cannot be written, or is not the output of a job with this `meta`.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], *, overwrite: bool = False) -> None:
        kind = "output of sgl-like extract"
        self._journal = Journal(path, meta, kind=kind, remedy=_REMEDY, overwrite=overwrite)
        self.path = path
        self.done = 0
        self.failed = 0

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def resume(self, rows: Iterator[Row]) -> None:
        """Take the rows already written from `rows`, and cut off a torn last line; sets `done` and `failed`.

        Raises:
            DataError: a line is not one of ours, or was written for another input.
        """
        for _, line in self._journal.lines():
            self._take(line, next(rows, None))

    def append(self, row: Row, output: Any, error: str | None) -> None:
        """Write the next row.

        Raises:
            DataError: the disk is full or gone. What was written of the line will be cut off by `resume`.
        """
        self._journal.append({"row": self.done, "input": row.value, "output": output, "error": error})
        self.done += 1
        self.failed += error is not None

    def _take(self, line: bytes, row: Row | None) -> None:
        """Count a line that is there, once it is known to be the output of the next input row."""
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if (
            not isinstance(record, dict)
            or record.get("row") != self.done
            or not {"input", "error"} <= record.keys()
        ):
            raise self._journal.damaged(self.done)
        if row is None:
            raise DataError(f"{self.path} has more rows than the input, which has {self.done}; {_REMEDY}")
        if record["input"] != row.value:
            raise DataError(
                f"{self.path}:{self.done + 1}: written for another input than the one now on line {row.line};"
                f" {_REMEDY}"
            )
        self.done += 1
        self.failed += record["error"] is not None
