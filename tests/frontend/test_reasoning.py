"""What a reasoning model thinks is told from what it answers, whole and in a stream.

Marks: b#19.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgl_like as sgl
from sgl_like.frontend.expr import ExprList
from sgl_like.frontend.outputs.separation import SeparateReasoning
from sgl_like.runtime.reasoning import REASONING_MODELS, make_splitter
from tests.support.frontend_fake_backend import Call, FakeBackend

THOUGHT = "<think>\nLet me see.\n</think>\n\nIt is <b>4</b>. "


def _split(pieces: list[str], model_type: str | None = None, prompt_end: str = "") -> tuple[str, str]:
    splitter = make_splitter(model_type, prompt_end)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.feed("", final=True)
    return tuple("".join(p.text for p in parts if p.is_reasoning is kind) for kind in (True, False))  # type: ignore


@pytest.mark.parametrize(
    ("model_type", "prompt_end", "output", "reasoning", "answer"),
    [
        ("qwen3", "", THOUGHT, "Let me see.", "It is <b>4</b>. "),
        ("qwen3", "", " no thoughts </think>", "", " no thoughts </think>"),
        ("qwen3", "", "<thin", "", "<thin"),
        ("qwen3", "", "", "", ""),
        ("qwen3", "", "<think>cut off </thi", "cut off </thi", ""),
        ("qwen3", "", "<think></think>4", "", "4"),
        ("qwen3", "<assistant><think>\n", "I see</think>4", "I see", "4"),
        ("qwen3", "", "<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
        ("deepseek-r1", "", "I see.\n</think>\n4", "I see.", "4"),
        ("deepseek-r1", "", "\n<think>I see.</think>4", "I see.", "4"),
        ("deepseek-r1", "", "never ends ", "never ends", ""),
        ("kimi", "", "◁think▷a◁/think▷b", "a", "b"),
        ("kimi", "", THOUGHT, "", THOUGHT),
        ("magistral", "", "[THINK]a[/THINK]b", "a", "b"),
        ("seed-oss", "", "<seed:think>a</seed:think>b", "a", "b"),
        (None, "", THOUGHT, "Let me see.", "It is <b>4</b>. "),
        (None, "", "◁think▷a</think>◁/think▷b", "a</think>", "b"),
        (None, "[THINK]", "a[/THINK]b", "a", "b"),
        (
            "gpt-oss", "",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "a", "b",
        ),
        ("gpt-oss", "", "<|channel|>final<|message|>b < c", "", "b < c"),
        (
            "gpt-oss", "",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=f <|constrain|>json"
            "<|message|>{}<|call|>", "a\n{}", "",
        ),
        ("gpt-oss", "", "plain", "", "plain"),
    ],
)  # fmt: skip
def test_families(model_type: str, prompt_end: str, output: str, reasoning: str, answer: str) -> None:
    assert _split([output], model_type, prompt_end) == (reasoning, answer)
    assert _split(list(output), model_type, prompt_end) == (reasoning, answer), "one character at a time"


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "a", " ", "\n", "4"]), max_size=12
)


@given(PIECES, st.sampled_from(["qwen3", "deepseek-r1", None]), st.sampled_from(["", "<think>\n"]))
def test_how_an_output_is_cut_up_makes_no_difference(
    pieces: list[str], model_type: str | None, prompt_end: str
) -> None:
    """Against a naive reader of the whole text."""
    text = "".join(pieces)
    begun = re.match(r"\s*<think>", text)
    if begun or model_type == "deepseek-r1" or prompt_end:
        body = text[begun.end() :] if begun else text
        thought, closed, rest = body.partition("</think>")
        expected = thought.strip(), rest.lstrip() if closed else ""
    else:
        expected = "", text
    assert _split(pieces, model_type, prompt_end) == expected
    assert _split(list(text), model_type, prompt_end) == expected


@pytest.fixture
def thinking(backend: FakeBackend) -> FakeBackend:
    def respond(call: Call) -> str:
        return f"<think>\nthought {len(backend.calls)}\n</think>\n\nanswer {len(backend.calls)}"

    backend._respond = respond
    return backend


@sgl.function
def two_turns(s: Any) -> None:
    s += "Q: " + sgl.separate_reasoning(sgl.gen("raw"), "qwen3") + "\n"
    s += sgl.user("hi")
    s += sgl.separate_reasoning(sgl.assistant("I say: " + sgl.gen("a") + " and " + sgl.gen("b")), "qwen3")
    s += sgl.user("go on") + sgl.assistant(sgl.gen("last"))


@pytest.mark.parametrize("stream", [False, True])
def test_b19_inside_and_outside_of_roles_with_several_gens_in_streams(
    thinking: FakeBackend, stream: bool
) -> None:
    state = two_turns.run(stream=stream)
    text = "".join(state.text_iter())
    for number, name in enumerate(("raw", "a", "b"), 1):
        assert "".join(state.text_iter(f"{name}_reasoning_content")) == f"thought {number}"
        assert state[f"{name}_reasoning_content"] == f"thought {number}"
        assert "".join(state.text_iter(name)) == state[name] == f"answer {number}"
    spoken = "<|assistant|>I say: answer 2 and answer 3<|end|>"
    history = f"Q: answer 1\n<|user|>hi<|end|>{spoken}<|user|>go on<|end|><|assistant|>"
    assert text == state.text() == history + state["last"] + "<|end|>", "nothing is lost and nothing twice"
    assert thinking.calls[-1].prompt == history
    assert state.messages()[1]["content"] == "I say: answer 2 and answer 3"
    assert state.get_meta_info("a")["completion_tokens"] == len(thinking.calls[1].sampled)  # type: ignore[index]


def test_several_outputs(thinking: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "Q: " + sgl.separate_reasoning(sgl.gen("a", n=3))

    state = program()
    assert sorted(state["a"]) == ["answer 1", "answer 2", "answer 3"]
    assert sorted(state["a_reasoning_content"]) == ["thought 1", "thought 2", "thought 3"]
    assert state.text() == "Q: " + state["a"][0]


def test_reasoning_that_the_template_has_opened_is_closed(backend: FakeBackend) -> None:
    class Opening(FakeBackend):
        def role_affixes(self, messages: Any, role: str) -> tuple[str, str]:
            prefix, suffix = super().role_affixes(messages, role)
            return prefix + ("<think>\n" if role == "assistant" else ""), suffix

    opening = Opening(lambda call: "hm</think>\n\nyes")

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("?") + sgl.assistant(sgl.separate_reasoning(sgl.gen("a")))
        s += sgl.user("!") + sgl.assistant(sgl.gen("b", stop="h"))

    for stream in (False, True):
        state = program.run(backend=opening, stream=stream)
        assert (state["a"], state["a_reasoning_content"]) == ("yes", "hm")
        assert state.messages()[1]["content"] == "yes"
        assert opening.calls[-1].prompt == (
            "<|user|>?<|end|><|assistant|><think>\n</think>\n\nyes<|end|><|user|>!<|end|><|assistant|><think>\n"
        )
        assert "".join(state.text_iter()) == state.text()


def test_b19_reading_the_reasoning_never_hangs(backend: FakeBackend) -> None:
    backend._respond = lambda call: ValueError("broken")
    state = two_turns.stream()
    with pytest.raises(sgl.ProgramError, match="broken"):
        state["a_reasoning_content"]


def test_special_tokens_are_shown_where_they_are_the_markup(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, model_type: str) -> None:
        s += "x" + sgl.separate_reasoning(sgl.gen("a"), model_type)

    program("gpt-oss")
    program("qwen3")
    assert backend.calls[0].params["skip_special_tokens"] is False
    assert "skip_special_tokens" not in backend.calls[1].params


def test_mistakes(backend: FakeBackend) -> None:
    with pytest.raises(sgl.SamplingParamsError, match="with a name"):
        sgl.separate_reasoning(sgl.gen(), "qwen3")
    with pytest.raises(ValueError, match="no gen"):
        sgl.separate_reasoning("text", "qwen3")
    with pytest.raises(ValueError, match="no gen"):
        sgl.separate_reasoning()

    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.separate_reasoning(sgl.gen("a"), "qwen33")

    with pytest.raises(sgl.ProgramError, match="unknown model_type 'qwen33'; known are deepseek-r1"):
        program()["a"]


def test_what_sglangs_tests_look_at() -> None:
    gen = sgl.gen("test")
    expr = sgl.separate_reasoning(gen, model_type="deepseek-r1")
    assert isinstance(expr, ExprList) and len(expr.expr_list) == 2 and expr.expr_list[0] == gen
    marker = expr.expr_list[1]
    assert isinstance(marker, SeparateReasoning)
    assert (marker.model_type, marker.name) == ("deepseek-r1", "test_reasoning_content")
    assert repr(marker) == "SeparateReasoning(model_type=deepseek-r1, name=test_reasoning_content)"
    assert marker.process_name_for_reasoning("other") == "other_reasoning_content"
    assert sgl.separate_reasoning(gen, model_type="invalid-model").expr_list[1].model_type == "invalid-model"  # type: ignore
    assert {"deepseek-r1", "qwen3", "kimi", "gpt-oss"} <= set(REASONING_MODELS)


def test_pieces_with_meta_data(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.gen("b")

    async def read(state: Any) -> list[tuple[str, dict[str, Any]]]:
        return [piece async for piece in state.text_async_iter("a", return_meta_data=True)]

    state = program.stream()
    pieces = asyncio.run(read(state))
    assert "".join(text for text, _ in pieces) == state["a"]
    assert [meta["finish_reason"] is None for _, meta in pieces] == [True] * (len(pieces) - 1) + [False]
    final = state.get_meta_info("a")
    assert final is not None and {key: final[key] for key in pieces[-1][1]} == pieces[-1][1]
    (whole,) = asyncio.run(read(program.run()))
    assert whole[0] == "answer 3" and whole[1]["finish_reason"]["type"] == "stop"
    with pytest.raises(ValueError, match="needs the name"):
        state.text_async_iter(None, return_meta_data=True)


@pytest.mark.parametrize("prompt_end", ["", "<think>"])
def test_long_blanks_are_not_held_back(prompt_end: str) -> None:
    splitter = make_splitter(None, prompt_end)
    said = splitter.feed("x" if prompt_end else "")
    for _ in range(1000):
        said += splitter.feed("\n" * 10)
        assert len(splitter._held) <= 300
    said += splitter.feed("y", final=True)
    text = "".join(part.text for part in said)
    assert text.endswith("y")
    assert len(text) > 9_000
