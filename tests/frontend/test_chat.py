"""Programs write conversations exactly as the chat templates of well-known models do."""

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
        if (
            name == "deepseek_r1"
        ):  # what is given to the assistant stands after the opening, as what it writes
            whole = whole.replace("<｜Assistant｜>4", "<｜Assistant｜><think>\n4")
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


@pytest.mark.parametrize("name", ["llama_2", "mistral_3", "qwen_25", "phi_3"])
def test_what_is_rendered_is_what_is_run(name: str) -> None:
    backend = Templated(name)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("a") + sgl.assistant("b") + sgl.user("c") + sgl.assistant(sgl.select("y", ["e", "f"]))
        s += sgl.user("d") + sgl.assistant(sgl.gen("x"))

    state = program.run(backend=backend)
    assert program.render(backend=backend, values={"x": state["x"], "y": state["y"]}) == state.text()
