"""Chat templates by name, for models that have none of their own: a prefix and a suffix for each role.

The interface is SGLang's: `ChatTemplate` values in a registry, chosen by name or by the path of a model. A model's own
Jinja template (`sgl_like.runtime.tokenizer.chat_template`) goes before all of these. A beginning-of-sequence token is
the tokenizer's matter and not in here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from sgl_like.errors import ChatTemplateError

__all__ = [
    "ChatTemplate",
    "ChatTemplateStyle",
    "chat_template_names",
    "get_chat_template",
    "get_chat_template_by_model_path",
    "register_chat_template",
    "register_chat_template_matching_function",
]

Affixes = tuple[str, str]
Message = Mapping[str, Any]


class ChatTemplateStyle(Enum):
    """``LLAMA2``: a system message at the beginning is a part of the first user message."""

    PLAIN = auto()
    LLAMA2 = auto()


@dataclass(frozen=True)
class ChatTemplate:
    """What stands around the messages of each role.

    Args:
        name: in the registry.
        default_system_prompt: content of a system message that comes first if the program gives none.
        role_prefix_and_suffix: text before and after a message, by role.
        stop_str: strings that end what the model writes.
        image_token: stands for an image.
        audio_token: stands for a sound.
        style: see `ChatTemplateStyle`.
    """

    name: str
    default_system_prompt: str | None
    role_prefix_and_suffix: Mapping[str, Affixes]
    stop_str: Sequence[str] = ()
    image_token: str = "<image>"
    audio_token: str = "<audio>"
    style: ChatTemplateStyle = field(default=ChatTemplateStyle.PLAIN)

    def get_prefix_and_suffix(self, role: str, hist_messages: Sequence[Message]) -> Affixes:
        """Text around the next message, of `role`, after `hist_messages`.

        Raises:
            ChatTemplateError: the template has no such role.
        """
        known = self.role_prefix_and_suffix
        if role not in known:
            raise ChatTemplateError(
                f"chat template {self.name!r} has no role {role!r}; its roles are {', '.join(known)}"
            )
        prefix, suffix = known[role]
        if self.style is ChatTemplateStyle.LLAMA2:
            if role == "system" and not hist_messages:
                return known["user"][0] + prefix, suffix
            if role == "user" and [each["role"] for each in hist_messages] == ["system"]:
                return "", suffix
        return prefix, suffix

    def role_affixes(
        self, messages: Sequence[Message], role: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Affixes:
        """Text before and after the content of the next message; the default system message is in the first one's.

        Raises:
            ChatTemplateError: the template has no such role, or tools are given, of which it knows nothing.
        """
        if tools:
            raise ChatTemplateError(f"chat template {self.name!r} cannot show tools")
        if self.default_system_prompt is None or any(each["role"] == "system" for each in messages):
            return self.get_prefix_and_suffix(role, messages)
        system: Message = {"role": "system", "content": self.default_system_prompt}
        if role == "system" and not messages:
            return self.get_prefix_and_suffix(role, ())
        prefix, suffix = self.get_prefix_and_suffix(role, (system, *messages))
        if messages:
            return prefix, suffix
        before, after = self.get_prefix_and_suffix("system", ())
        return before + self.default_system_prompt + after + prefix, suffix

    def get_prompt(self, messages: Sequence[Message]) -> str:
        """The prompt of these messages and nothing else; a system message of ``None`` is the default one.

        Raises:
            ChatTemplateError: a message has a role that the template does not have.
        """
        text = ""
        for at, message in enumerate(messages):
            content = message["content"]
            if content is None and message["role"] == "system":
                content = self.default_system_prompt
            prefix, suffix = self.get_prefix_and_suffix(message["role"], messages[:at])
            text += "" if content is None else prefix + content + suffix
        return text

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False, **extra: Any) -> str:
        """The prompt of a whole conversation, as the roles one by one make it.

        Raises:
            ChatTemplateError: as from `role_affixes`.
        """
        tools, text = extra.get("tools") or (), ""
        for at, message in enumerate(messages):
            prefix, suffix = self.role_affixes(messages[:at], message["role"], tools)
            content = message["content"]
            text += f"{prefix}{'' if content is None else content}{suffix}"
        if add_generation_prompt:
            text += self.role_affixes(messages, "assistant", tools)[0]
        return text


_registry: dict[str, ChatTemplate] = {}
_matchers: list[Callable[[str], str | None]] = []


def register_chat_template(template: ChatTemplate) -> None:
    """Make `template` known by its name, in place of one that has it now."""
    _registry[template.name] = template


def register_chat_template_matching_function(
    func: Callable[[str], str | None],
) -> Callable[[str], str | None]:
    """Have `func` asked for the name of the template of a model path, before those registered earlier. A decorator."""
    _matchers.insert(0, func)
    return func


def chat_template_names() -> list[str]:
    """The names that `get_chat_template` knows."""
    return sorted(_registry)


def get_chat_template(name: str) -> ChatTemplate:
    """The template of that name.

    Raises:
        ChatTemplateError: there is none.
    """
    if name not in _registry:
        known = ", ".join(chat_template_names())
        raise ChatTemplateError(f"there is no chat template {name!r}; known are {known}")
    return _registry[name]


def get_chat_template_by_model_path(model_path: str) -> ChatTemplate:
    """The template of the family that the path's text names; ``"default"`` if it names none."""
    names = (name for match in _matchers if (name := match(model_path)) is not None)
    return get_chat_template(next(names, "default"))


