"""``validate`` and retry (c#12)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, field_validator

import sgl_like as sgl
from sgl_like.errors import ProgramError, SamplingParamsError, ValidationError
from sgl_like.frontend.backend.base import Segment
from tests.support.frontend_fake_backend import Call, FakeBackend
from tests.support.small_model import make_model


class Sum(BaseModel):
    total: int

    @field_validator("total")
    @classmethod
    def _even(cls, total: int) -> int:
        if total % 2:
            raise ValueError("the total must be even")
        return total


def answers(*texts: str) -> FakeBackend:
    """A backend that gives these answers, one after the other, and then numbers."""
    backend = FakeBackend()
    backend._respond = lambda call: [*texts, *map(str, range(9))][len(backend.calls) - 1]
    return backend


def refuse(*texts: str) -> Callable[[Any], None]:
    def validate(value: Any) -> None:
        if value in texts:
            raise ValueError(f"not {value}")

    return validate


@sgl.function
def asking(s: Any, **arguments: Any) -> None:
    s += "Q " + sgl.gen("a", **arguments) + " then " + sgl.gen("b")


def test_a_refused_attempt_leaves_nothing_behind() -> None:
    backend = answers("bad", "worse", "good", "end")
    state = asking.run(backend=backend, validate=refuse("bad", "worse"))
    assert state["a"] == "good" and state.text() == "Q good then end"
    assert [call.prompt for call in backend.calls] == ["Q ", "Q ", "Q ", "Q good then "]
    assert backend.calls[0].ids == backend.calls[2].ids
    assert backend.calls[3].ids[: len(backend.calls[0].ids)] == backend.calls[0].ids
    assert state["a"].meta["refused"] == [
        {"text": "bad", "reason": "not bad"},
        {"text": "worse", "reason": "not worse"},
    ]
    assert state.usage.completion_tokens == sum(len(call.sampled) for call in backend.calls), (
        "all are counted"
    )


def test_nothing_is_streamed_before_it_is_accepted() -> None:
    state = asking.stream(backend=answers("bad", "good", "end"), validate=refuse("bad"))
    assert list(state.text_iter("a")) == ["good"]
    assert "".join(state.text_iter()) == "Q good then end"


def test_after_the_last_refusal_the_program_fails() -> None:
    backend = answers("one", "two", "three")
    state = asking.run(backend=backend, validate=lambda text: False, max_retries=1)
    with pytest.raises(
        ProgramError, match=r"gen\('a'\).*refused 2 times: attempt 1 'one': it did not pass"
    ) as caught:
        state["a"]
    cause = caught.value.__cause__
    assert isinstance(cause, ValidationError) and [text for text, _ in cause.refused] == ["one", "two"]
    assert len(backend.calls) == 2
    with pytest.raises(ProgramError, match="refused 1 time:"):
        asking.run(backend=answers("x"), validate=lambda text: False, max_retries=0)["b"]


@pytest.mark.parametrize("raised", [AssertionError("wrong"), ValueError("wrong"), AssertionError()])
def test_what_refuses(raised: Exception) -> None:
    def validate(text: str) -> None:
        if text == "bad":
            raise raised

    state = asking.run(backend=answers("bad", "good"), validate=validate)
    assert state["a"].meta["refused"][0]["reason"] == (str(raised) or "AssertionError")


def test_what_does_not_refuse() -> None:
    for returned in (None, True, 0, "", "text"):
        assert asking.run(backend=answers("x"), validate=lambda text, it=returned: it)["a"] == "x"


def test_what_is_refused_in_the_end_is_counted() -> None:
    backend = answers("one", "two")
    state = asking.run(backend=backend, validate=lambda text: False, max_retries=1)
    assert state.error() is not None
    assert state.usage.completion_tokens == sum(len(call.sampled) for call in backend.calls)


@pytest.mark.parametrize("raised", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_validator_that_wants_to_end_the_process_ends_the_program(raised: BaseException) -> None:
    def validate(text: str) -> None:
        raise raised

    with pytest.raises(ProgramError, match=f"validate raised {type(raised).__name__}"):
        asking.run(backend=answers("x"), validate=validate)["a"]


def test_other_errors_of_a_validator_fail_the_program() -> None:
    backend = answers("x")
    state = asking.run(backend=backend, validate=lambda text: text.nothing)
    with pytest.raises(ProgramError, match="AttributeError") as caught:
        state["a"]
    assert isinstance(caught.value.__cause__, AttributeError) and len(backend.calls) == 1


def test_a_validator_gets_the_value_and_may_be_async() -> None:
    seen = []

    async def validate(value: Sum) -> bool:
        seen.append(value)
        return value.total > 2

    backend = answers('{"total": 2}', '{"total": 3}', '{"total": 4}')
    value = asking.run(backend=backend, json_schema=Sum, validate=validate)["a"]
    assert seen == [Sum(total=2), Sum(total=4)], "what its type refuses is not shown to it"
    assert value.parsed is seen[-1]


def test_a_type_is_a_validator() -> None:
    backend = answers("five", '{"total": 3}', '{"total": 4}')
    value = asking.run(backend=backend, validate=Sum)["a"]
    assert value.parsed == Sum(total=4) and "json_schema" not in backend.calls[0].params
    assert [each["reason"] for each in value.meta["refused"]][1] == (
        "'{\"total\": 3}' is no Sum: total: Value error, the total must be even"
    )
    assert (
        asking.run(backend=answers("2", "4"), dtype=int, validate=Annotated[int, Field(gt=3)])["a"].parsed
        == 4
    )


def test_a_typed_gen_is_checked_by_its_own_type() -> None:
    """Also that it was not cut."""
    backend = answers('{"total": 3}', '{"total": 123456}', '{"total": 4}')
    value = asking.run(backend=backend, json_schema=Sum, max_retries=2, max_tokens=13)["a"]
    assert value.parsed == Sum(total=4)
    assert "cut at its max_tokens" in value.meta["refused"][1]["reason"]


def test_with_n_each_output_has_its_attempts() -> None:
    backend = FakeBackend()
    backend._respond = lambda call: "bad" if len(backend.calls) in (2, 4) else f"good {len(backend.calls)}"
    state = asking.run(backend=backend, validate=refuse("bad"), n=3)
    assert len(state["a"]) == 3 and all(text.startswith("good") for text in state["a"])
    assert state["a"][0] == "good 1" and state.text().startswith("Q good 1 then ")
    assert [len(each.meta["refused"]) for each in state["a"]] == [0, 2, 0]
    assert "".join(state.text_iter("a", index=1)) == state["a"][1]


def test_it_runs_on_a_thread_of_its_own() -> None:
    """Neither the executor's nor the backend's, which others wait for: a validator may run programs itself."""
    names = []

    @sgl.function
    def judge(s: Any, text: str) -> None:
        s += f"Is {text} good?" + sgl.gen("verdict", validate=lambda verdict: None)

    backend = answers("x", "yes", "end")

    def validate(text: str) -> bool:
        names.append(threading.current_thread().name)
        return bool(judge.run(text, backend=backend)["verdict"] == "yes")

    assert asking.run(backend=backend, validate=validate)["b"] == "end"
    assert all(name.startswith("sgl-user-code") for name in names)


def test_cancelled_while_it_is_validated() -> None:
    inside, go = threading.Event(), threading.Event()

    def validate(text: str) -> bool:
        inside.set()
        go.wait()
        return False

    backend = answers("x")
    state = asking.stream(backend=backend, validate=validate)
    inside.wait()
    state.cancel()
    with pytest.raises(ProgramError, match="cancelled"):
        state["a"]
    go.set()
    assert asking.run(backend=backend)["a"] and len(backend.calls) == 3, "no attempt comes after the end"


# -- parameters of a retry --------------------------------------------------------------------------------------


def seeds(calls: list[Call]) -> list[Any]:
    return [call.params.get("seed") for call in calls]


def test_retries_draw_other_numbers_and_a_rerun_the_same() -> None:
    runs = []
    for _ in range(2):
        backend = answers("bad", "bad", "good")
        asking.run(backend=backend, validate=refuse("bad"), seed=4).sync()
        runs.append(seeds(backend.calls))
        assert {call.params["temperature"] for call in backend.calls} == {1.0}
    assert runs[0] == runs[1] and len(set(runs[0])) == 4


def test_greedy_retries_are_sampled_from_a_fixed_seed() -> None:
    runs = []
    for _ in range(2):
        backend = answers("bad", "bad", "good")
        asking.run(backend=backend, validate=refuse("bad"), temperature=0).sync()
        runs.append(seeds(backend.calls))
        assert [call.params["temperature"] for call in backend.calls] == [0, 0.7, 0.7, 0]
    assert runs[0] == runs[1] and runs[0][0] is None and None not in runs[0][1:3]
    backend = answers("bad", "good")
    asking.run(backend=backend, validate=refuse("bad"), top_k=1)
    assert "top_k" not in backend.calls[1].params


# -- feedback ---------------------------------------------------------------------------------------------------


@sgl.function
def chatting(s: Any, **arguments: Any) -> None:
    s += sgl.user("2+3?")
    s += sgl.assistant("Sum: " + sgl.gen("a", **arguments) + "!")
    s += sgl.user("Sure?") + sgl.assistant(sgl.gen("b"))


def test_feedback_is_a_turn_that_goes_away() -> None:
    backend = answers("4", "6", "5", "yes")
    state = chatting.run(backend=backend, validate=refuse("4", "6"), feedback=True, temperature=0)
    start = "<|user|>2+3?<|end|><|assistant|>Sum: "
    told = "<|end|><|user|>This was not accepted: not {}\nTry again.<|end|><|assistant|>Sum: "
    assert [call.prompt for call in backend.calls] == [
        start,
        start + "4" + told.format(4),
        start + "4" + told.format(4) + "6" + told.format(6),
        start + "5!<|end|><|user|>Sure?<|end|><|assistant|>",
    ]
    assert state.messages()[1] == {"role": "assistant", "content": "Sum: 5!"}
    assert [call.params["temperature"] for call in backend.calls] == [0] * 4, (
        "the prompt differs: no need to sample"
    )
    first, second = backend.calls[:2]
    assert second.ids[: len(first.ids) + 1] == first.ids + first.sampled[:-1], (
        "what was sampled stays as it was"
    )


def test_feedback_of_ones_own() -> None:
    backend = answers("4", "5")
    chatting.run(
        backend=backend, validate=refuse("4"), feedback=lambda text, reason: f"<|end|>{text} ({reason})?"
    )
    assert "<|user|><|end|>4 (not 4)?<|end|>" in backend.calls[1].prompt
    specials = [backend.decode([token]) for token in backend.calls[1].ids if backend.is_special(token)]
    assert specials.count("<|end|>") == 3, "what is told cannot end the message"


def test_feedback_without_messages() -> None:
    backend = answers("4", "5", "end")
    state = asking.run(backend=backend, validate=refuse("4"), feedback=True)
    assert backend.calls[1].prompt == "Q 4\n[This was not accepted: not 4\nTry again.]\n"
    assert state.text() == "Q 5 then end"


def test_an_error_in_feedback_fails_the_program() -> None:
    with pytest.raises(ProgramError, match="ZeroDivisionError"):
        chatting.run(backend=answers("4"), validate=refuse("4"), feedback=lambda text, reason: 1 / 0)["a"]


# -- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_retries": 2}, "need validate, or a type"),
        ({"feedback": True}, "need validate, or a type"),
        ({"validate": 3}, "validate must be a function or a type, not 3"),
        ({"validate": len, "max_retries": -1}, "max_retries must be between 0 and 100, not -1"),
        ({"validate": len, "max_retries": True}, "max_retries must be"),
        ({"validate": len, "feedback": "yes"}, "feedback must be True, False or a function, not 'yes'"),
        ({"validate": len, "choices": ["a"]}, "cannot be combined with choices"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SamplingParamsError, match=message):
        sgl.gen("x", **arguments)


# -- the engine -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("validate"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


@pytest.mark.parametrize("feedback", [False, True])
def test_no_prefix_is_computed_again(runtime: sgl.Runtime, feedback: bool) -> None:
    """c#12: a retry computes what it samples, one token of the prompt, and what feedback adds: no prefix."""
    prompt = "Once upon a time there was a long prompt of many tokens, " * 2
    counts: list[tuple[int, int]] = []

    @sgl.function
    def program(s: Any, retries: int) -> None:
        left = iter(range(retries))
        s += prompt + sgl.gen(
            "a", max_tokens=4, ignore_eos=True, feedback=feedback, max_retries=retries,
            validate=lambda text: next(left, None) is None,
        )  # fmt: skip
        s += sgl.gen("b", max_tokens=2, ignore_eos=True)

    for retries in (0, 2):
        runtime.flush_cache()
        state = program.run(retries, backend=runtime, seed=3)
        assert state.error() is None and len(state["a"].meta["refused"]) == retries
        assert state.text() == prompt + state["a"] + state["b"], "only what was accepted is there"
        counts.append((state.usage.computed_tokens, len(state["a"].token_ids)))
    added = len("\n[This was not accepted: it did not pass the check\nTry again.]\n") if feedback else 0
    assert counts[1][0] - counts[0][0] <= 2 * (4 + 1 + added) + 4
    assert len(runtime.encode([Segment(prompt, True)])) > 100, "or this would show nothing"
