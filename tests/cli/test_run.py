"""`sgl-like run` on the embedded model, and its conversation on a backend without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sgl_like.cli.main import app
from sgl_like.cli.run import Conversation, chat
from sgl_like.errors import EngineError
from tests.support.frontend_fake_backend import Call, FakeBackend

SYSTEM = ["--system", "Turn the utterance into JSON.", "--temperature", "0"]


def run(*options: str, input: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["run", *options], input=input)
    return done.exit_code, done.stdout, done.stderr


def test_a_prompt_is_answered() -> None:
    code, out, err = run("play jazz on Spotify", *SYSTEM)
    assert (code, err) == (0, "")
    assert json.loads(out) == {"intent": "PlayMusic", "genre": "jazz", "service": "Spotify"}


def test_standard_input_and_a_schema(tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text(
        '{"type": "object", "properties": {"intent": {"const": "GetWeather"}}, "required": ["intent"]}'
    )
    code, out, _ = run(*SYSTEM, "--schema", str(schema), input="play jazz on Spotify\n")
    assert code == 0
    assert json.loads(out)["intent"] == "GetWeather"


def test_a_cut_answer_is_said_to_be_cut() -> None:
    code, _, err = run("play jazz on Spotify", *SYSTEM, "--max-tokens", "2")
    assert code == 0
    assert "cut at 2 tokens" in err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["x", "--regex", "a", "--schema", "s.json"], "cannot be given together"),
        (["x", "--model", "./nowhere"], "no such model folder"),
        (["x", "--regex", "("], "regex"),
        (["x", "--quantization", "int3"], "int3"),
        ([], "the prompt is empty"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options: list[str], what: str) -> None:
    code, out, err = run(*options, input="")
    assert (code, out) == (2, "")
    assert what in " ".join(err.split())


def conversation(backend: FakeBackend, questions: list[str]) -> tuple[str, list[str], Conversation]:
    said: list[str] = []
    notes: list[str] = []
    waiting = iter(questions)

    def read() -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    talk = Conversation(backend, {"max_tokens": 8}, system="Be brief.")
    chat(talk, read, said.append, notes.append)
    return "".join(said), notes, talk


def test_a_conversation_has_all_that_was_said_before() -> None:
    backend = FakeBackend()
    said, notes, talk = conversation(backend, ["one", "", "two"])
    assert said == "answer 1\nanswer 2\n\n"
    assert (notes, talk.turns) == ([], [("one", "answer 1"), ("two", "answer 2")])
    assert "one" in backend.calls[1].prompt and "answer 1" in backend.calls[1].prompt


def test_an_error_is_noted_and_that_turn_forgotten() -> None:
    answers: Iterator[str | Exception] = iter([EngineError("out of luck"), "fine"])

    def respond(call: Call) -> str | Exception:
        return next(answers)

    said, notes, talk = conversation(FakeBackend(respond), ["one", "two"])
    assert "out of luck" in notes[0]
    assert talk.turns == [("two", "fine")]
    assert said.endswith("fine\n\n")
