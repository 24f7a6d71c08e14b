"""The three choice methods, and select as a distribution (b#17, b#18, c#9)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.choices import ChoicesDecision, ChoicesSamplingMethod, TokenLogprob
from tests.support.frontend_fake_backend import FakeBackend

Rows = list[list[TokenLogprob]]


def rows(*logprobs: list[float | None]) -> Rows:
    return [[(value, token, None) for token, value in enumerate(row)] for row in logprobs]


def decide(method: ChoicesSamplingMethod, given: Rows, alone: Rows | None = None) -> ChoicesDecision:
    means = [math.fsum(token[0] or 0.0 for token in row) / len(row) for row in given]
    needed = {} if alone is None else {"unconditional_token_logprobs": alone}
    names = [chr(ord("a") + i) for i in range(len(given))]
    return method(
        choices=names,
        normalized_prompt_logprobs=means,
        input_token_logprobs=given,
        output_token_logprobs=[[] for _ in given],
        **needed,
    )


def test_token_length_normalized_takes_the_best_mean() -> None:
    assert decide(sgl.token_length_normalized, rows([-0.5], [-1.0, -0.1, -0.1], [-0.6, -0.5])).decision == "b"


def test_greedy_token_selection_goes_token_by_token() -> None:
    given = rows([-0.2], [-0.2, -0.3], [-0.5, -0.01])
    decision = decide(sgl.greedy_token_selection, given)
    assert decision.decision == "a"  # its mean stands in for the second token that it does not have
    assert decision.meta_info["greedy_logprob_matrix"] == [[-0.2, -0.2], [-0.2, -0.3], [-0.5, -0.01]]
    assert decide(sgl.greedy_token_selection, rows([-0.2, -0.4], [-0.2, -0.1])).decision == "b"
    assert decide(sgl.greedy_token_selection, rows([-0.2], [-0.2, -0.2])).decision == "a", (
        "of equals the first"
    )


def test_unconditional_likelihood_takes_what_the_prompt_makes_likelier() -> None:
    given, alone = rows([-0.1], [-0.1, -0.3], [-0.4, -0.1]), rows([None], [None, -1.4], [None, -0.1])
    decision = decide(sgl.unconditional_likelihood_normalized, given, alone)
    assert decision.decision == "b"
    assert decision.meta_info["normalized_unconditional_prompt_logprobs"] == pytest.approx([-0.1, 0.5, -0.2])


@sgl.function
def pick(s: Any, prompt: str, choices: list[str], **options: Any) -> None:
    s += prompt + sgl.select("c", choices, **options)


def test_the_unconditional_scores_are_of_the_same_tokens_without_the_prompt() -> None:
    def logprob(prefix: str, token: str) -> float:
        return {"a b": -3.0, "x:a b": -1.0, "x:a": -2.0, "x:c": -1.9}.get(prefix + token, -9.0)

    backend = FakeBackend(logprob=logprob)
    options = {"choices_method": sgl.unconditional_likelihood_normalized}
    meta = pick.run("x:", ["a b", "c"], **options, backend=backend).get_meta_info("c")
    assert [[token[0] for token in row] for row in meta["unconditional_token_logprobs"]] == [
        [None, -3.0],
        [None],
    ]
    assert meta["normalized_unconditional_prompt_logprobs"] == pytest.approx([(-2 - 1 + 3) / 2, -1.9])
    assert len(backend.calls) == 2 and backend.calls[1].prompt == "a"


def test_logprobs_of_zero_count() -> None:
    """b#17: the mean of (-1, 0) is -0.5, not -1; and a choice of certain tokens only does not divide by zero."""
    backend = FakeBackend(logprob=lambda prefix, token: {"a": -1.0, " b": 0.0, "c": -0.6}.get(token, -9.0))
    assert pick.run("x:", ["c", "a b"], backend=backend)["c"] == "a b"
    certain = FakeBackend(logprob=lambda prefix, token: 0.0)
    assert pick.run("x:", ["a", "b"], backend=certain).get_meta_info("c")["choice_probs"] == {
        "a": 0.5,
        "b": 0.5,
    }


