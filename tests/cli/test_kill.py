"""kill -9 in the middle of a run, then the same command again: the output is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "sgl_like" / "assets" / "demo"

# The command, with a backend that echoes, kills its own process: before answer number `n`, or halfway through a write.
KILLS_ITSELF = """
import os, signal, sys
from io import FileIO
from sgl_like.cli import main
from sgl_like.frontend.batches import journal
from tests.cli.fakes import EchoBackend

where, n = sys.argv.pop(1), int(sys.argv.pop(1))

class Torn(FileIO):
    left = n
    def write(self, data):
        if Torn.left == 0:
            super().write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        Torn.left -= 1
        return super().write(data)

class Killing(main.Totals):
    def add(self, answer):
        if self.rows == n:
            os.kill(os.getpid(), signal.SIGKILL)
        super().add(answer)

if where == "between":
    main.Totals = Killing
elif where == "within":
    journal.FileIO = Torn
main.load_model = lambda model, dtype: EchoBackend()
main.main()
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def fake(folder: Path, where: str, n: int) -> subprocess.CompletedProcess[str]:
    command = ["extract", "in.txt", "--schema", "s.json", "-o", "out.jsonl"]
    return subprocess.run(
        [sys.executable, "-c", KILLS_ITSELF, where, str(n), *command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("where", ["between", "within"])
def test_killed_again_and_again(tmp_path: Path, where: str) -> None:
    (tmp_path / "in.txt").write_text("".join(f"row {n} 안녕\n" for n in range(12)))
    (tmp_path / "s.json").write_text("true")
    out = tmp_path / "out.jsonl"
    assert fake(tmp_path, "nowhere", 0).returncode == 0
    whole = out.read_bytes()
    out.unlink()

    for n in (0, 5, 1):
        assert fake(tmp_path, where, n).returncode == -signal.SIGKILL
    assert out.read_bytes() == whole[: out.stat().st_size]
    assert out.read_bytes().count(b"\n") == 6
    assert out.read_bytes().endswith(b"\n") == (where == "between")

    done = fake(tmp_path, "nowhere", 0)
    assert done.returncode == 0, done.stderr
    assert "continuing after 6 of 12 rows" in done.stderr
    assert out.read_bytes() == whole


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    command = [
        "extract",
        "in.jsonl",
        "--schema",
        str(DEMO / "snips.schema.json"),
        "-o",
        out,
        "--concurrency",
        "8",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "sgl_like", *command],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input and the output of a run to its end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    utterances = (DEMO / "utterances.txt").read_text("utf-8").splitlines()
    texts = [f"{text} {n}" for n in range(6) for text in utterances]
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = start(folder, "whole.jsonl")
    errors = run.communicate()[1]
    assert run.returncode == 0, errors
    return folder


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_on_the_embedded_model(undisturbed: Path, how: signal.Signals) -> None:
    out = undisturbed / f"{how.name}.jsonl"
    cut = start(undisturbed, out.name)
    while cut.poll() is None and not (out.exists() and out.read_bytes().count(b"\n") > 20):
        time.sleep(0.002)
    cut.send_signal(how)
    errors = cut.communicate()[1]
    assert cut.returncode == (130 if how == signal.SIGINT else -how), errors
    texts = [json.loads(line)["text"] for line in (undisturbed / "in.jsonl").read_text().splitlines()]
    assert 20 < out.read_bytes().count(b"\n") < len(texts)
    if how == signal.SIGINT:
        assert errors.splitlines()[-1] == "interrupted"
        assert "give the command again to continue" in errors

    resumed = start(undisturbed, out.name)
    errors = resumed.communicate()[1]
    assert resumed.returncode == 0, errors
    assert "continuing after" in errors
    assert out.read_bytes() == (undisturbed / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
    assert [row["row"] for row in rows] == list(range(len(texts)))
    assert [row["input"]["text"] for row in rows] == texts
