"""The README keeps its word: its commands are what CI runs, its program is the example, and the examples run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "sgl_like" / "assets" / "demo"
README = (ROOT / "README.md").read_text("utf-8")
CI = (ROOT / ".ci" / "run").read_text("utf-8")
SCHEMA = json.loads((DEMO / "snips.schema.json").read_text("utf-8"))
UTTERANCES = (DEMO / "utterances.txt").read_text("utf-8").splitlines()


def section(title: str) -> str:
    """Text of a README section."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README has no section {title!r}"
    return found[1]


def commands(title: str) -> list[str]:
    """Lines of the shell blocks of a README section."""
    blocks = re.findall(r"^```sh\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_commands_set_up_one_runs_one_tests() -> None:
    assert len(commands("Set up")) == 2
    assert len(commands("Run")) == 1
    assert len(commands("Test")) == 1


def test_ci_runs_the_commands_of_the_readme() -> None:
    steps = re.findall(r"^step (.*)$", CI, re.MULTILINE)
    readme = [*commands("Set up"), *commands("Run"), *commands("Test")]
    assert steps[: len(readme)] == readme
    assert [step for step in steps if step not in readme] == [
        ".venv/bin/ruff check .",
        ".venv/bin/ruff format --check .",
        ".venv/bin/mypy",
    ]


def test_ci_is_executable() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_readme_shows_the_example_as_it_is() -> None:
    shown = re.search(r"<!-- examples/extract.py -->\n```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown
    assert shown[1] == (ROOT / "examples" / "extract.py").read_text("utf-8")


def test_readme_program_prints_what_it_says() -> None:
    program = re.search(r"```python\n(.*?)^```", section("Programs"), re.MULTILINE | re.DOTALL)
    assert program
    expected = re.search(r"print\(.*\)  # (.*)", program[1])
    assert expected
    printed, *shown = run("-c", program[1]).splitlines()
    assert printed == expected[1]
    assert any(line.lstrip().startswith("forced (booking)") for line in shown)


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "examples").glob("**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text("utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_schema_has_seven_intents_and_39_slots() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    branches = [branch["properties"] for branch in SCHEMA["anyOf"]]
    assert len({properties["intent"]["const"] for properties in branches}) == 7
    assert len({name for properties in branches for name in properties} - {"intent"}) == 39


def test_example() -> None:
    lines = run("examples/extract.py").splitlines()
    assert lines[::2] == UTTERANCES
    for line in lines[1::2]:
        jsonschema.validate(json.loads(line), SCHEMA)


def test_demo() -> None:
    assert "AddToPlaylist" in run("-m", "sgl_like", "demo")


def test_snips_eval(tmp_path: Path) -> None:
    rows = [
        {"text": "play some jazz", "intent": "PlayMusic", "slots": {"genre": "jazz"}},
        {
            "text": "find the movie Blue Hill",
            "intent": "SearchCreativeWork",
            "slots": {"object_name": "Blue Hill"},
        },
        {"text": "rate this book 3", "intent": "RateBook", "slots": {}},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = json.loads(
        run("examples/bench/snips_eval.py", "--data", str(data), "--limit", "2").splitlines()[-1]
    )
    assert list(last) == ["rows", "intent", "slot_f1", "exact", "valid", "rows_per_s"]
    assert last["rows"] == 2
    assert last["valid"] == 1.0
    assert all(0 <= last[name] <= 1 for name in ("intent", "slot_f1", "exact"))


def test_programs_bench() -> None:
    """With the embedded model and small sizes."""
    chosen = ["--programs", "few-shot select", "JSON extraction", "--features", "all on", "no jump-forward"]
    printed = run("examples/bench/programs_bench.py", "--small", "--repeats", "1", *chosen).splitlines()
    lines = [json.loads(line) for line in printed if line.startswith("{")]
    assert [(line["program"], line["forced_tokens"] > 0) for line in lines] == [
        ("few-shot select", False),
        ("few-shot select", False),
        ("JSON extraction", True),
        ("JSON extraction", False),
    ]
    assert all(line["cached_tokens"] > 0 for line in lines)


def test_engine_overhead() -> None:
    """Every part of a step is timed, and says so."""
    printed = run("examples/bench/engine_overhead.py", "--rows", "2", "--context", "16", "--steps", "4")
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    times = {name.strip("| "): float(ms) for name, ms, *_ in rows[1:]}
    assert len(times) == 12
    assert all(ms > 0 for name, ms in times.items() if name not in ("cache: publish, settle", "masks"))


def test_quantization_eval(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(
        json.dumps({"text": "play some jazz", "intent": "PlayMusic", "slots": {"genre": "jazz"}}) + "\n"
    )
    printed = run("examples/bench/quantization_eval.py", "--data", str(data), "--weights", "float32", "int8")
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| weights", "| float32", "| int8"]
    for row in rows[1:]:
        assert float(row[2]) < 2  # perplexity: the prompt is the one that the model was trained with
        assert float(row[4]) == 1


@pytest.mark.parametrize("name", ["extract.py", "bench/snips_eval.py", "bench/programs.py"])
def test_examples_import_only_the_public_package(name: str) -> None:
    text = (ROOT / "examples" / name).read_text("utf-8")
    assert not re.search(r"(from|import) sgl_like\.", text)


def test_search_wins() -> None:
    counts = dict(
        re.findall(r"^(.*?) +(\d+) of 15 ", run("examples/search.py", "--puzzles", "15"), re.MULTILINE)
    )
    assert list(counts) == ["greedy", "self-consistency, 8 samples", "tree of thought"]
    assert int(counts["tree of thought"]) >= 2 * int(counts["greedy"]) > 0


def test_quickstart() -> None:
    out = run("examples/quickstart.py")
    assert "play some jazz: PlayMusic" in out and out.endswith('"playlist":"Road Trip"}\n')


def test_classify() -> None:
    *rows, cached = run("examples/classify.py").splitlines()
    assert [row.split("%  ")[1] for row in rows] == UTTERANCES
    found, all_tokens = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", cached))
    assert 0.5 * all_tokens < found < all_tokens


def test_batch_goes_on_with_the_rows_that_are_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    *first, count = run("examples/batch.py", path, "--rows", "7").splitlines()
    assert count == "7 rows were run, 0 were in the checkpoint"
    *second, count = run("examples/batch.py", path).splitlines()
    assert count == f"{len(UTTERANCES) - 7} rows were run, 7 were in the checkpoint"
    assert set(first) < set(second) and len(set(second)) == len(UTTERANCES)
    assert {int(line.split(":")[0].removeprefix("row ")) for line in second} == set(range(len(UTTERANCES)))
    assert json.loads(second[0].split(": ", 1)[1])["intent"]


def test_chat_finds_earlier_turns_in_the_cache() -> None:
    out = run("examples/chat.py", "play some jazz", "will it rain in Oslo")
    counts = [(int(a), int(b)) for a, b in re.findall(r"\((\d+) of (\d+) prompt", out)]
    assert counts[0][0] == 0 and counts[1][0] >= counts[0][1]
    assert json.loads(out.splitlines()[1])["intent"] == "PlayMusic"


def test_skeleton() -> None:
    first, rest = run("examples/skeleton.py").split("\n", 1)
    kinds = first.removeprefix("skeleton: ").split(", ")
    assert kinds == ["BookRestaurant", "PlayMusic", "GetWeather", "AddToPlaylist"]
    assert [each["intent"] for each in json.loads(rest)] == kinds


def test_openai_client() -> None:
    parsed, *answer = run("examples/openai_client.py").splitlines()
    assert parsed == "Song(intent='PlayMusic', genre='jazz')"
    assert re.fullmatch(r"(.* = \d+ \(left: .*\)\n?)+", "\n".join(answer))


def test_judge() -> None:
    assert "the judge's favourite in" in run("examples/judge.py", "--puzzles", "4")


def test_streaming() -> None:
    first, whole, *both = run("examples/streaming.py").splitlines()
    assert first.count("|") > 2 and first.replace("|", "") in whole
    assert both[0].endswith(first.replace("|", "")) and both[1].startswith("second came in")


def test_documents() -> None:
    lines = run("examples/documents.py").splitlines()
    answer = json.loads(lines[0].removeprefix("everything: "))
    assert list(answer) == ["intent", "party_size_number", "restaurant_type", "city", "timeRange"]
    cached, prompt = map(int, re.findall(r"\d+", lines[3]))
    assert cached == prompt


def test_react_only_uses_the_numbers_that_are_there() -> None:
    out = run("examples/react.py", "--puzzles", "6")
    counts = dict(re.findall(r"^(.*?) +(\d+) of 6$", out, re.MULTILINE))
    assert list(counts) == ["alone", "with a calculator"]
    sums = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+) \(left", out)
    assert sums and all(
        {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c)
        for a, sign, b, c in sums
    )


def test_tools() -> None:
    call, answer = run("examples/tools.py").splitlines()[:2]
    assert re.fullmatch(
        r"switch\(\{'lamp': '(kitchen|hall|garden)', 'on': (True|False)\}\) -> the \1 lamp is (on|off)", call
    )
    assert answer.startswith("answer:")


def test_coroutines() -> None:
    lines = run("examples/coroutines.py").splitlines()
    assert [json.loads(line)["intent"] for line in lines[1:4]] == [
        "PlayMusic",
        "GetWeather",
        "BookRestaurant",
    ]
    assert lines[4].replace("|", "") == lines[3]