_THREE = ("system", "user", "assistant")


def _add(
    name: str,
    roles: Sequence[Affixes],
    matching: str | None = None,
    tool: Affixes | None = None,
    **options: Any,
) -> None:
    affixes = dict(zip(_THREE, roles, strict=True)) | ({"tool": tool} if tool else {})
    default = options.pop("default_system_prompt", None)
    register_chat_template(ChatTemplate(name, default, affixes, **options))
    if matching is not None:
        pattern = re.compile(matching, re.IGNORECASE)
        register_chat_template_matching_function(lambda path: name if pattern.search(path) else None)


def _tagged(before: str, after: str, end: str, roles: Sequence[str]) -> list[Affixes]:
    """``before + role + after`` ... ``end`` for each role."""
    return [(before + role + after, end) for role in roles]


_CHATML = _tagged("<|im_start|>", "\n", "<|im_end|>\n", _THREE)
_HEADER = _tagged("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", _THREE)

# Later ones are asked first, so a narrower pattern stands below a wider one.
_add("default", [("SYSTEM:", "\n"), ("USER:", "\n"), ("ASSISTANT:", "\n")])
_add(
    "chatml",
    _CHATML,
    stop_str=("<|im_end|>",),
    matching=r"chatml|tinyllama.*chat|openhermes|smollm|internlm2",
)
_add(
    "qwen", _CHATML, stop_str=("<|im_end|>",), matching=r"qwen.*(chat|instruct)|qwen3|qwq",
    default_system_prompt="You are a helpful assistant.",
)  # fmt: skip
_add("yi", _CHATML, stop_str=("<|im_end|>",), matching=r"\byi-.*chat")
_add(
    "vicuna_v1.1", [("", " "), ("USER: ", " "), ("ASSISTANT:", "</s>")], stop_str=("</s>",),
    matching=r"vicuna|llava-v1\.5|llava-next-video-7b",
    default_system_prompt=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
        " and polite answers to the user's questions."
    ),
)  # fmt: skip
_add(
    "llama-2-chat", [("<<SYS>>\n", "\n<</SYS>>\n\n"), ("[INST] ", " [/INST]"), ("", " </s><s>")],
    stop_str=("</s>",), style=ChatTemplateStyle.LLAMA2, matching=r"llama-2.*chat|codellama.*instruct",
)  # fmt: skip
_add(
    "mistral", [("", "\n\n"), ("[INST] ", " [/INST]"), ("", "</s>")],
    stop_str=("</s>",), style=ChatTemplateStyle.LLAMA2, matching=r"(mistral|mixtral|ministral).*instruct",
)  # fmt: skip
_add(
    "llama-3-instruct", _HEADER, stop_str=("<|eot_id|>",), matching=r"llama-?3.*instruct",
    tool=("<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"),
)  # fmt: skip
_add(
    "llama-4", _tagged("<|header_start|>", "<|header_end|>\n\n", "<|eot|>", _THREE), stop_str=("<|eot|>",),
    tool=("<|header_start|>ipython<|header_end|>\n\n", "<|eot|>"), matching=r"llama-?4",
)  # fmt: skip
_add(
    "gemma-it",
    [("", "\n\n"), ("<start_of_turn>user\n", "<end_of_turn>\n"), ("<start_of_turn>model\n", "<end_of_turn>\n")],
    stop_str=("<end_of_turn>",), matching=r"gemma.*it\b",
    style=ChatTemplateStyle.LLAMA2,
)  # fmt: skip
_add(
    "phi-3", _tagged("<|", "|>\n", "<|end|>\n", _THREE), stop_str=("<|end|>",), matching=r"phi-3|phi-4-mini",
)  # fmt: skip
_add(
    "phi-4", _tagged("<|im_start|>", "<|im_sep|>", "<|im_end|>", _THREE), stop_str=("<|im_end|>",),
    matching=r"phi-4(?!-mini)",
)  # fmt: skip
_add(
    "deepseek-v3", [("", ""), ("<｜User｜>", ""), ("<｜Assistant｜>", "<｜end▁of▁sentence｜>")],
    stop_str=("<｜end▁of▁sentence｜>",), matching=r"deepseek-(v3|r1)(?!.*distill)",
)  # fmt: skip
_add("zephyr", _tagged("<|", "|>\n", "</s>\n", _THREE), stop_str=("</s>",), matching=r"zephyr")
_add(
    "c4ai-command-r",
    _tagged("<|START_OF_TURN_TOKEN|><|", "_TOKEN|>", "<|END_OF_TURN_TOKEN|>", ("SYSTEM", "USER", "CHATBOT")),
    stop_str=("<|END_OF_TURN_TOKEN|>",), matching=r"command-r",
)  # fmt: skip
_add(
    "granite-3-instruct", _tagged("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>\n", _THREE),
    stop_str=("<|end_of_text|>",), matching=r"granite.*instruct",
)  # fmt: skip
_add(
    "glm-4", [("<|system|>\n", ""), ("<|user|>\n", ""), ("<|assistant|>\n", "")],
    tool=("<|observation|>\n", ""), stop_str=("<|user|>", "<|observation|>"), matching=r"glm-4",
)  # fmt: skip
_add("dbrx-instruct", _CHATML, stop_str=("<|im_end|>",), matching=r"dbrx.*instruct")
