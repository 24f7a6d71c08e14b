"""c#11: programs run again from a recording, with no model, and what is not in it is named."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import DataError, EngineClosedError, ReplayError
from sgl_like.frontend.backend.base import Backend
from tests.frontend.view.test_trace import parts
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("record"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


@sgl.function
def everything(s: Any, start: str = "once ") -> None:
    s += start + sgl.gen("a", max_tokens=6, return_logprob=True, top_logprobs_num=2)
    s += " is it " + sgl.select("b", ["good", "bad"])
    forks = s.fork(3)
    forks += lambda i: f" {i}: " + sgl.gen("c", max_tokens=8, regex="(yes|no), [0-9]{2}")
    forks.join()
    s += sgl.gen("d", n=2, max_tokens=3)


def seen(state: sgl.ProgramState) -> tuple[Any, ...]:
    return state.text(), [state[name] for name in "abcd"], state.usage, untimed(state)


def untimed(state: sgl.ProgramState) -> dict[str, Any]:
    trace = state.trace()
    for part in parts(trace):
        part.pop("seconds", None)
    return trace


@pytest.mark.parametrize("streamed", [(False, False), (True, True), (True, False), (False, True)])
def test_a_run_again_is_the_same_to_its_trace(
    runtime: sgl.Runtime, path: Path, streamed: tuple[bool, bool]
) -> None:
    with sgl.record(path, runtime):
        recorded = seen(everything.run(seed=5, stream=streamed[0]))
    with sgl.replay(path) as backend:
        again = everything.run(seed=5, stream=streamed[1])
        assert seen(again) == recorded
        assert "".join(again.text_iter("a")) == again["a"] and backend.model_name == runtime.model_name


def test_backends_that_are_given_by_name(runtime: sgl.Runtime, path: Path) -> None:
    recorder = sgl.record(path, runtime)
    texts = [everything.run(backend=recorder).text() for _ in range(2)]
    backend = sgl.replay(path)  # sampled without a seed: equal calls have other answers, in order
    assert [everything.run(backend=backend).text() for _ in range(2)] == texts
    assert texts[0] != texts[1]


def test_many_at_once(path: Path) -> None:
    @sgl.function
    def program(s: Any, i: int) -> None:
        s += f"row {i % 5} " + sgl.gen("a") + sgl.gen("b")

    rows = [(i,) for i in range(60)]
    with sgl.record(path, FakeBackend(lambda call: f"<{call.prompt}>", seed=3)):
        texts = [state.text() for state in program.run_batch(rows)]
    with sgl.replay(path):
        assert [state.text() for state in program.run_batch(rows)] == texts


async def gathered(backend: Backend) -> list[str]:
    @sgl.function
    async def program(s: Any, i: int) -> None:
        s += f"{i}: " + sgl.gen("a")
        s += f"(was {await s.aget('a')})" + sgl.gen("b")

    states = await asyncio.gather(*(program.arun(i, backend=backend) for i in range(5)))
    return [state.text() for state in states]


def test_async_programs(path: Path) -> None:
    texts = asyncio.run(gathered(sgl.record(path, FakeBackend())))
    assert asyncio.run(gathered(sgl.replay(path))) == texts


def test_outputs_that_are_asked_for_again(path: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", validate=lambda text: text == "answer 3", max_retries=3)

    with sgl.record(path, FakeBackend()):
        assert program.run()["a"] == "answer 3"
    with sgl.replay(path):
        assert program.run()["a"] == "answer 3"


def test_a_backend_that_takes_a_choice_itself(path: Path) -> None:
    class Chooser(FakeBackend):
        ids_are_tokens = False  # type: ignore[assignment]

        def scores(self, prompt_ids: Any) -> bool:
            return False

        def opening(self, prompt_ids: Any) -> int | None:
            return 1

        def score(self, prompt_ids: Any, choices: Any, sink: Any) -> Any:
            return self.submit(prompt_ids, {}, sink, False)

    @sgl.function
    def program(s: Any) -> None:
        s += "is it " + sgl.select("a", ["good", "bad"])

    inner = Chooser(lambda call: "bad")
    with sgl.record(path, inner) as recorder:
        assert program.run()["a"] == "bad" and recorder.opening([3]) == 1
    with sgl.replay(path) as replayer:
        assert program.run()["a"] == "bad" and replayer.opening([3]) == 1
        assert not replayer.ids_are_tokens and replayer.opening([4]) is None


def test_errors_are_recorded(path: Path) -> None:
    @sgl.function
    def program(s: Any, text: str) -> None:
        s += text + sgl.gen("a")

    def respond(call: Any) -> Any:
        answers = {"refused": sgl.PromptTooLongError("too long"), "failed": sgl.EngineError("boom")}
        return answers.get(call.prompt, "fine")

    def errors(backend: Backend) -> list[tuple[str, type | None]]:
        states = [program.run(text, backend=backend, stream=stream) for text, stream in rows]
        found = [(str(state.error()), state.error()) for state in states]
        return [(text, type(error.__cause__) if error else None) for text, error in found]

    rows = [("refused", False), ("failed", True), ("fine", True)]
    recorded = errors(sgl.record(path, FakeBackend(respond)))
    assert [kind for _, kind in recorded] == [sgl.PromptTooLongError, sgl.EngineError, None]
    assert errors(sgl.replay(path)) == recorded


def test_an_error_with_arguments_of_its_own(runtime: sgl.Runtime, path: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", json_schema={"type": "string", "format": 5})

    with sgl.record(path, runtime):
        first = program.run().error()
    with sgl.replay(path):
        again = program.run().error()
    assert first is not None and again is not None
    assert isinstance(again.__cause__, sgl.UnsupportedSchemaError) and str(again) == str(first)
    assert vars(again.__cause__) == vars(first.__cause__)


def test_a_message_that_the_template_refuses(path: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("x")

    class Roleless(FakeBackend):
        def role_affixes(self, messages: Any, role: str) -> tuple[str, str]:
            raise sgl.ChatTemplateError("no roles here")

    with sgl.record(path, Roleless()):
        assert "no roles here" in str(program.run().error())
    with sgl.replay(path):
        assert "no roles here" in str(program.run().error())


def question(text: str = "the capital of France is", **params: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += text
        s += sgl.gen("a", **params)

    return program


def error_of(program: Any, path: Path, **options: Any) -> str:
    error = program.run(backend=sgl.replay(path), **options).error()
    assert error is not None and isinstance(error.__cause__, ReplayError)
    return str(error)


def test_what_is_not_recorded_is_compared_with_the_nearest(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question(regex="[a-z]+").run(temperature=0)
        question("something else").run(temperature=0)
    message = error_of(question(regex="[a-z]{3}"), path, temperature=0.5)
    assert "no such call was recorded; the nearest differs in" in message
    assert "regex: '[a-z]+' when recorded, '[a-z]{3}' now" in message
    assert "temperature: 0 when recorded, 0.5 now" in message and "the prompt" not in message
    message = error_of(question("the capital of Spain is"), path, temperature=0)
    assert (
        "'the capital of France is' when recorded, 'the capital of Spain is' now (from character 15 on)"
        in message
    )


def test_a_prompt_that_parts_later(path: Path) -> None:
    """Texts that are known, but not in this order: the difference is in the ids."""

    @sgl.function
    def program(s: Any, words: str) -> None:
        for word in words:
            s += word + sgl.gen(word, max_tokens=2)

    with sgl.record(path, FakeBackend(lambda call: "z")):
        program.run("abc")
    message = error_of(program.bind(words="acb"), path)
    assert (
        "the nearest differs in the prompt, 'azb' when recorded, 'azc' now (from character 2 on)" in message
    )


def test_one_call_more(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question().run()
    backend = sgl.replay(path)
    assert question().run(backend=backend)["a"] == "answer 1"
    error = question().run(backend=backend).error()
    assert "this call was recorded 1 times, and comes once more; its prompt ends with" in str(error)


def test_calls_that_were_given_up_are_not_recorded(path: Path) -> None:
    inner = FakeBackend()
    inner.hold()
    with sgl.record(path, inner):
        state = question().run(stream=True)
        inner.wait_for_calls(1)
        state.cancel()
        inner.release()
        state.sync()
        assert question("x").run()["a"] == "answer 2"
    assert "no such call was recorded" in error_of(question(), path)


def test_what_has_ended_can_be_replayed_before_the_recording_is_closed(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question().run()
        assert question().run(backend=sgl.replay(path))["a"] == "answer 1"


def test_a_torn_last_line_is_left_out(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question("one").run()
        question("two").run()
    data = path.read_bytes()
    path.write_bytes(data[: data.rstrip(b"\n").rfind(b"\n") + 10])
    assert question("one").run(backend=sgl.replay(path))["a"] == "answer 1"
    assert "recorded" in error_of(question("two"), path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: an object is needed, not list"),
        ('{"type": "odd"}', "line 2: not of a recording: ValueError.*odd"),
        ('{"type": "call", "key": "", "number": 0, "events": []}', "line 2: .*without an end"),
        ('{"type": "encode", "key": ""}', "line 2: .*ids"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: str, message: str) -> None:
    with sgl.record(path, FakeBackend()):
        question().run()
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, line, "\n", *rest]))
    with pytest.raises(DataError, match=message):
        sgl.replay(path)


def test_files_that_are_no_recording(path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        sgl.replay(path)
    path.write_text('{"format": "x"}\n')
    with pytest.raises(DataError, match="not a recording"):
        sgl.replay(path)


def test_the_default_backend_comes_back(backend: FakeBackend, path: Path) -> None:
    with sgl.record(path) as recorder:
        assert question().run()["a"] == "answer 1"
    assert recorder.inner is backend and question().run()["a"] == "answer 2"
    with sgl.replay(path) as replayer:
        assert question().run()["a"] == "answer 1"
    assert question().run()["a"] == "answer 3"
    for closed in (recorder, replayer):
        error = question().run(backend=closed).error()
        assert error is not None and isinstance(error.__cause__, EngineClosedError)


def test_nothing_recorded_is_a_warning(path: Path) -> None:
    with pytest.warns(UserWarning, match="nothing was recorded"), sgl.record(path, FakeBackend()):
        question().run(backend=FakeBackend())


def test_lines_say_what_was_asked(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question(temperature=0.25).run(seed=3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (call,) = [line for line in lines if line.get("type") == "call"]
    ids, asked = json.loads(call["key"])
    assert asked["temperature"] == 0.25 and "seed" in asked and len(ids) == 5
    assert call["events"][-1]["finish"]["type"] == "stop"


def test_choices_that_were_drawn_are_drawn_again(path: Path) -> None:
    @sgl.function
    def draws(s: Any) -> None:
        for i in range(30):
            s += f"{i} " + sgl.select(f"c{i}", ["a", "b"], temperature=1.0)

    with sgl.record(path, FakeBackend()):
        first = draws().text()
    with sgl.replay(path):
        assert draws().text() == first
    assert draws(backend=FakeBackend()).text() != first, "there is no seed"


def test_a_replay_loads_no_model(path: Path) -> None:
    with sgl.record(path, FakeBackend()):
        question().run(temperature=0)
    code = (
        "import sys, sgl_like as sgl\n"
        "@sgl.function\n"
        "def program(s):\n"
        "    s += 'the capital of France is'\n"
        "    s += sgl.gen('a')\n"
        f"with sgl.replay({str(path)!r}):\n"
        "    state = program.run(temperature=0)\n"
        "    print(state['a'])\n"
        "    state.trace()\n"
        "print([name for name in ('torch', 'numba', 'tokenizers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["answer 1", "[]"]
