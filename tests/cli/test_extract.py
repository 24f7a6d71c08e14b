"""`sgl-like extract` with a model that is not one: order, resuming, exit codes, messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sgl_like.cli import main
from sgl_like.errors import EngineClosedError, ModelLoadError
from sgl_like.frontend.batches.batch import WINDOW
from tests.cli.fakes import EchoBackend, stopping_totals

ROWS = ["play jazz", "안녕 👋🏽", "will fail", 'quote " and \\', "last"]
Extract = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "load_model", lambda model, dtype: EchoBackend())
    monkeypatch.setenv("COLUMNS", "200")
    Path("in.jsonl").write_text("".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(ROWS)))
    Path("s.json").write_text('{"type": "object", "properties": {"echo": {"type": "string"}}}')
    return tmp_path


@pytest.fixture
def extract(here: Path) -> Extract:
    def run(*options: str, input: str = "in.jsonl", schema: str = "s.json", out: str = "out.jsonl") -> Any:
        return CliRunner().invoke(main.app, ["extract", input, "--schema", schema, "-o", out, *options])

    return run


def loading_fails(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    def load(model: str | None, dtype: str) -> Any:
        raise problem

    monkeypatch.setattr(main, "load_model", load)


def lines(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").split("\n")[:-1]]


def test_writes_every_row_in_order(extract: Extract) -> None:
    done = extract()
    assert done.exit_code == 0, done.output
    assert [line["row"] for line in lines()] == [0, 1, 2, 3, 4]
    assert [line["input"] for line in lines()] == [{"id": n, "text": t} for n, t in enumerate(ROWS)]
    assert lines()[0] == {
        "row": 0,
        "input": {"id": 0, "text": "play jazz"},
        "output": {"echo": "play jazz"},
        "error": None,
    }
    assert lines()[2]["output"] is None
    assert "cannot do 'will fail'" in lines()[2]["error"]
    assert "안녕 👋🏽" in Path("out.jsonl").read_text("utf-8")


def test_summary(extract: Extract) -> None:
    done = extract()
    assert done.stdout == ""
    assert re.search(r"rows +5 done, 1 failed", done.stderr)
    assert re.search(r"time +\d+\.\d s, \d+\.\d rows/s, after \d+\.\d s to load the model", done.stderr)
    assert re.search(r"prompt tokens +40, of which cached 24 \(60%\)", done.stderr)
    assert re.search(r"output tokens +20: sampled 8, forced 12 \(60%\)", done.stderr)


def test_text_and_csv(extract: Extract) -> None:
    Path("in.txt").write_text("a\n\nb\r\n")
    Path("in.csv").write_text("id,body\n7,hello\n")
    assert extract(input="in.txt", out="t.jsonl").exit_code == 0
    assert [line["input"] for line in lines("t.jsonl")] == ["a", "b"]
    assert extract("--column", "body", input="in.csv", out="c.jsonl").exit_code == 0
    assert lines("c.jsonl")[0]["input"] == {"id": "7", "body": "hello"}
    assert lines("c.jsonl")[0]["output"] == {"echo": "hello"}


def test_limit_then_all(extract: Extract) -> None:
    assert extract().exit_code == 0
    whole = Path("out.jsonl").read_bytes()
    assert extract("--limit", "2", out="b.jsonl").exit_code == 0
    assert len(lines("b.jsonl")) == 2
    done = extract(out="b.jsonl")
    assert "continuing after 2 of 5 rows" in done.stderr
    assert "3 done, 2 were done before" in done.stderr
    assert Path("b.jsonl").read_bytes() == whole


def test_again_has_nothing_to_do(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    extract()
    before = Path("out.jsonl").read_bytes()
    loading_fails(monkeypatch, AssertionError("started the engine"))
    for options in [(), ("--limit", "3"), ("--concurrency", "7")]:
        done = extract(*options)
        assert done.exit_code == 0, done.output
        assert "nothing to do" in done.stderr
    assert Path("out.jsonl").read_bytes() == before


def test_rows_added_to_the_input_are_done_later(extract: Extract) -> None:
    extract()
    with open("in.jsonl", "a") as file:
        file.write('{"text": "new"}\n')
    assert extract().exit_code == 0
    assert [line["row"] for line in lines()] == [0, 1, 2, 3, 4, 5]


def test_resume_after_a_cut_at_any_byte(extract: Extract) -> None:
    extract()
    whole = Path("out.jsonl").read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    near_an_end = {end + shift for end in ends for shift in (-2, -1, 0, 1)}
    for length in sorted({*range(0, len(whole), 13), *near_an_end} - {len(whole), len(whole) + 1}):
        Path("out.jsonl").write_bytes(whole[:length])
        done = extract()
        assert done.exit_code == 0, done.output
        assert Path("out.jsonl").read_bytes() == whole, f"cut after {length} bytes"


@pytest.mark.parametrize("stop_after", range(5))
def test_resume_after_ctrl_c(extract: Extract, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    extract(out="whole.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(main, "Totals", stopping_totals(stop_after, KeyboardInterrupt()))
        done = extract()
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    if stop_after:
        assert f"stopped with {stop_after} of 5 rows in out.jsonl; give the command again" in done.stderr
    else:
        assert not Path("out.jsonl").exists()
    assert extract().exit_code == 0
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_a_dead_engine_is_no_failed_row(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = EchoBackend({"will fail": EngineClosedError("the engine stopped")})
    monkeypatch.setattr(main, "load_model", lambda model, dtype: dying)
    done = extract()
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "error: the engine stopped"
    assert len(lines()) == 2


def test_a_model_that_does_not_load_leaves_nothing(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    loading_fails(monkeypatch, ModelLoadError("no such model"))
    done = extract()
    assert done.exit_code == 2
    assert done.stderr == "error: no such model\n"
    assert not Path("out.jsonl").exists()
    assert not Path("out.jsonl.meta").exists()


def test_every_row_failed(extract: Extract) -> None:
    Path("in.txt").write_text("fail 1\nfail 2\n")
    assert extract(input="in.txt").exit_code == 1
    assert len(lines()) == 2
    assert extract(input="in.txt").exit_code == 1


def test_empty_input(extract: Extract) -> None:
    Path("in.txt").touch()
    done = extract(input="in.txt")
    assert done.exit_code == 0
    assert "nothing to do" in done.stderr


def test_overwrite(extract: Extract) -> None:
    Path("out.jsonl").write_text("something\n")
    assert extract("--overwrite").exit_code == 0
    assert len(lines()) == 5
    assert extract("--overwrite", "--max-tokens", "9", "--limit", "1").exit_code == 0
    assert len(lines()) == 1


def test_columns_with_half_a_surrogate_pair_are_repeated_as_escapes(extract: Extract) -> None:
    Path("in.jsonl").write_text('{"text": "é", "x": "\\ud83d"}\n')
    assert extract().exit_code == 0
    assert lines()[0]["input"] == {"text": "é", "x": "\ud83d"}
    assert "nothing to do" in extract().stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--max-tokens", "9"), "with another max_tokens (256, now 9)"),
        (("--system", "Be brief."), 'with another system ("Turn the utterance into JSON.", now "Be brief.")'),
        (("--property-order", "schema"), 'with another property_order ("any", now "schema")'),
        (("--dtype", "float32"), 'with another dtype ("auto", now "float32")'),
        (("--model", "a/b"), 'with another model (null, now "a/b")'),
        (("--column", "id"), "field 'id' is a number"),
        (("--schema", "other.json"), "with another schema ("),
    ],
)
def test_options_must_stay_the_same(extract: Extract, option: tuple[str, ...], message: str) -> None:
    Path("other.json").write_text("true")
    extract("--limit", "2")
    before = Path("out.jsonl").read_bytes()
    done = extract(*option)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert Path("out.jsonl").read_bytes() == before


def test_the_model_must_stay_the_same_also_behind_its_name(extract: Extract) -> None:
    """Other weights in the same folder would continue the file with another model's answers."""
    model = Path("model")
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(3_000_000) + b"first training")
    assert extract("--model", "model", "--limit", "2").exit_code == 0
    before = Path("out.jsonl").read_bytes()
    (model / "README.md").write_text("does not matter")
    assert extract("--model", "model", "--limit", "3").exit_code == 0
    (model / "model.safetensors").write_bytes(bytes(3_000_000) + b"secnd training")
    done = extract("--model", "model")
    assert done.exit_code == 2
    assert "begun with another model_files" in done.stderr
    assert Path("out.jsonl").read_bytes().startswith(before) and len(lines()) == 3