def quarters(prefix: str, token: str) -> float:
    return math.log({"a": 0.6, "b": 0.3, "c": 0.1}[token])


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, (0.6, 0.3, 0.1)), (0.5, (0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46))],
)
def test_draws_follow_the_probabilities(temperature: float, expected: tuple[float, ...]) -> None:
    """b#18: a temperature above 0 is allowed, and means what it says."""
    backend = FakeBackend(logprob=quarters)
    states = pick.run_batch(
        [
            {"prompt": "x:", "choices": ["a", "b", "c"], "temperature": temperature, "seed": i}
            for i in range(1500)
        ],
        backend=backend,
    )
    probs = states[0].get_meta_info("c")["choice_probs"]
    assert list(probs.values()) == pytest.approx(expected) and math.fsum(probs.values()) == pytest.approx(1)
    counts = Counter(state["c"] for state in states)
    for choice, p in zip("abc", expected, strict=True):
        assert abs(counts[choice] / 1500 - p) < 4 * math.sqrt(p * (1 - p) / 1500)


def test_a_draw_repeats_with_the_runs_seed_and_differs_from_place_to_place() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x:"
        for i in range(30):
            s += sgl.select(f"{i}", ["a", "b", "c"], temperature=1)

    backend = FakeBackend(logprob=lambda prefix, token: math.log(1 / 3))
    first, again, other = (program.run(backend=backend, seed=seed) for seed in (7, 7, 8))
    drawn = [[state[f"{i}"] for i in range(30)] for state in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 3


@pytest.fixture(scope="module")
def runtime() -> Iterator[sgl.Runtime]:
    with sgl.Runtime() as backend:
        yield backend


CHOICES = ["PlayMusic", "Play", "BookRestaurant", "GetWeather", "Get"]
PROMPT = 'play some jazz {"intent":"'


def test_probabilities_are_those_of_the_sequences_one_by_one(runtime: sgl.Runtime) -> None:
    """c#9: as found by brute force, each choice's tokens fed through the model alone."""
    meta = pick.run(PROMPT, CHOICES, backend=runtime).get_meta_info("c")
    engine = runtime.engine
    joint = [engine.tokenizer.encode(PROMPT + choice) for choice in CHOICES]
    plain = engine.tokenizer.encode(PROMPT)
    start = next(
        (i for i, column in enumerate(zip(plain, *joint, strict=False)) if len(set(column)) > 1), len(plain)
    )
    sums = []
    for ids in joint:
        engine.flush_cache()
        out = engine.generate(
            input_ids=ids,
            sampling_params={"max_new_tokens": 0},
            return_logprob=True,
            logprob_start_len=start - 1,
        )
        sums.append(math.fsum(each[0] for each in out["meta_info"]["input_token_logprobs"][1:]))
    weights = [math.exp(each) for each in sums]
    expected = {choice: weight / sum(weights) for choice, weight in zip(CHOICES, weights, strict=True)}
    assert meta["choice_probs"] == pytest.approx(expected, abs=1e-4)
    assert math.fsum(meta["choice_probs"].values()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("cut", range(0, 14))
def test_where_the_prompt_ends_makes_no_difference(runtime: sgl.Runtime, cut: int) -> None:
    """Healing: the end of the prompt may stand at the beginning of every choice instead, wherever it is cut."""
    whole = pick.run(PROMPT, CHOICES, backend=runtime).get_meta_info("c")["choice_probs"]
    end = PROMPT[len(PROMPT) - cut :]
    moved = pick.run(PROMPT[: len(PROMPT) - cut], [end + choice for choice in CHOICES], backend=runtime)
    assert list(moved.get_meta_info("c")["choice_probs"].values()) == pytest.approx(
        list(whole.values()), abs=1e-4
    )


def test_all_choices_are_scored_in_one_pass(runtime: sgl.Runtime) -> None:
    runtime.flush_cache()
    before = runtime.engine.stats()
    usage = pick.run(PROMPT, CHOICES, backend=runtime).usage
    after = runtime.engine.stats()
    assert after["steps"] - before["steps"] == 1
    tokens = runtime.engine.tokenizer
    inner = {
        tuple(ids[:end])
        for ids in map(tokens.encode, (PROMPT + c for c in CHOICES))
        for end in range(1, len(ids))
    }
    assert usage.computed_tokens <= len(inner) + 1
