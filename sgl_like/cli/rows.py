r"""Input rows of a job, read lazily: JSONL, CSV and TSV by column, or plain text by line.

A file is read twice, once to check all of it before the engine starts and once to run, and never held in
memory. Only `\n` ends a line, so that a U+2028 inside a text does not; a byte order mark and `\r` at the end
of a line are dropped, and blank lines are no rows. Whatever is wrong is a `DataError` that names file and line.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sgl_like.errors import DataError

Format = Literal["jsonl", "csv", "tsv", "text"]

_FORMAT_OF_SUFFIX: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAX_CSV_FIELD = 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One input row.

    Args:
        line: where it starts in the file, counted from 1.
        text: what the program reads.
        value: what the output repeats: the text, or all columns of a JSONL or CSV row.
    """

    line: int
    text: str
    value: str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows; iterating reads it from the start."""

    path: Path
    format: Format
    column: str

    @classmethod
    def of(cls, path: Path, column: str = "text", format: Format | None = None) -> Source:
        """Check that `path` is a file that can be read; without `format` its suffix decides.

        Raises:
            DataError: it is missing, a folder, a pipe, or may not be read.
        """
        if not path.exists():
            raise DataError(f"{path}: no such file")
        if path.is_dir():
            raise DataError(f"{path}: is a folder, not a file")
        if not path.is_file():
            raise DataError(
                f"{path}: is not a regular file; the input is read twice, so save it to a file first"
            )
        try:
            path.open("rb").close()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(path, format or _FORMAT_OF_SUFFIX.get(path.suffix.lower(), "text"), column)

    def __iter__(self) -> Iterator[Row]:
        if self.format == "text":
            return self._text_rows()
        if self.format == "jsonl":
            return self._jsonl_rows()
        return self._csv_rows("," if self.format == "csv" else "\t")

    def check(self, limit: int | None = None) -> int:
        """Read the first `limit` rows (or all) and return how many there are.

        Raises:
            DataError: the first row that cannot be used.
        """
        return sum(1 for _ in islice(self, limit))

    def error(self, line: int, message: str) -> DataError:
        """The error for a line of this file."""
        return DataError(f"{self.path}:{line}: {message}")

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Line number and text of each line, its end included."""
        try:
            with self.path.open("rb") as file:
                for number, data in enumerate(file, 1):
                    if number == 1:
                        if data.startswith(_UTF16_MARKS):
                            raise self.error(1, "is UTF-16; save the file as UTF-8")
                        data = data.removeprefix(b"\xef\xbb\xbf")
                    try:
                        yield number, data.decode("utf-8")
                    except UnicodeDecodeError as error:
                        raise self.error(
                            number, f"not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}"
                        ) from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _text_rows(self) -> Iterator[Row]:
        for number, line in self._lines():
            text = line.rstrip("\r\n")
            if text.strip():
                yield Row(number, text, text)

    def _jsonl_rows(self) -> Iterator[Row]:
        for number, line in self._lines():
            if not line.strip():
                continue
            value = self._json(number, line)
            if not isinstance(value, dict):
                raise self.error(number, f"not a JSON object but {_kind(value)}")
            if self.column not in value:
                raise self.error(
                    number, f"no field {self.column!r}; {_known('fields', value)} (see --column)"
                )
            text = value[self.column]
            if not isinstance(text, str):
                raise self.error(number, f"field {self.column!r} is {_kind(text)}, not a string")
            if not _is_unicode(text):
                raise self.error(
                    number, f"field {self.column!r} has half of a surrogate pair, which is no text"
                )
            yield Row(number, text, value)

    def _json(self, number: int, line: str) -> Any:
        try:
            return json.loads(line, parse_constant=_no_constant, parse_float=_finite)
        except json.JSONDecodeError as error:
            raise self.error(number, f"not valid JSON: {error.msg} at column {error.colno}") from error
        except RecursionError as error:
            raise self.error(number, "not usable JSON: nested too deeply") from error
        except ValueError as error:
            raise self.error(number, f"not valid JSON: {error}") from error

    def _csv_rows(self, delimiter: str) -> Iterator[Row]:
        csv.field_size_limit(_MAX_CSV_FIELD)
        lines = (line for _, line in self._lines())
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        records = self._csv_records(reader)
        header = next(records, (1, []))[1]
        if not header:
            return
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise self.error(1, f"column {twice!r} is there twice")
        if self.column not in header:
            raise self.error(1, f"no column {self.column!r}; {_known('columns', header)} (see --column)")
        for number, record in records:
            if len(record) != len(header):
                raise self.error(
                    number, f"{len(record)} fields, but the first line names {len(header)} columns"
                )
            value = dict(zip(header, record, strict=True))
            yield Row(number, value[self.column], value)

    def _csv_records(self, reader: Any) -> Iterator[tuple[int, list[str]]]:
        """Line number where it starts, and fields, of each record that is not blank."""
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self.error(start, f"not valid CSV: {error}") from error
            if record:
                yield start, record


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    """What a JSON value is, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def _known(what: str, names: Mapping[str, Any] | list[str]) -> str:
    listed = [repr(name) for name in names]
    shown = ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "")
    return f"{what} are {shown}" if listed else f"there are no {what}"
