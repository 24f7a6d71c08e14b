"""The command against a live server of ours."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sgl_like.cli.main import app
from tests.support.servers import running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as server:
        yield server.url


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bench", *arguments])
    return result.exit_code, result.output


def test_table_numbers_and_picture(url: str, tmp_path: Path) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    code, shown = run(
        *("--url", url, "--concurrency", "1,4", "--requests", "8", "--output-len", "4", "--input-len", "16"),
        *("--slo", "ttft=60", "--warmup", "2", "-o", str(out), "--plot", str(picture)),
    )
    assert code == 0, shown
    found = json.loads(out.read_text())
    assert (found["model"], found["endpoint"], found["slo"]) == ("tiny", "completions", {"ttft": 60.0})
    for level, concurrency in zip(found["levels"], (1, 4), strict=True):
        assert level["level"]["concurrency"] == concurrency
        assert (level["completed"], level["errors"], level["slo_share"]) == (8, {}, 1.0)
        assert level["ttft"]["count"] == 8
        assert level["ttft"]["p50"] <= level["ttft"]["p90"] <= level["ttft"]["p99"]
    assert "4 at a time" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_server_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code, shown = run(
        *(
            "--serve",
            "--serve-args",
            "--engine-kind stub --stub-step 0",
            "--concurrency",
            "20",
            "--requests",
            "40",
        ),
        *("--abort-share", "0.5", "-o", str(out)),
    )
    assert code == 0, shown
    found = json.loads(out.read_text())
    (level,) = found["levels"]
    assert (level["completed"] + level["aborted"], level["errors"]) == (40, {})
    assert level["aborted"] > 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(found["url"] + "/livez")


def test_a_server_of_its_own_that_does_not_start() -> None:
    code, shown = run("--serve", "--serve-args", "--model /nowhere")
    assert code == 1
    assert "the server did not start" in shown.replace("\n", " ")
    assert "/nowhere" in shown


def test_a_server_that_is_not_there() -> None:
    code, shown = run("--url", "http://127.0.0.1:9")
    assert code == 1
    assert "is it running?" in shown.replace("\n", " ")


def test_nothing_answered_is_a_failure(url: str) -> None:
    code, shown = run("--url", url, "--extra-body", '{"temperature": "hot"}', "--concurrency", "1")
    assert code == 1
    assert "32 times http_400" in shown


def test_a_picture_needs_matplotlib(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, shown = run("--url", url, "--plot", str(tmp_path / "x.png"))
    assert code == 2
    assert "sgl-like[bench]" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "a"], "not a list of numbers"),
        (["--extra-body", "["], "not JSON"),
        (["--extra-body", "[]"], "must be a JSON object"),
        (["--serve-args", "x"], "goes with --serve"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--prompts", "nowhere.jsonl", "--groups", "2"], "together"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], message: str) -> None:
    code, shown = run(*arguments)
    assert code == 2
    assert message in shown.replace("\n", " ")
