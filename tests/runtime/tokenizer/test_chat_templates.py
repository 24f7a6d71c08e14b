"""Chat templates: models' own against `transformers`, whole and role by role; and those that go by a name.

Marks: b#29, c#15.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sgl_like.errors import ChatTemplateError, ConfigError
from sgl_like.runtime.models.load import EMBEDDED_MODEL
from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate
from sgl_like.runtime.tokenizer.named_templates import (
    ChatTemplate,
    ChatTemplateStyle,
    _matchers,
    _registry,
    chat_template_names,
    get_chat_template,
    get_chat_template_by_model_path,
    register_chat_template,
    register_chat_template_matching_function,
)
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer
from tests.support.chat_templates import PUBLISHED, Published

CONTENTS = ("Be brief.", "2+2?", "4, I think.", 'And {"a": "<b>"} 날씨?', "No idea.", "Why not?")
WEATHER = {"name": "weather", "description": "it's ünïcode", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": WEATHER}]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}


def _talk(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": CONTENTS[at]} for at, role in enumerate(roles)]


USER, LONGER = ("user",), ("user", "assistant", "user", "assistant", "user")


def _talks(template: Published) -> list[tuple[str, ...]]:
    talks = [USER, LONGER]
    if template.system != "refused":
        talks += [("system", *USER), ("system", *LONGER)]
    if template.tool_role:
        talks += [("user", "assistant", "tool", "assistant", "user")]
    return talks


@cache
def _transformers_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(EMBEDDED_MODEL / "tokenizer.json"), **VARIABLES)


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_c15_whole_conversations_are_as_in_transformers(name: str, opening: bool) -> None:
    template = PUBLISHED[name]
    ours = JinjaTemplate(template.source, VARIABLES)
    for roles in _talks(template):
        for tools in [None, TOOLS] if template.tools else [None]:
            theirs = _transformers_tokenizer().apply_chat_template(
                _talk(*roles),
                tools=tools,
                chat_template=template.source,
                tokenize=False,
                add_generation_prompt=opening,
            )
            assert ours.render(_talk(*roles), opening, tools=tools) == theirs


def _by_roles(template: Any, messages: list[dict[str, str]], tools: Any = ()) -> str:
    """As a program writes a conversation, up to the prefix of what the assistant says next."""
    text = ""
    for at, message in enumerate(messages):
        prefix, suffix = template.role_affixes(messages[:at], message["role"], tools)
        text += prefix + message["content"] + suffix
    return text + str(template.role_affixes(messages, "assistant", tools)[0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_c15_role_by_role_is_the_whole(name: str) -> None:
    template = PUBLISHED[name]
    ours = JinjaTemplate(template.source, VARIABLES)
    for roles in _talks(template):
        if len(roles) > 2 and (
            template.rewrites or (template.system == "last user" and roles[0] == "system")
        ):
            continue  # what a template writes otherwise later on, a program has written already
        for tools in [(), TOOLS] if template.tools else [()]:
            messages = _talk(*roles)
            whole = ours.render(messages, add_generation_prompt=True, tools=list(tools) or None)
            written = _by_roles(ours, messages, tools)
            opened = whole != ours.render(messages, tools=list(tools) or None)
            blank = "" if opened else written.removeprefix(whole)  # what stands before an assistant's text
            assert written == whole + blank and not blank.strip(), roles


def test_the_same_texts_one_after_the_other() -> None:
    qwen = JinjaTemplate(PUBLISHED["qwen_25"].source)
    assert _by_roles(qwen, _talk("user", "assistant")) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nBe brief.<|im_end|>\n<|im_start|>assistant\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    )
    llama = JinjaTemplate(PUBLISHED["llama_2"].source, VARIABLES)
    assert _by_roles(llama, _talk("system", "user", "assistant", "user")) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+2? [/INST] 4, I think. </s>"
        '<s>[INST] And {"a": "<b>"} 날씨? [/INST] '
    )


def test_a_system_message_that_moves_on_stays_where_it_was_written() -> None:
    mistral = JinjaTemplate(PUBLISHED["mistral_3"].source, VARIABLES)
    assert _by_roles(mistral, _talk("system", "user", "assistant", "user")) == (
        '<s>[INST] Be brief.\n\n2+2?[/INST] 4, I think.</s>[INST] And {"a": "<b>"} 날씨?[/INST] '
    )


def test_reasoning_models_whose_history_has_no_thoughts() -> None:
    qwen = JinjaTemplate(PUBLISHED["qwen_3"].source)
    assert _by_roles(qwen, _talk("user", "assistant", "user")) == (
        "<|im_start|>user\nBe brief.<|im_end|>\n<|im_start|>assistant\n2+2?<|im_end|>\n"
        "<|im_start|>user\n4, I think.<|im_end|>\n<|im_start|>assistant\n"
    )
    deepseek = JinjaTemplate(PUBLISHED["deepseek_r1"].source, VARIABLES)
    assert (
        _by_roles(deepseek, _talk("system", "user")) == "<s>Be brief.<｜User｜>2+2?<｜Assistant｜><think>\n"
    )


@pytest.mark.parametrize(
    ("name", "role"), [("gemma_2", "system"), ("mistral_1", "system"), ("phi_3", "tool")]
)
def test_what_a_template_does_not_have_is_an_error(name: str, role: str) -> None:
    with pytest.raises(ChatTemplateError, match=r"role|shows no"):
        JinjaTemplate(PUBLISHED[name].source, VARIABLES).role_affixes([], role)


def test_contents_that_come_twice_are_an_error() -> None:
    template = JinjaTemplate("{% for m in messages %}{{ messages[0].content }}[{{ m.content }}]{% endfor %}")
    with pytest.raises(ChatTemplateError, match="moves contents around"):
        template.role_affixes(_talk("user"), "user")


# -- templates by name --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "published", "bos"),
    [
        ("chatml", "chatml", ""), ("llama-3-instruct", "llama_3", "<s>"), ("phi-4", "phi_4", ""),
        ("zephyr", "zephyr", ""), ("c4ai-command-r", "command_r", "<s>"), ("gemma-it", "gemma_3", "<s>"),
    ],
)  # fmt: skip
def test_named_templates_are_those_of_their_families(named: str, published: str, bos: str) -> None:
    """A beginning-of-sequence token is the tokenizer's to add."""
    theirs = JinjaTemplate(PUBLISHED[published].source, VARIABLES)
    for roles in (USER, LONGER, ("system", *USER), ("system", *LONGER)):
        messages = _talk(*roles)
        whole = theirs.render(messages, add_generation_prompt=True).removeprefix(bos).rstrip()
        ours = get_chat_template(named)
        assert _by_roles(ours, messages).rstrip() == whole == ours.render(messages, True).rstrip()


