"""Readers of JSONL, CSV and text: what is a row, and where an error is said to be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sgl_like.cli.rows import Format, Row, Source
from sgl_like.errors import DataError


def read(path: Path, data: bytes | str, column: str = "text", format: Format | None = None) -> list[Row]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(Source.of(path, column, format))


def texts(rows: list[Row]) -> list[str]:
    return [row.text for row in rows]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "unended"])
def test_text_lines(tmp_path: Path, mark: bytes, end: bytes, last: bool) -> None:
    lines = ["play jazz", "", "안녕 👋🏽", "  ", "\ta b ", "a\u2028b\x85c"]
    data = mark + end.join(line.encode() for line in lines) + (end if last else b"")
    rows = read(tmp_path / "in.txt", data)
    assert texts(rows) == ["play jazz", "안녕 👋🏽", "\ta b ", "a\u2028b\x85c"]
    assert [row.line for row in rows] == [1, 3, 5, 6]
    assert [row.value for row in rows] == texts(rows)


def test_jsonl(tmp_path: Path) -> None:
    values = [{"id": 1, "text": "a\nb"}, {"text": "é \u2028 😀", "more": [None, 1.5, {"x": True}]}]
    data = "\ufeff" + json.dumps(values[0]) + "\r\n\r\n" + json.dumps(values[1], ensure_ascii=False)
    rows = read(tmp_path / "in.jsonl", data)
    assert texts(rows) == ["a\nb", "é \u2028 😀"]
    assert [row.value for row in rows] == values
    assert [row.line for row in rows] == [1, 3]


def test_jsonl_field(tmp_path: Path) -> None:
    assert texts(read(tmp_path / "in.ndjson", '{"body": "x", "text": 5}', "body")) == ["x"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path: Path, end: str) -> None:
    lines = ["\ufeffid,text", '1,"a, ""quoted"" one"', "", '2,"two', 'lines"', "3,끝"]
    rows = read(tmp_path / "in.csv", end.join(lines) + end)
    assert texts(rows) == ['a, "quoted" one', f"two{end}lines", "끝"]
    assert [row.line for row in rows] == [2, 4, 6]
    assert rows[2].value == {"id": "3", "text": "끝"}


def test_tsv_and_format_option(tmp_path: Path) -> None:
    assert texts(read(tmp_path / "in.tsv", "a\ttext\n1,2\tx\n")) == ["x"]
    assert texts(read(tmp_path / "in.dat", "a,text\n1,x\n", format="csv")) == ["x"]
    assert texts(read(tmp_path / "in.csv", "a,text\n1,x\n", format="text")) == ["a,text", "1,x"]


def test_suffixes(tmp_path: Path) -> None:
    for name, format in {
        "a.JSONL": "jsonl",
        "a.ndjson": "jsonl",
        "a.csv": "csv",
        "a.log": "text",
        "a": "text",
    }.items():
        (tmp_path / name).touch()
        assert Source.of(tmp_path / name).format == format


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv"])
def test_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, "") == []
    assert read(tmp_path / name, "\n\n") == []


def test_check_counts_and_honours_limit(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\nbroken\n')
    source = Source.of(path)
    assert source.check(2) == 2
    assert source.check(0) == 0
    with pytest.raises(DataError, match=r":3: not valid JSON"):
        source.check()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "in.jsonl",
            '{"text": "a"}\n' * 16 + '{"text": }\n',
            ":17: not valid JSON: Expecting value at column 10",
        ),
        ("in.jsonl", '{"text": "a"', ":1: not valid JSON: Expecting ',' delimiter at column 13"),
        ("in.jsonl", '\n["a"]', ":2: not a JSON object but an array"),
        ("in.jsonl", '"a"', ":1: not a JSON object but a string"),
        ("in.jsonl", "null", ":1: not a JSON object but null"),
        ("in.jsonl", "3", ":1: not a JSON object but a number"),
        ("in.jsonl", '{"body": "", "id": 1}', ":1: no field 'text'; fields are 'body', 'id' (see --column)"),
        ("in.jsonl", "{}", ":1: no field 'text'; there are no fields (see --column)"),
        ("in.jsonl", '{"text": null}', ":1: field 'text' is null, not a string"),
        ("in.jsonl", '{"text": true}', ":1: field 'text' is a boolean, not a string"),
        ("in.jsonl", '{"text": 1.5}', ":1: field 'text' is a number, not a string"),
        (
            "in.jsonl",
            '{"text": "\\ud83d"}',
            ":1: field 'text' has half of a surrogate pair, which is no text",
        ),
        ("in.jsonl", '{"text": "", "x": NaN}', ":1: not valid JSON: NaN is no JSON value"),
        ("in.jsonl", '{"text": "", "x": 1e999}', ":1: not valid JSON: the number 1e999 is too large"),
        ("in.jsonl", '{"text": "", "x": ' + "[" * 200_000, ":1: not usable JSON: nested too deeply"),
        ("in.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', ":2: not UTF-8: byte 0xe9 at position 11"),
        ("in.txt", "a\n".encode("utf-16"), ":1: is UTF-16; save the file as UTF-8"),
        ("in.txt", b"ok\n\nab\xff", ":3: not UTF-8: byte 0xff at position 3"),
        ("in.csv", "id,body\n1,x\n", ":1: no column 'text'; columns are 'id', 'body' (see --column)"),
        ("in.csv", "text,text\n", ":1: column 'text' is there twice"),
        ("in.csv", "id,text\n1,a\n2\n", ":3: 1 fields, but the first line names 2 columns"),
        ("in.csv", 'id,text\n1,a\n2,"b\nc\n', ":3: not valid CSV: unexpected end of data"),
        ("in.csv", 'id,text\n1,"a"b\n', ":2: not valid CSV: ',' expected after '\"'"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataError) as caught:
        read(path, data)
    assert str(caught.value) == f"{path}{message}"


def test_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'c11', \.\.\. \(see"):
        read(tmp_path / "in.csv", ",".join(f"c{n}" for n in range(40)) + "\n")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Source.of(tmp_path / "none.txt")
    with pytest.raises(DataError, match="is a folder"):
        Source.of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        Source.of(tmp_path / "pipe")


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\nbroken')
    rows = iter(Source.of(path))
    assert next(rows).text == "a"
    with pytest.raises(DataError):
        next(rows)


def test_large_csv_field(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert texts(read(tmp_path / "in.csv", f"text\n{long}\n")) == [long]
