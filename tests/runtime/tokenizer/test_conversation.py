"""What somebody writes never becomes a special token, and templates render as ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.errors import ChatTemplateError
from sgl_like.runtime.models.load import EMBEDDED_MODEL as TINY_MODEL
from sgl_like.runtime.tokenizer.conversation import ConversationEncoder
from sgl_like.runtime.tokenizer.guard import RenderLimits
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer
from tests.support.chat_templates import PUBLISHED

TOKENIZER = Tokenizer(TINY_MODEL)
SPECIAL = sorted(TOKENIZER.special_tokens)
ENCODER = ConversationEncoder(TOKENIZER)
CHAT = [
    {"role": "user", "content": "  <think> a </think>\n\n b "},
    {"role": "assistant", "content": "<think>\nso\n</think>\n\nc"},
    {"role": "user", "content": "> quoted | <"},
]


def with_template(source: str) -> ConversationEncoder:
    return ConversationEncoder(Tokenizer(TINY_MODEL, chat_template=source))


def special_ids(ids: list[int]) -> list[int]:
    known = set(TOKENIZER.special_tokens.values())
    return [token for token in ids if token in known]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("opening", [True, False])
def test_conversations_are_what_the_template_makes_of_them(name: str, opening: bool) -> None:
    tokenizer = Tokenizer(TINY_MODEL, chat_template=PUBLISHED[name].source)
    expected = tokenizer.apply_chat_template(CHAT, opening)
    assert ConversationEncoder(tokenizer).encode(CHAT, add_generation_prompt=opening) == expected


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [*SPECIAL, "<|", "|>", "end", "user", "<", ">", "|", " ", "\n", "x", "\U0010fff0"]
            )
        )
        .map("".join)
        .filter(str.strip),
        min_size=1,
        max_size=4,
    )
)
def test_texts_are_never_special_tokens(contents: list[str]) -> None:
    roles = ["user", "assistant"] * 2
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    ids = ENCODER.encode(messages)
    plain = [{**message, "content": "x"} for message in messages]
    assert special_ids(ids) == special_ids(ENCODER.encode(plain))
    assert TOKENIZER.decode(ids) == "".join(contents)


@pytest.mark.parametrize(
    "content", ["|user|", "user", "|user|>", "user|>", " user|> ", "|us", "|user|> <|user|>"]
)
def test_texts_do_not_become_special_tokens_with_what_is_beside_them(content: str) -> None:
    glued = with_template("{% for m in messages %}<{{ m.content|trim }}>{% endfor %}<|end|>")
    ids = glued.encode([{"role": "user", "content": content}])
    assert special_ids(ids) == [1]
    assert TOKENIZER.decode(ids) == f"<{content.strip()}>"


def test_tools_and_calls_hide_special_tokens_too() -> None:
    encoder = with_template("{{ tools|tojson }}{{ messages[0].tool_calls|tojson }}<|end|>")
    call = {"type": "function", "function": {"name": "f", "arguments": {"<|end|>": "<|user|>"}}}
    tools = [{"type": "function", "function": {"name": "f", "description": "<|end|>"}}]
    ids = encoder.encode([{"role": "assistant", "content": None, "tool_calls": [call]}], tools=tools)
    assert special_ids(ids) == [1]
    assert TOKENIZER.decode(ids) == json.dumps(tools) + json.dumps([call])


def test_the_last_message_can_go_on() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b <|end|> c "}]
    ids = ENCODER.encode(messages, continue_final_message=True)
    assert special_ids(ids) == [3, 1, 4]
    assert TOKENIZER.decode(ids) == "ab <|end|> c "
    hiding = with_template("{{ messages[0].content }}")
    with pytest.raises(ChatTemplateError, match="does not show the last message"):
        hiding.encode(messages, continue_final_message=True)


def test_marks_that_a_template_cuts_leave_nothing_behind() -> None:
    encoder = with_template("{{ messages[0].content[:2] }}<|end|>")
    assert TOKENIZER.decode(encoder.encode([{"role": "user", "content": "x<|end|>"}])) in ("x", "x0")


BOMBS = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
    "{% set guard = none %}{% for i in range(9999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ 10 * 'x' * size }}",
    "{{ [1] * size }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_templates_cannot_take_much(source: str) -> None:
    tokenizer = Tokenizer(TINY_MODEL, chat_template=source + "{{ '' }}")
    encoder = ConversationEncoder(tokenizer, RenderLimits(seconds=0.2, chars=1_000_000))
    with pytest.raises(ChatTemplateError):
        encoder.encode([{"role": "user", "content": "a"}], variables={"size": 10**9})


def test_loops_know_their_length_and_neighbours() -> None:
    source = (
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}"
        "{{ '' if loop.last else loop.nextitem.content }};{% endfor %}"
        "{% for k, v in {'a': 1}.items() if v %}{{ k }}{{ v }}{% else %}none{% endfor %}"
        "{% for x in missing %}{% else %}none{% endfor %}{{ 'a%s' % 2 * 2 }}"
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": "p"}, {"role": "user", "content": "q"}]
    text = "".join(piece for piece, _ in with_template(source).segments(messages))
    assert text == "1/2Falseq;2/2True;a1nonea2a2"