@pytest.mark.parametrize("name", chat_template_names())
def test_every_named_template_can_be_used(name: str) -> None:
    template = get_chat_template(name)
    assert template.name == name
    for roles in (USER, LONGER, ("system", *LONGER)):
        messages = _talk(*roles)
        text = template.render(messages, add_generation_prompt=True)
        places = [text.index(message["content"]) for message in messages]
        assert places == sorted(places) and text == _by_roles(template, messages)
    with pytest.raises(
        ChatTemplateError, match=f"'{name}' has no role 'pope'; its roles are system, user, assistant"
    ):
        template.role_affixes([], "pope")
    with pytest.raises(ChatTemplateError, match="cannot show tools"):
        template.role_affixes([], "user", TOOLS)


def test_sglangs_interface() -> None:
    llama = get_chat_template("llama-2-chat")
    assert llama.style is ChatTemplateStyle.LLAMA2 and llama.stop_str == ("</s>",)
    assert (
        llama.get_prompt(
            [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "U"},
                {"role": "assistant", "content": "A"},
            ]
        )
        == "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A </s><s>"
    )
    qwen = get_chat_template("qwen")
    assert qwen.get_prompt([{"role": "system", "content": None}]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    )
    assert get_chat_template("chatml").get_prompt([{"role": "system", "content": None}]) == ""
    assert qwen.role_affixes([], "user")[0] == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    ), "the default system message comes before the first one that is none"
    assert (
        qwen.role_affixes([], "system")[0]
        == qwen.role_affixes(_talk("user"), "system")[0]
        == "<|im_start|>system\n"
    )
    with pytest.raises(ChatTemplateError, match="no chat template 'nonsense'; known are"):
        get_chat_template("nonsense")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-chat"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3-instruct"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4"), ("Qwen/Qwen2.5-7B-Instruct", "qwen"),
        ("Qwen/Qwen3-8B", "qwen"), ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("google/gemma-2-9b-it", "gemma-it"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi-3"), ("microsoft/phi-4", "phi-4"),
        ("lmsys/vicuna-7b-v1.5", "vicuna_v1.1"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "default"),
        ("HuggingFaceH4/zephyr-7b-beta", "zephyr"), ("CohereForAI/c4ai-command-r-v01", "c4ai-command-r"),
        ("ibm-granite/granite-3.0-8b-instruct", "granite-3-instruct"), ("THUDM/glm-4-9b-chat", "glm-4"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "chatml"), ("openai-community/gpt2", "default"),
    ],
)  # fmt: skip
def test_families_by_path(path: str, name: str) -> None:
    assert get_chat_template_by_model_path(path).name == name


