"""Answers told apart, however their text is cut into pieces."""

from __future__ import annotations

import json
import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.reasoning import make_splitter
from sgl_like.runtime.server.chat.forms import PLAIN, CallForm
from sgl_like.runtime.server.chat.reading import AnswerReader, Said

BARE = CallForm('{"name": "', '{"name": "', '", "parameters": ', "}")
NAMES = ("f", "f2", "get-it")
ARGUMENTS = [
    {}, {"a": 1}, {"a": "}"}, {"a": '"}]\\'}, {"a": {"b": [{"c": "\\"}]}}, {"a": "</tool_call>"}, {"서울": "\n"},
]  # fmt: skip


def read(reader: AnswerReader, text: str, seed: int) -> list[Said]:
    rng, said = random.Random(seed), []
    while text:
        size = rng.choice((1, 2, 7, 30, 300))
        said += reader.feed(text[:size])
        text = text[size:]
    said += reader.feed("", final=True)
    return joined(said)


def joined(said: list[Said]) -> list[Said]:
    assert all(each.text for each in said)
    groups = groupby(said, key=lambda each: (each.kind, each.call))
    return [Said(kind, "".join(each.text for each in group), call) for (kind, call), group in groups]


def written(form: CallForm, name: str, arguments: object, indent: int | None = None) -> str:
    return f"{form.begin}{name}{form.between}{json.dumps(arguments, indent=indent)}{form.end}"


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(ARGUMENTS), st.sampled_from(["", "\n", " and "])),
        max_size=4,
    ),
    st.sampled_from(["", "Well.", "a <tool <tool_cal {", "  x"]),
    st.sampled_from([PLAIN, BARE]),
    st.sampled_from([None, 2]),
    st.integers(0, 9),
)
def test_calls_and_text_are_told_apart(
    calls: list[tuple[str, dict[str, object], str]], text: str, form: CallForm, indent: int | None, seed: int
) -> None:
    whole = text + "".join(written(form, name, given, indent) + after for name, given, after in calls)
    said = read(AnswerReader(form, NAMES), whole, seed)
    names = [(each.text, each.call) for each in said if each.kind == "call"]
    assert names == [(name, at) for at, (name, _, _) in enumerate(calls)]
    arguments = [json.loads(each.text) for each in said if each.kind == "arguments"]
    assert arguments == [given for _, given, _ in calls]
    between = [after.strip() for _, _, after in calls if after.strip()]
    assert [each.text.strip() for each in said if each.kind == "text"] == (
        [text.strip()] if text else []
    ) + between
    if not calls:
        assert "".join(each.text for each in said) == text


def test_reasoning_comes_first() -> None:
    whole = "<think>\nwhat <tool_call>? </think>\n\nSo: " + written(PLAIN, "f", {"a": 1})
    for seed in range(10):
        said = read(AnswerReader(PLAIN, NAMES, make_splitter(None, "")), whole, seed)
        assert said[:2] == [Said("reasoning", "what <tool_call>?"), Said("text", "So:")]
        assert said[2:] == [Said("call", "f"), Said("arguments", '{"a": 1}')]


def test_without_markup_everything_is_text_at_once() -> None:
    reader = AnswerReader()
    assert reader.plain
    assert reader.feed("a <tool_call>") == [Said("text", "a <tool_call>")]
    assert reader.feed("", final=True) == []


@pytest.mark.parametrize("cut", range(1, 60))
def test_an_output_that_was_cut_is_said_as_far_as_it_came(cut: int) -> None:
    whole = "so " + written(PLAIN, "get-it", {"a": "b"})
    said = read(AnswerReader(PLAIN, NAMES), whole[:cut], cut)
    begin = len("so " + PLAIN.begin + "get-it" + PLAIN.between)
    if cut < begin:
        assert "".join(each.text for each in said).replace(" ", "") == whole[:cut].replace(" ", "")
    else:
        arguments = whole[begin : min(cut, begin + len('{"a": "b"}'))]
        assert said == [
            Said("text", "so"),
            Said("call", "get-it"),
            *([Said("arguments", arguments)] if arguments else []),
        ]


@pytest.mark.parametrize(
    "text",
    [
        " " * 100_000,
        "<" * 100_000,
        "<tool_call" * 10_000,
        f"{PLAIN.begin}f{PLAIN.between}" + '{"a":' * 20_000,
        f"{PLAIN.begin}f{PLAIN.between}" + " " * 100_000,
        f"{PLAIN.begin}f{PLAIN.between}{{}}" + PLAIN.end[:-1] * 10_000,
    ],
)
def test_little_is_held_back_so_long_outputs_take_time_in_proportion(text: str) -> None:
    reader = AnswerReader(PLAIN, NAMES)
    for at in range(0, len(text), 50):
        reader.feed(text[at : at + 50])
        assert reader.held <= 512
