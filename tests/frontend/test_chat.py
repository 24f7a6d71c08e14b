"""Programs write conversations exactly as the chat templates of well-known models do.

Marks: c#15.
"""

from __future__ import annotations

from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate
from tests.support.chat_templates import PUBLISHED
from tests.support.frontend_fake_backend import FakeBackend


class Templated(FakeBackend):
    """A fake with a template of the models'."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda call: " fine")
        self.template = JinjaTemplate(PUBLISHED[name].source, {"bos_token": "<s>", "eos_token": "</s>"})

    def role_affixes(self, messages: Any, role: str) -> tuple[str, str]:
        return self.template.role_affixes(messages, role)


@sgl.function
def chat(s: Any, system: bool) -> None:
    if system:
        s += sgl.system("Be brief.")
    s += sgl.user("2+2?") + sgl.assistant("4, I think.")
    s += sgl.user("And 3+3?")
    with s.assistant():
        s += sgl.gen("a")


@pytest.mark.parametrize("name", PUBLISHED)
def test_c15_prompts_are_those_of_apply_chat_template(name: str) -> None:
    published, backend = PUBLISHED[name], Templated(name)
    for system in {False, published.system in ("message", "first user")}:
        state = chat.run(system, backend=backend)
        assert state["a"] == " fine"
        messages = state.messages()
        assert [message["content"] for message in messages[-3:]] == ["4, I think.", "And 3+3?", " fine"]
        whole = backend.template.render(messages[:-1], add_generation_prompt=True)
        assert backend.calls[-1].prompt == whole
        assert "".join(state.text_iter()) == state.text()


@pytest.mark.parametrize("name", ["llama_2", "mistral_3"])
def test_a_blank_before_the_assistants_text_is_left_to_the_model(name: str) -> None:
    backend = Templated(name)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("a") + sgl.assistant("b" + sgl.gen("x")) + sgl.user("c") + sgl.assistant()
        s += (
            sgl.user("d")
            + sgl.assistant(sgl.select("y", ["e", "f"]))
            + sgl.user("g")
            + sgl.assistant(sgl.gen("z"))
        )

    state = program.run(backend=backend)
    messages = state.messages()
    assert [message["content"] for message in messages[1::2]] == ["b fine", "", "e", " fine"]
    for message in messages:  # the blank is the model's own: the template would bring a second one
        message["content"] = message["content"].removeprefix(" ")
    assert state.text().split() == backend.template.render(messages).split()
    assert backend.calls[-1].prompt == backend.template.render(messages[:-1], add_generation_prompt=True)
    assert "".join(state.text_iter()) == state.text()


@pytest.mark.parametrize("name", ["llama_2", "mistral_3", "qwen_25", "phi_3", "deepseek_r1"])
def test_what_is_rendered_is_what_is_run(name: str) -> None:
    backend = Templated(name)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("a") + sgl.assistant("b") + sgl.user("c") + sgl.assistant(sgl.select("y", ["e", "f"]))
        s += sgl.user("d") + sgl.assistant(sgl.gen("x"))

    state = program.run(backend=backend)
    assert program.render(backend=backend, values={"x": state["x"], "y": state["y"]}) == state.text()


def test_what_opens_reasoning_stands_before_what_the_model_writes_only() -> None:
    backend = Templated("deepseek_r1")
    backend._respond = lambda call: "hm</think>\n\nfine"

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("a") + sgl.assistant("b " + sgl.gen("x"))
        s += sgl.user("c") + sgl.assistant(sgl.select("y", ["d", "e"]))
        s += sgl.user("f")
        with s.assistant():
            forks = s.fork(2)
            forks += sgl.separate_reasoning(sgl.gen("z"))
            forks.join()

    state = program.run(backend=backend)
    start = (
        "<s><｜User｜>a<｜Assistant｜>b hm</think>\n\nfine<｜end▁of▁sentence｜><｜User｜>c<｜Assistant｜>d"
    )
    assert [call.prompt for call in backend.calls[-2:]] == [
        start + "<｜end▁of▁sentence｜><｜User｜>f<｜Assistant｜><think>\n"
    ] * 2
    assert state["z"] == ["fine", "fine"] and state["z_reasoning_content"] == ["hm", "hm"]
    assert state.text() == start + "<｜end▁of▁sentence｜><｜User｜>f<｜Assistant｜><｜end▁of▁sentence｜>"
