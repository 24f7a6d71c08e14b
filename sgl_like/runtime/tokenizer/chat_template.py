"""A model's own Jinja chat template, rendered in a sandbox, whole or role by role.

A program opens and closes roles one at a time, while a template renders whole conversations. `role_affixes` asks
the template about a conversation whose contents are placeholders, and reads off what it puts around the newest one:

    <s>[user] A [/user]                 the conversation so far        (A, B: placeholders)
    <s>[user] A [/user][bot] B [/bot]   with the next message
                       ^^^^^^ ^^^^^^^
                       prefix suffix
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

import jinja2
from jinja2.ext import loopcontrols

from sgl_like.errors import ChatTemplateError
from sgl_like.runtime.tokenizer.guard import GUARD, Guard, GuardedEnvironment, RenderLimits
from sgl_like.runtime.tokenizer.tool_form import is_part_of_answer

Message = Mapping[str, Any]


class JinjaTemplate:
    """A compiled template.

    Args:
        source: Jinja text, as in ``tokenizer_config.json``.
        variables: names that templates expect, such as ``bos_token``.

    Raises:
        ChatTemplateError: the template is not valid Jinja.
    """

    def __init__(self, source: str, variables: Mapping[str, Any] | None = None) -> None:
        environment = GuardedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.source = source
        self._variables = dict(variables or {})
        self._affixes: dict[str, _Affixes] = {}  # by tools
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"chat template is not valid Jinja: {error}") from error

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        *,
        limits: RenderLimits | None = None,
        **extra: Any,
    ) -> str:
        """The prompt of a whole conversation.

        Args:
            messages: the conversation.
            add_generation_prompt: whether the beginning of an answer comes last.
            limits: on what it takes; ``None``: the template is trusted.
            extra: other variables of the template.

        Raises:
            ChatTemplateError: the template refuses the messages (an unknown role, say), fails, or takes too much.
        """
        given = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        values = {"tools": None, "documents": None, **self._variables, **extra, **given}
        try:
            if limits is None:
                return self._template.render(values)
            guard = Guard(limits)
            return guard.join(self._template.generate(values | {GUARD: guard}))
        except ChatTemplateError:
            raise
        except Exception as error:  # templates are foreign code: whatever they raise is theirs
            raise ChatTemplateError(f"chat template failed: {type(error).__name__}: {error}") from error

    def role_affixes(
        self, messages: Sequence[Message], role: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, str]:
        """Text before and after the content of the next message, which has this role.

        Only the roles of `messages` matter, not their contents. For the role ``"assistant"`` the prefix is the
        template's generation prompt, so that what follows is what the model was trained to continue. `tools` (JSON
        descriptions of functions) are shown where the template shows them. Calls of functions and their results count
        as the beginning of the answer that comes after them.

        Raises:
            ChatTemplateError: the template refuses the order of roles or moves contents around.
        """
        roles = tuple(str(m["role"]) for m in messages if not is_part_of_answer(m))
        key = json.dumps(list(tools)) if tools else ""
        affixes = self._affixes.setdefault(key, _Affixes(self, tools))
        return affixes.of((*roles, role))


class _Affixes:
    """What a template puts around contents, by the roles so far. Contents are placeholders.

    Some templates show a message only together with the next one (Llama 2 puts the system message into the user's):
    such a message has no suffix, and what ends it is in the prefix of the next.
    """

    def __init__(self, template: JinjaTemplate, tools: Sequence[Mapping[str, Any]]) -> None:
        self._template = template
        self._extra: dict[str, Any] = {"tools": list(tools)} if tools else {}
        self._known: dict[tuple[str, ...], tuple[str, str]] = {}

    def of(self, roles: tuple[str, ...]) -> tuple[str, str]:
        """Prefix and suffix of the content of the last role."""
        for count in range(1, len(roles) + 1):  # from the first on, as each builds on those before it
            if roles[:count] not in self._known:
                self._known[roles[:count]] = self._find(roles[:count])
        return self._known[roles]

    def _find(self, roles: tuple[str, ...]) -> tuple[str, str]:
        own = _placeholder(len(roles) - 1)
        full = self._shown(roles)
        at = full.index(own)
        prefix, suffix = self._new(roles, full[:at]), self._suffix(roles, full[at + len(own) :])
        if roles[-1] == "assistant":
            with contextlib.suppress(ChatTemplateError):  # some cannot show a conversation without messages
                prefix = self._new(roles, self._render(roles[:-1], opening=True)) or prefix
        if _MARK in prefix + suffix:  # contents come again, or at another place than they did
            if "system" not in roles[:-1]:
                raise ChatTemplateError(f"the chat template moves contents around in {list(roles)}")
            return self.of(tuple(role for role in roles[:-1] if role != "system") + roles[-1:])
        return prefix, suffix

    def _shown(self, roles: tuple[str, ...]) -> str:
        """The conversation as the template shows it, with all contents; perhaps cut off after the last one."""
        own, failure = _placeholder(len(roles) - 1), None
        try:
            full = self._render(roles)
            if own in full:
                return full
        except ChatTemplateError as error:
            failure = error
        if roles[-1] != "user":
            with contextlib.suppress(ChatTemplateError):
                ahead = self._render((*roles, "user"))
                at = ahead.find(own)
                if 0 <= at < ahead.find(_placeholder(len(roles))):
                    return ahead[: at + len(own)]
        raise failure or ChatTemplateError(
            f"the chat template shows no {roles[-1]!r} message after {list(roles[:-1])}; "
            "write the prompt as plain text instead of using roles"
        )

    def _new(self, roles: tuple[str, ...], shown: str) -> str:
        """What `shown`, the text up to the last content, has that is not written yet."""
        written = self._written(roles[:-1])
        if shown.startswith(written) or len(roles) == 1:
            return shown[len(written) :]
        last = _placeholder(
            len(roles) - 2
        )  # the template shows earlier messages otherwise now: look from the last one
        after = shown[shown.find(last) + len(last) :]
        return after[len(_common([self._known[roles[:-1]][1], after])) :]

    def _suffix(self, roles: tuple[str, ...], shown: str) -> str:
        """What of `shown`, the text after the last content, comes whatever follows: some templates end a conversation
        with an end-of-sequence token, and put several tools' messages into one.
        """
        own, tails = _placeholder(len(roles) - 1), [shown]
        more = (*roles, "tool") if roles[-1] == "tool" else roles
        for longer, opening in ((roles, True), (more, False)):
            with contextlib.suppress(ChatTemplateError):
                _, found, after = self._render(longer, opening).partition(own)
                tails += [after] if found else []
        return _common(tails)

    def _written(self, roles: tuple[str, ...]) -> str:
        """The text of a conversation as its affixes have put it together."""
        text = ""
        for at in range(len(roles)):
            prefix, suffix = self._known[roles[: at + 1]]
            text += prefix + _placeholder(at) + suffix
        return text

    def _render(self, roles: tuple[str, ...], opening: bool = False) -> str:
        messages = [{"role": role, "content": _placeholder(at)} for at, role in enumerate(roles)]
        return self._template.render(messages, add_generation_prompt=opening, **self._extra)


_MARK = "\u2063"  # an invisible character


def _common(texts: list[str]) -> str:
    """What texts begin with, all of the first one or up to the end of some markup."""
    equal = takewhile(lambda chars: len(set(chars)) == 1, zip(*texts, strict=False))
    common = "".join(chars[0] for chars in equal)
    return common if common == texts[0] else common[: max(common.rfind(end) for end in ">]\n") + 1]


def _placeholder(at: int) -> str:
    return f"{_MARK}content{at}{_MARK}"


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As `transformers` has it; Jinja's own would escape what HTML does."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise ChatTemplateError(f"chat template: {message}")