def test_output_that_is_not_ours_is_left_alone(extract: Extract) -> None:
    Path("out.jsonl").write_text("precious\n")
    done = extract()
    assert done.exit_code == 2
    assert "out.jsonl exists and is no output of sgl-like extract" in done.stderr
    assert "--overwrite" in done.stderr
    assert Path("out.jsonl").read_text() == "precious\n"
    assert not Path("out.jsonl.meta").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_damaged_meta(extract: Extract, content: str) -> None:
    extract("--limit", "1")
    Path("out.jsonl.meta").write_text(content)
    done = extract()
    assert done.exit_code == 2
    assert done.stderr.startswith("error: out.jsonl") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("jazz", "folk"),
            "out.jsonl:1: written for another input than the one now on line 1",
        ),
        (
            lambda text: text.split("\n", 1)[1],
            "out.jsonl:1: written for another input than the one now on line 1",
        ),
        (
            lambda text: "".join(text.splitlines(True)[:4]),
            "out.jsonl has more rows than the input, which has 4",
        ),
    ],
)
def test_input_must_stay_the_same(extract: Extract, change: Callable[[str], str], message: str) -> None:
    extract()
    Path("in.jsonl").write_text(change(Path("in.jsonl").read_text()))
    done = extract()
    assert done.exit_code == 2
    assert message in done.stderr


