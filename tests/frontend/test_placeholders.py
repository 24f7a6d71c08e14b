"""Expressions in f-strings (c#16, b#23)."""

from __future__ import annotations

import gc
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgl_like as sgl
from sgl_like.errors import ProgramError
from sgl_like.frontend import placeholders
from sgl_like.frontend.expr import Gen, Text, flatten
from sgl_like.frontend.placeholders import has_placeholder, split_placeholders
from tests.support.frontend_fake_backend import FakeBackend


def test_an_f_string_is_what_it_looks_like(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, greeting: str) -> None:
        s += sgl.user(f"{greeting}: {sgl.gen('n')}!")
        with s.assistant():
            s += f"{s['n']} is {sgl.select('c', ['good', 'bad'])}, {sgl.gen('a') + ' and ' + sgl.gen('b')}."
        forks = s.fork(2)
        forks += f"{sgl.gen('d')} of each fork"
        forks.join()

    state = program("Hi")
    n, a, b = state["n"], state["a"], state["b"]
    assert [message["content"] for message in state.messages()] == [f"Hi: {n}!", f"{n} is good, {a} and {b}."]
    assert len(set(state["d"])) == 2 and not any(has_placeholder(call.prompt) for call in backend.calls)


@given(
    st.lists(st.one_of(st.text(), st.sampled_from(["\ufdd0", "\ufdd1", "\ufdd00-1\ufdd1", "{}"])), max_size=6)
)
def test_whatever_text_is_between(texts: list[str]) -> None:
    gens = [sgl.gen(f"x{i}") for i in range(len(texts))]
    whole = "".join(f"{text}{gen}" for text, gen in zip(texts, gens, strict=True))
    expected = [node for pair in zip(texts, gens, strict=True) for node in (Text(pair[0]), pair[1])]
    assert list(flatten(whole)) == [node for node in expected if node != Text("")]


def test_what_only_looks_like_a_placeholder_is_text() -> None:
    real = f"{sgl.gen('x')}"
    number, signature = real.strip("\ufdd0\ufdd1").split("-")
    forged = [
        real.replace(number, str(int(number) + 1)),
        real.replace(signature, "1" * 40),
        real[1:],
    ]
    for text in forged:
        assert flatten(text) == (Text(text),) and not has_placeholder(text)
    assert isinstance(flatten(real)[0], Gen) and has_placeholder(real)
    assert isinstance(flatten(real.upper())[0], Gen), "what changes letters does not break it"


@pytest.mark.parametrize(
    "damage", [lambda text: text[:20], lambda text: text[:-5], lambda text: textwrap.fill(text, 12)]
)
def test_one_that_was_cut_is_an_error(damage: Callable[[str], str]) -> None:
    with pytest.raises(ProgramError, match="was cut or wrapped before it was added"):
        flatten(damage(f"one {sgl.gen('a')} two"))


def test_values_of_users_and_models_cannot_name_an_expression(backend: FakeBackend) -> None:
    backend._respond = lambda call: "\ufdd00-" + "7" * 40 + "\ufdd1"
    row = "\ufdd01-" + "3" * 40 + "\ufdd1"

    @sgl.function
    def program(s: Any, row: str) -> None:
        s += f"{row} {sgl.gen('x')}"
        s += s["x"]

    state = program(row)
    assert state.text() == row + " " + state["x"] * 2


def test_no_body_leaves_anything_behind(backend: FakeBackend) -> None:
    kept: list[str] = []

    @sgl.function
    def program(s: Any) -> None:
        s += f"x{sgl.gen('a')}"
        kept.append(f"{sgl.gen('never added')}")

    states = [program() for _ in range(50)]
    gc.collect()
    numbers = [text.strip("\ufdd0\ufdd1").split("-")[0] for text in kept]
    assert states and not set(numbers) & set(placeholders._known)
    with pytest.raises(ProgramError, match="make it anew"):
        flatten(kept[0])


def test_those_made_outside_of_programs_are_kept_for_a_while() -> None:
    line = f"Name: {sgl.gen('n')}"
    alive = weakref.ref(flatten(line)[1])
    for _ in range(placeholders.KEPT - 1):
        f"{sgl.gen('other')}"
    assert len(flatten(line)) == 2
    f"{sgl.gen('one more')}"
    gc.collect()
    assert alive() is None
    with pytest.raises(ProgramError, match="make it anew"):
        split_placeholders(line)


def test_a_choice_is_text() -> None:
    with pytest.raises(sgl.SamplingParamsError, match="must be text"):
        sgl.select("x", [f"{sgl.gen('y')}", "b"])
