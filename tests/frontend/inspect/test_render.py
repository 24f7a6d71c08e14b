"""Rendered prompts are what a run sends, to the byte and to the token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgl_like as sgl
from sgl_like.errors import ConfigError, TraceError
from tests.support.frontend_fake_backend import FakeBackend

ROOT = Path(__file__).parents[3]


@sgl.function
def chat(s: Any, question: str, turns: int = 2) -> None:
    s += sgl.system("Be brief.<|end|>")
    for turn in range(turns):
        s += sgl.user(f"{question} {turn}") + sgl.assistant("A: " + sgl.gen("answer", max_tokens=6))
    with s.user():
        s += "Sure? "
    with s.assistant():
        s += sgl.select("sure", ["yes", "no", "yes and no"]) + sgl.gen("why")


@sgl.function
def forked(s: Any, topic: str) -> None:
    s += f"Tips on {topic}: " + sgl.gen("tips")
    forks = s.fork(3)
    forks += lambda number: f"\n{number}: " + sgl.gen("tip")
    forks.join("concate_and_append")
    s += "\nAll: " + sgl.gen("all") + s["tips"]


def test_what_is_unknown_is_shown_by_name_c13() -> None:
    tips = "Tips on tea: {{tips}}\n0: {{tip}}\n1: {{tip}}\n2: {{tip}}"
    assert forked.render(topic="tea") == tips + "\nAll: {{all}}{{tips}}"
    assert forked.render(at="all").startswith("Tips on {{topic}}: {{tips}}")  # type: ignore[union-attr]


class _Values:
    """What a run's gens and selects gave, by name, in the order in which the program has them."""

    def __init__(self) -> None:
        self.given: dict[str, list[Any]] = {}

    def __call__(self) -> dict[str, Iterator[Any]]:
        return {name: iter(values) for name, values in self.given.items()}


class _Text(str):
    token_ids: tuple[int, ...]


def _sampled(text: str, ids: tuple[int, ...]) -> _Text:
    value = _Text(text)
    value.token_ids = ids
    return value


@given(st.text("ab .<|end|>\n", max_size=12), st.lists(st.text("xy ,é", max_size=8), min_size=4, max_size=4))
def test_prompts_are_those_that_a_run_sends_c13(question: str, answers: list[str]) -> None:
    """The fake backend's sampled tokens are single characters, which no tokenising of the text would give."""
    backend = FakeBackend(bos="<|begin|>", logprob=lambda prefix, token: -len(token))
    backend._respond = lambda call: answers[len(backend.calls) % 4]
    state = chat.run(question, backend=backend)
    values = _Values()
    for call in backend.calls:
        if call.choices is None:
            name = "why" if call is backend.calls[-1] else "answer"
            text = backend.decode([token for token in call.sampled if not backend.is_special(token)])
            kept = (
                call.sampled
                if not call.sampled or not backend.is_special(call.sampled[-1])
                else call.sampled[:-1]
            )
            values.given.setdefault(name, []).append(_sampled(text, kept))
    values.given["sure"] = [state["sure"]]
    trace = chat.trace(question, backend=backend, values=values())
    steps = [step for step in trace.walk() if step.prompt is not None]
    assert len(steps) == len(backend.calls)
    for step, call in zip(steps, backend.calls, strict=True):
        assert call.prompt == "<|begin|>" + (step.prompt or "") or step.kind == "select"
        assert step.prompt_ids[: len(call.ids)] == call.ids
        assert step.kind == "select" or step.prompt_ids == call.ids
    assert chat.render(question, backend=backend, values=values()) == state.text()
    assert chat.render(question, backend=backend, values=values(), at="why", tokens=True) == list(
        backend.calls[-1].ids
    )


def test_forks_too(backend: FakeBackend) -> None:
    backend._respond = lambda call: "<" + call.prompt[-3:] + ">"
    state = forked.run("tea", temperature=0)
    tips = [state.text().split(f"\n{number}: ")[1].split("\n")[0] for number in range(3)]
    values = {"tips": state["tips"], "tip": iter(tips), "all": state["all"]}
    trace = forked.trace("tea", values=values)
    sent = sorted(call.prompt for call in backend.calls)
    assert sorted(step.prompt or "" for step in trace.walk() if step.prompt is not None) == sent
    assert forked.render("tea", values={**values, "tip": iter(tips)}) == state.text()