def test_own_templates_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(_registry), list(_matchers)
    try:
        own = ChatTemplate(
            "own", None, {role: (f"<{role}>", "</>") for role in ("system", "user", "assistant")}
        )
        register_chat_template(own)
        register_chat_template_matching_function(lambda path: "own" if "my-model" in path else None)
        assert get_chat_template_by_model_path("x/my-model-Llama-3-instruct") is own
        tokenizer = Tokenizer(EMBEDDED_MODEL, chat_template="own")
        assert tokenizer.role_affixes([], "user") == ("<user>", "</>")
    finally:
        _registry.clear()
        _registry.update(kept[0])
        _matchers[:] = kept[1]


# -- which one a tokenizer takes ------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The embedded model without its template, under the name of a family."""
    folder = tmp_path / "My-Llama-2-7b-chat"
    folder.mkdir()
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_bytes((EMBEDDED_MODEL / name).read_bytes())
    return folder


def test_b29_a_fallback_is_never_silent(bare: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"My-Llama-2-7b-chat has no chat template .* 'llama-2-chat' .*\[INST\]"
    ):
        assert Tokenizer(bare).role_affixes([], "user") == ("[INST] ", " [/INST]")
    other = bare.rename(bare.with_name("some-base-model"))
    with pytest.warns(UserWarning, match="'default' does it: 'USER:"):
        Tokenizer(other).role_affixes([], "user")


def test_b29_the_models_own_comes_first(bare: Path) -> None:
    named = [("tool_use", "T"), ("default", PUBLISHED["chatml"].source)]
    config = [{"name": name, "template": template} for name, template in named]
    (bare / "tokenizer_config.json").write_text(json.dumps({"chat_template": config}))
    assert Tokenizer(bare).role_affixes([], "user") == ("<|im_start|>user\n", "<|im_end|>\n")
    (bare / "chat_template.jinja").write_text("{% for m in messages %}({{ m.content }}){% endfor %}")
    assert Tokenizer(bare).role_affixes([], "user") == ("(", ")")


def test_a_template_may_be_given(bare: Path) -> None:
    file = bare / "other.jinja"
    file.write_text(PUBLISHED["chatml"].source)
    for given in (file, str(file), PUBLISHED["chatml"].source, "chatml"):
        assert Tokenizer(bare, chat_template=given).role_affixes([], "user") == (
            "<|im_start|>user\n",
            "<|im_end|>\n",
        )
    with pytest.raises(
        ConfigError, match=r"chat_template='chatlm' is no Jinja text, .* names c4ai-command-r, chatml"
    ):
        Tokenizer(bare, chat_template="chatlm")
    with pytest.raises(ChatTemplateError, match="not valid Jinja"):
        Tokenizer(bare, chat_template="{% for %}")


def test_ends_of_messages_are_stops_or_stop_tokens() -> None:
    named = Tokenizer(EMBEDDED_MODEL, chat_template="phi-3")
    assert named.template_stops == ((), tuple(named.encode("<|end|>")))
    assert Tokenizer(EMBEDDED_MODEL, chat_template="chatml").template_stops == (("<|im_end|>",), ())
    assert Tokenizer(EMBEDDED_MODEL).template_stops == ((), ())


def test_texts_without_messages_need_no_template_and_no_warning(bare: Path) -> None:
    tokenizer = Tokenizer(bare)
    assert tokenizer.template_stops == ((), ())
    with pytest.warns(UserWarning, match="no chat template"):
        tokenizer.role_affixes([], "user")
    assert tokenizer.template_stops == (("</s>",), ())