def test_foreign_line(extract: Extract) -> None:
    extract("--limit", "2")
    with open("out.jsonl", "a") as file:
        file.write("\x00\x00\n")
    done = extract()
    assert done.exit_code == 2
    assert "out.jsonl:3: not a line that sgl-like wrote there" in done.stderr


def test_two_runs_on_one_output(extract: Extract) -> None:
    fcntl = pytest.importorskip("fcntl")
    extract("--limit", "1")
    with open("out.jsonl") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = extract()
    assert done.exit_code == 2
    assert "another run is writing to it" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "none.jsonl"}, "none.jsonl: no such file"),
        ({"input": "."}, ".: is a folder, not a file"),
        ({"input": "bad.jsonl"}, "bad.jsonl:17: not valid JSON: Expecting value at column 10"),
        ({"input": "in.csv"}, "in.csv:1: no column 'text'; columns are 'id', 'body' (see --column)"),
        ({"input": "list.jsonl"}, "list.jsonl:1: not a JSON object but an array"),
        ({"schema": "none.json"}, "none.json: no such schema file"),
        (
            {"schema": "no_such_module:X"},
            "no_such_module:X: there is no module 'no_such_module' here or installed",
        ),
        (
            {"schema": "refers.json"},
            "refers.json: JSON Schema keyword '$ref' at '/properties/tags/items/$ref'",
        ),
        ({"out": "nowhere/out.jsonl"}, "nowhere/out.jsonl: cannot be written: there is no folder nowhere"),
        ({"out": "."}, "cannot be written: it is not a regular file"),
        ({"out": "in.jsonl"}, "in.jsonl: is the input; give another -o"),
        ({"model": "./no/model"}, "./no/model: no such model folder"),
        ({"model": "in.jsonl"}, "in.jsonl: is not a model folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    extract: Extract, options: dict[str, str], message: str
) -> None:
    Path("bad.jsonl").write_text('{"text": "a"}\n' * 16 + '{"text": ,}\n')
    Path("in.csv").write_text("id,body\n1,x\n")
    Path("list.jsonl").write_text("[1]\n")
    Path("refers.json").write_text(
        '{"type": "object", "properties": {"tags": {"type": "array", "items": {"$ref": "tag.json"}}}}'
    )
    before = set(Path().iterdir())
    model = options.pop("model", None)
    done = extract(*(["--model", model] if model else []), **options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    "options", [("--max-tokens", "0"), ("--dtype", "int3"), ("--limit", "-1"), ("--nonsense",)]
)
def test_bad_options(extract: Extract, options: tuple[str, ...]) -> None:
    assert extract(*options).exit_code == 2


def test_a_full_disk(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write takes half a line and the next none: what is on disk can be resumed."""
    from io import FileIO

    extract(out="whole.jsonl")
    real = FileIO.write
    room = [90]

    class Small(FileIO):
        def write(self, data: Any) -> int:
            if not room[0]:
                raise OSError(28, "No space left on device")
            size = min(room[0], len(data))
            room[0] -= size
            return real(self, bytes(data[:size]))

    monkeypatch.setattr("sgl_like.frontend.batches.journal.FileIO", Small)
    done = extract()
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "error: out.jsonl: cannot be written: No space left on device"
    assert Path("out.jsonl").stat().st_size == 90
    room[0] = 10**6
    assert extract().exit_code == 0
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_reads_lazily(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is written before the input is read to its end."""
    from sgl_like.cli.rows import Source

    Path("in.txt").write_text("".join(f"row {n}\n" for n in range(1000)))
    ahead = []
    real = Source.__iter__

    def counting(self: Source) -> Any:
        for number, row in enumerate(real(self)):
            written = Path("out.jsonl").read_bytes().count(b"\n") if Path("out.jsonl").exists() else number
            ahead.append(number - written)
            yield row

    monkeypatch.setattr(Source, "__iter__", counting)
    assert extract("--concurrency", "2", input="in.txt").exit_code == 0
    assert len(lines()) == 1000
    assert max(ahead) <= 2 * WINDOW


def test_version_and_help() -> None:
    assert CliRunner().invoke(main.app, ["--version"]).output.startswith("sgl-like ")
    shown = CliRunner().invoke(main.app, ["--help"])
    assert shown.exit_code == 0
    assert "extract" in shown.output and "demo" in shown.output
    assert CliRunner().invoke(main.app, ["extract", "--help"]).exit_code == 0


def test_demo_table(here: Path) -> None:
    done = CliRunner().invoke(main.app, ["demo"])
    assert done.exit_code == 0
    assert "utterance" in done.stdout
    assert "24 done" in done.stderr