def test_separated_reasoning_is_left_out_as_in_a_run(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> Any:
        s += "Q <think>" + sgl.separate_reasoning(sgl.gen("a"), "deepseek-r1") + " then " + sgl.gen("b")
        return s["a_reasoning_content"]

    backend._respond = lambda call: "because</think>42" if len(backend.calls) == 1 else "end"
    state = program()
    values = {"a": state["a"], "b": state["b"], "a_reasoning_content": state["a_reasoning_content"]}
    assert state["a"] == "42" and program.render(values=values) == state.text()
    assert program.render(values=values, at="b", tokens=True) == list(backend.calls[1].ids)
    assert str(program.trace(values=values).ret_value) == "because"
    assert str(program.trace().ret_value) == "{{a_reasoning_content}}"


def test_prompts_of_the_embedded_model_c13() -> None:
    """Byte-equal to what the engine gets, beginning-of-sequence token and chat template included."""
    with sgl.Runtime() as runtime:
        sent: list[tuple[int, ...]] = []
        submit = runtime.submit

        def noted(prompt_ids: Any, *rest: Any, **more: Any) -> Any:
            sent.append(tuple(prompt_ids))
            return submit(prompt_ids, *rest, **more)

        runtime.submit = noted  # type: ignore[method-assign]
        state = chat.run("book a table", turns=1, temperature=0, backend=runtime)
        ids = state.get_meta_info("answer")["output_ids"]  # type: ignore[index]
        ends = set(runtime.engine.tokenizer.eos_token_ids)
        values = {
            "answer": _sampled(state["answer"], tuple(token for token in ids if token not in ends)),
            "sure": state["sure"],
            "why": state["why"],
        }
        for at, prompt in zip(("answer", "why"), sent, strict=True):
            rendered = chat.render(
                "book a table", turns=1, backend=runtime, values=values, at=at, tokens=True
            )
            assert rendered == list(prompt)
        assert chat.render("book a table", turns=1, backend=runtime, values=values) == state.text()
        alone = chat.render("book a table", turns=1, values=values, at="answer", tokens=True)
        assert alone == list(sent[0]), "without a backend it is the embedded model's tokenizer, too"


def test_named_templates_c13(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any, q: str) -> None:
        s += sgl.user(q) + sgl.assistant(sgl.gen("a"))

    fake = "<|user|>{{q}}<|end|><|assistant|>{{a}}<|end|>"
    assert program.render() == fake, "that of the default backend"
    chatml = program.render(template="chatml")
    assert (
        isinstance(chatml, str) and "<|im_start|>user\n{{q}}<|im_end|>" in chatml and "<|user|>" not in chatml
    )
    jinja = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    assert program.render("hi", values={"a": "ho"}, template=jinja) == "[user:hi][assistant:ho]"
    with pytest.raises(ConfigError, match="chat_template='nothing' is no"):
        program.render(template="nothing")


def test_rendering_loads_no_model() -> None:
    code = (
        "import sys, sgl_like as sgl\n"
        "@sgl.function\n"
        "def f(s, q):\n"
        "    s += sgl.user(q) + sgl.assistant(sgl.gen('a'))\n"
        "print(f.render(), f.graph('x'), sorted({'torch', 'numba'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert "{{q}}" in done.stdout and done.stdout.strip().endswith("[]")


def test_token_ids_of_something_unknown_are_refused() -> None:
    with pytest.raises(
        TraceError, match=r"token ids of what is not known \(topic, tips\).*forked\.trace\(topic=\.\.\.\)"
    ):
        forked.render(at="tip", tokens=True)


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="no gen or select is named 'x'; there are: 'tips', 'tip', 'all'"):
        forked.render(at="x")


def test_parameters_of_the_program_are_its_own() -> None:
    @sgl.function
    def program(s: Any, at: str, values: str) -> None:
        s += at + values

    assert program.render(at="a", values="b") == "ab"
