"""Choosing by log-probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.errors import EngineError
from sgl_like.frontend.choices import ChoicesDecision, ChoicesSamplingMethod
from tests.support.frontend_fake_backend import FakeBackend


@sgl.function
def pick(s: Any, prompt: str, choices: list[str]) -> None:
    s += prompt + sgl.select("c", choices)
    s += "; " + sgl.gen("after")


def scored(logprob: Callable[[str, str], float]) -> FakeBackend:
    return FakeBackend(logprob=logprob)


def test_the_best_mean_wins() -> None:
    backend = scored(lambda prefix, token: {"a": -1.0, " b": -0.1, "c": -0.9}.get(token, -5.0))
    state = pick.run("x:", ["a b", "c", "d"], backend=backend)
    assert state["c"] == "a b" and state.text().startswith("x:a b; ")
    meta = state.get_meta_info("c")
    assert meta is not None
    assert meta["normalized_prompt_logprobs"] == pytest.approx([-0.55, -0.9, -5.0])
    assert [[token[0] for token in row] for row in meta["input_token_logprobs"]] == [
        [-1.0, -0.1],
        [-0.9],
        [-5.0],
    ]


def test_a_logprob_of_zero_counts() -> None:
    backend = scored(lambda prefix, token: {"a": -1.0, " b": 0.0, "c": -0.6}.get(token, -5.0))
    assert pick.run("x:", ["c", "a b"], backend=backend)["c"] == "a b"


def test_probabilities_are_of_the_whole_choices() -> None:
    backend = scored(lambda prefix, token: math.log({"a": 0.5, " b": 0.5, "c": 0.25}.get(token, 0.125)))
    state = pick.run("x:", ["a b", "c", "d"], backend=backend)
    probs = state.get_meta_info("c")["choice_probs"]  # type: ignore[index]
    assert probs == pytest.approx({"a b": 0.4, "c": 0.4, "d": 0.2}) and sum(probs.values()) == pytest.approx(
        1
    )


def test_the_boundary_is_healed() -> None:
    """``"is "`` + ``"yes"`` are the tokens ``"is"``, ``" yes"``; all choices are scored from the same position."""
    seen: list[tuple[str, str]] = []

    def logprob(prefix: str, token: str) -> float:
        seen.append((prefix, token))
        return -0.5 if token == " yes" else -1.0

    backend = scored(logprob)
    state = pick.run("it is ", ["yes", "!"], backend=backend)
    assert state["c"] == "yes"
    assert seen == [("it is", " yes"), ("it is", " "), ("it is ", "!")]
    after = backend.calls[-1]
    assert after.prompt == "it is yes; "
    assert [backend.decode([token]) for token in after.ids] == ["it", " is", " yes", ";", " "]


def test_select_after_a_gen_keeps_its_ids() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a") + sgl.select("c", ["y", "z"]) + sgl.gen("b")

    backend = FakeBackend()
    program.run(backend=backend).sync()
    first, scores, last = backend.calls
    kept = first.ids + first.sampled[:-1]
    assert scores.ids == kept and scores.choices is not None
    assert last.ids == kept + scores.choices[0]


def test_a_prompt_that_would_melt_into_every_choice_is_kept() -> None:
    backend = FakeBackend()
    assert pick.run("x", ["a", "b"], backend=backend)["c"] == "a"
    choices = [backend.decode(choice) for choice in backend.calls[0].choices or ()]
    assert (backend.calls[0].prompt, choices) == ("x", ["a", "b"])


def test_choices_of_a_message_are_text() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.assistant(sgl.select("c", ["<|end|>", "b"])) + sgl.gen("a")

    backend = FakeBackend()
    assert program.run(backend=backend)["c"] == "<|end|>"
    special = [token for token in backend.calls[-1].ids if backend.is_special(token)]
    assert backend.decode(special) == "<|assistant|><|end|>"


def test_users_can_decide() -> None:
    class Last(ChoicesSamplingMethod):
        def __call__(self, *, choices: Any, **scores: Any) -> ChoicesDecision:
            assert set(scores) == {
                "normalized_prompt_logprobs",
                "input_token_logprobs",
                "output_token_logprobs",
            }
            return ChoicesDecision(choices[-1], {"why": "last"})

    @sgl.function
    def program(s: Any, method: Any) -> None:
        s += "x" + sgl.gen("c", choices=["a", "b"], choices_method=method)

    state = program.run(Last(), backend=FakeBackend())
    assert state["c"] == "b" and state.get_meta_info("c")["why"] == "last"  # type: ignore[index]
    with pytest.raises(sgl.SamplingParamsError, match="choices_method must be"):
        program.run("best", backend=FakeBackend())


def test_failures() -> None:
    state = pick.run("", ["a"], backend=FakeBackend())
    assert "the prompt is empty" in str(state.error())

    def fail(prefix: str, token: str) -> float:
        raise EngineError("no scores")

    state = pick.run("x", ["a", "b"], backend=scored(fail))
    assert "select('c')" in str(state.error()) and isinstance(state.error().__cause__, EngineError)  # type: ignore[union-attr]
