"""c#20: what a run did, as data: every token once, and where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import DataError
from sgl_like.frontend.view.format import Trace, read_trace
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("trace"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


def parts(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every part, those of forks in place."""

    def walk(branch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for part in branch["parts"]:
            if part["type"] == "fork":
                for child in part["branches"]:
                    yield from walk(child)
            else:
                yield part

    return walk(trace["run"])


def kinds(part: dict[str, Any]) -> list[str]:
    return [token["kind"] for token in part["tokens"]]


def check(trace: dict[str, Any]) -> None:
    """What holds for every trace: JSON and back, and tokens that join to their part's text."""
    assert Trace.from_json(json.loads(json.dumps(trace, allow_nan=False))).to_json() == trace
    for part in parts(trace):
        for each in (part, *part.get("others", [])):
            if each.get("tokens") is not None:
                texts = [
                    token["text"][: len(token["text"]) - token.get("cut", 0)] for token in each["tokens"]
                ]
                assert "".join(texts) == each["text"]


@sgl.function
def chat(s: Any) -> None:
    s += sgl.user("2+2=") + sgl.assistant(sgl.gen("a", max_tokens=30))
    s += "raw " + sgl.gen("b", stop="!")


def test_texts_roles_and_gens_in_order() -> None:
    state = chat.run(backend=FakeBackend(lambda call: "four" if "raw" not in call.prompt else "x!y"), seed=3)
    trace = state.trace()
    check(trace)
    found = [(p["type"], p["text"], p.get("role"), p.get("markup", False)) for p in parts(trace)]
    assert found == [
        ("text", "<|user|>", "user", True), ("text", "2+2=", "user", False), ("text", "<|end|>", "user", True),
        ("text", "<|assistant|>", "assistant", True), ("gen", "four", "assistant", False),
        ("text", "<|end|>", "assistant", True), ("text", "raw ", None, False), ("gen", "x", None, False),
    ]  # fmt: skip
    assert "".join(text for _, text, _, _ in found) == state.text()
    a, b = [part for part in parts(trace) if part["type"] == "gen"]
    assert a["name"] == "a" and a["params"]["max_new_tokens"] == 30 and a["finish"]["type"] == "stop"
    assert a["usage"]["completion_tokens"] == 5 and a["seconds"] >= 0
    assert [token["text"] for token in a["tokens"]] == ["f", "o", "u", "r", "<|end|>"]
    assert a["tokens"][-1]["cut"] == len("<|end|>")
    assert b["finish"] == {"type": "stop", "matched": "!"} and b["tokens"][-1] == {
        "text": "!", "kind": "sampled", "id": b["tokens"][-1]["id"], "cut": 1
    }  # fmt: skip
    assert trace["run"]["usage"]["completion_tokens"] == state.usage.completion_tokens
    assert (trace["program"], trace["model"]) == ("chat", "fake")


def test_cached_forced_and_sampled(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "once upon a time " + sgl.gen(
            "a", regex="(yes|no), [0-9]{3}", return_logprob=True, top_logprobs_num=2
        )

    runtime.flush_cache()
    first, again = (program.run(backend=runtime, temperature=0).trace() for _ in range(2))
    for trace in (first, again):
        check(trace)
        given, gen = parts(trace)
        forced = kinds(gen).count("forced")
        assert forced == gen["usage"]["forced_tokens"] > 0 and "sampled" in kinds(gen)
        assert {token["text"] for token in gen["tokens"] if token["kind"] == "forced"} >= {",", " "}
        assert kinds(given).count("cached") == gen["usage"]["cached_tokens"]
        for token in gen["tokens"]:
            assert math.isfinite(token["logprob"]) and len(token["top"]) == 2
            assert token["top"][0]["logprob"] >= token["logprob"] - 1e-6
    assert "cached" not in kinds(next(parts(first))) and "cached" in kinds(next(parts(again)))
    assert [t["text"] for t in list(parts(first))[1]["tokens"]] == [
        t["text"] for t in list(parts(again))[1]["tokens"]
    ]


def test_log_probabilities_of_the_prompt(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "abc" + sgl.gen("a", max_tokens=1, return_logprob=True, logprob_start_len=1)

    given, _ = parts(program.run(backend=runtime).trace())
    assert [token.get("logprob") is not None for token in given["tokens"]] == [False, False, True]


def test_forks_share_the_prefix_that_one_of_them_computed(runtime: sgl.Runtime) -> None:
    """c#10: the prefix is shown as computed once; what the second fork sends anew is what follows it."""

    @sgl.function
    def program(s: Any) -> None:
        s += "a long beginning "
        forks = s.fork(3)
        forks += lambda i: f"{i}: " + sgl.gen("x", max_tokens=3, ignore_eos=True)
        forks.join()
        s += sgl.gen("y", max_tokens=2, ignore_eos=True)

    runtime.flush_cache()
    state = program.run(backend=runtime, seed=1)
    trace = state.trace()
    check(trace)
    start, fork, last = trace["run"]["parts"]
    assert set(kinds(start)) == {"prompt"} and fork["join"] == "gather_variable"
    gens = [branch["parts"][1] for branch in fork["branches"]]
    assert [gen["usage"]["cached_tokens"] for gen in gens] == [0, 17, 17]
    assert [branch["parts"][0]["text"] for branch in fork["branches"]] == ["0: ", "1: ", "2: "]
    assert last["name"] == "y" and last["usage"]["cached_tokens"] == 16
    start = program.run(backend=runtime, seed=1).trace()["run"]["parts"][0]
    assert set(kinds(start)[:-1]) == {"cached"}  # the last one had to be looked at again to go on from it


def test_a_joined_fork_keeps_little() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x"
        for _ in range(3):
            forks = s.fork(2)
            forks += sgl.gen("a")
            forks.join("concate_and_append")

    state = program.run(backend=FakeBackend(lambda call: "yo"))
    trace = state.trace()
    check(trace)
    assert [part["text"] for part in trace["run"]["parts"] if part["type"] == "text"] == ["x", *["yo"] * 6]
    held = [child for step in state._interpreter.prompt.log.steps for child in getattr(step, "children", ())]
    assert len(held) == 6 and {type(child).__name__ for child in held} == {"Ended"}


def test_select_and_the_token_over_the_border() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "it is " + sgl.select("a", ["yes", "no"])

    backend = FakeBackend(logprob=lambda prefix, token: -0.5 if "yes" in token else -2.0)
    trace = program.run(backend=backend).trace()
    check(trace)
    given, taken = parts(trace)
    assert [(token["text"], token["kind"]) for token in given["tokens"]] == [
        ("it", "prompt"), (" is", "prompt"), (" ", "healed"),
    ]  # fmt: skip
    token = {
        "text": "yes",
        "kind": "healed",
        "id": given["tokens"][-1]["id"],
        "logprob": -0.5,
        "joined": True,
    }
    assert taken["tokens"] == [token]
    assert taken["name"] == "a" and [choice["text"] for choice in taken["choices"]] == ["yes", "no"]
    assert sum(choice["probability"] for choice in taken["choices"]) == pytest.approx(1)


def test_the_parts_are_the_whole_text_whatever_wrote_it() -> None:
    @sgl.function
    def inner(s: Any) -> None:
        s += " in " + sgl.gen("i")

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("be") + sgl.user("you") + sgl.assistant(sgl.gen("t") + sgl.select("u", ["1", "2"]))
        s += f"x {sgl.gen('a')} z"
        s.call(inner)
        with s.var_scope("v"):
            s += "scope " + sgl.separate_reasoning(sgl.gen("r"), model_type="deepseek-r1")
        s += " end"

    backend = FakeBackend(lambda call: "<think>hm</think>so" if call.prompt.endswith("scope ") else "yes")
    state = program.run(backend=backend)
    trace = state.trace()
    check(trace)
    shown = "".join(part["text"] for part in parts(trace))
    assert shown.replace("<think>hm</think>", "") == state.text()


def test_outputs_that_the_program_did_not_go_on_with() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", n=3)

    trace = program.run(backend=FakeBackend()).trace()
    check(trace)
    _, gen = parts(trace)
    assert [gen["text"], *(other["text"] for other in gen["others"])] == ["answer 1", "answer 2", "answer 3"]


def test_outputs_that_were_refused() -> None:
    def check_it(text: str) -> str:
        if text != "answer 3":
            raise ValueError(f"not {text}")
        return text

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", validate=check_it, max_retries=2)

    state = program.run(backend=FakeBackend())
    trace = state.trace()
    check(trace)
    _, gen = parts(trace)
    assert gen["text"] == "answer 3" and state.text() == "xanswer 3"
    assert [(each["text"], "not answer" in each["reason"]) for each in gen["refused"]] == [
        ("answer 1", True), ("answer 2", True),
    ]  # fmt: skip


def test_an_error_and_what_had_come_before_it() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.gen("b") + "never"

    backend = FakeBackend(lambda call: "fine" if len(backend.calls) == 1 else RuntimeError("boom"))
    state = program.run(backend=backend, stream=True)
    trace = state.trace()
    check(trace)
    *_, gen, broken = parts(trace)
    assert gen["text"] == "fine" and broken == {
        "type": "gen", "text": "half", "name": "b", "broken": True,
    }  # fmt: skip
    error = trace["run"]["error"]
    assert (
        "boom" in error["message"] and error["node"] == "gen('b')" and error["cause"] == "EngineError: boom"
    )


def test_a_run_that_goes_on() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.gen("b")

    backend = FakeBackend(lambda call: "done" if len(backend.calls) == 1 else "later")
    backend.hold(lambda call: call is not backend.calls[0])
    state = program.run(backend=backend, stream=True)
    assert state["a"] == "done"
    backend.wait_for_calls(1)
    trace = state.trace(wait=False)
    assert trace["run"]["running"] is True and [part["text"] for part in parts(trace)] == ["x", "done"]
    backend.release()
    assert "running" not in state.trace()["run"]


def test_a_state_from_a_checkpoint_is_text(tmp_path: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a")

    for _ in range(2):
        (state,) = program.run_batch([()], backend=FakeBackend(), checkpoint=tmp_path / "c.jsonl")
    trace = state.trace()
    check(trace)
    assert [(part["type"], part["text"]) for part in parts(trace)] == [("text", "xanswer 1")]


class Textual(FakeBackend):
    """A backend that does not know what its tokens stand for."""

    def token_pieces(self, ids: Any) -> None:
        return None


def test_a_backend_that_does_not_know_tokens() -> None:
    trace = chat.run(backend=Textual(lambda call: "four")).trace()
    check(trace)
    assert all("tokens" not in part for part in parts(trace))


def test_saved_and_read_again(tmp_path: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "\ud800\x1b[31m</script>\u202e" + sgl.gen("a")

    state = program.run(backend=FakeBackend())
    state.save_trace(tmp_path / "t.json")
    assert read_trace(tmp_path / "t.json").to_json() == state.trace()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format="x"), "not a trace"),
        (lambda t: t.update(version=2), "a trace of version 2; this program reads version 1"),
        (lambda t: t.pop("program"), "there is no 'program'"),
        (lambda t: t.update(more=1), "unknown 'more'"),
        (lambda t: t["run"]["parts"][0].update(text=5), r"run.parts\[0\].text: 5 does not belong here"),
        (lambda t: t["run"]["parts"][0]["tokens"][0].update(kind="odd"), r'tokens\[0\].kind: "odd" does not'),
        (lambda t: t["run"]["parts"].append({"type": "fork", "branches": {}}), r"parts\[\d\].branches: {} does not"),
        (lambda t: t["run"]["parts"].append(3), "an object is needed, not 3"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_named(tmp_path: Path, change: Any, message: str) -> None:
    trace = chat.run(backend=FakeBackend()).trace()
    change(trace)
    (tmp_path / "t.json").write_text(json.dumps(trace))
    with pytest.raises(DataError, match=message):
        read_trace(tmp_path / "t.json")


def test_files_that_hold_no_trace(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.json: cannot be read"):
        read_trace(tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"format"')
    with pytest.raises(DataError, match=r"t\.json: not JSON"):
        read_trace(tmp_path / "t.json")
