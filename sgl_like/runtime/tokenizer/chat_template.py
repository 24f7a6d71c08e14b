"""A model's own Jinja chat template, rendered in a sandbox, whole or role by role.

A program opens and closes roles one at a time, while a template renders whole conversations. `role_affixes` asks
the template about a conversation whose contents are placeholders, and reads off what it puts around the newest one:

    <s>[user] A [/user]                 the conversation so far        (A, B: placeholders)
    <s>[user] A [/user][bot] B [/bot]   with the next message
                       ^^^^^^ ^^^^^^^
                       prefix suffix
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sgl_like.errors import ChatTemplateError

Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled template.

    Args:
        source: Jinja text, as in ``tokenizer_config.json``.
        variables: names that templates expect, such as ``bos_token``.

    Raises:
        ChatTemplateError: the template is not valid Jinja.
    """

    def __init__(self, source: str, variables: Mapping[str, Any] | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._variables = dict(variables or {})
        self._affixes: dict[tuple[str, ...], tuple[str, str]] = {}
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"chat template is not valid Jinja: {error}") from error

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False, **extra: Any) -> str:
        """The prompt of a whole conversation.

        Raises:
            ChatTemplateError: the template refuses the messages (an unknown role, say) or fails.
        """
        try:
            return self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                **{**self._variables, **extra},
            )
        except ChatTemplateError:
            raise
        except Exception as error:  # templates are foreign code: whatever they raise is theirs
            raise ChatTemplateError(f"chat template failed: {type(error).__name__}: {error}") from error

    def role_affixes(self, messages: Sequence[Message], role: str) -> tuple[str, str]:
        """Text before and after the content of the next message, which has this role.

        Only the roles of `messages` matter, not their contents. For the role ``"assistant"`` the prefix is the
        template's generation prompt, so that what follows is what the model was trained to continue.

        Raises:
            ChatTemplateError: the template refuses the order of roles or moves contents around.
        """
        roles = (*(str(m["role"]) for m in messages), role)
        if roles not in self._affixes:
            self._affixes[roles] = self._find_affixes(roles)
        return self._affixes[roles]

    def _find_affixes(self, roles: tuple[str, ...]) -> tuple[str, str]:
        contents = [f"\u2063content{i}\u2063" for i in range(len(roles))]
        conversation = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        full = self.render(conversation)
        at = full.find(contents[-1])
        if at < 0:
            raise ChatTemplateError(
                f"the chat template shows no {roles[-1]!r} message after {list(roles[:-1])}; "
                "write the prompt as plain text instead of using roles"
            )
        suffix = full[at + len(contents[-1]) :]
        if len(roles) == 1:
            return full[:at], suffix
        before = self.render(conversation[:-1])
        last = contents[-2]
        closing = before[before.find(last) + len(last) :]  # already written when that role ended
        start = full.find(last) + len(last)
        prefix = full[start + len(closing) : at] if full.startswith(closing, start) else full[start:at]
        if roles[-1] == "assistant":
            opened = self.render(conversation[:-1], add_generation_prompt=True)
            if opened.startswith(before) and len(opened) > len(before):
                prefix = opened[len(before) :]
        return prefix, suffix


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise ChatTemplateError(f"chat template: {message}")
