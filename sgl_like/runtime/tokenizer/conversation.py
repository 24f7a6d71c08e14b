"""Whole conversations to token ids, where only the chat template makes special tokens, never what somebody wrote.

A template sees messages as they are, but for what would be read as a special token in them:

    content            hi <|end|>          what the template gets      hi ⟪0⟫
    rendered           <|user|>hi ⟪0⟫<|end|><|assistant|>
    segments           "<|user|>hi " trusted, "<|end|>" not trusted, "<|end|><|assistant|>" trusted

The borders of a content are marked, too, where it could become a special token together with the text beside it.
So templates may trim, compare and cut contents as they like, and get what they would get in any other engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sgl_like.errors import ChatTemplateError
from sgl_like.runtime.tokenizer.chat_template import Message
from sgl_like.runtime.tokenizer.guard import RenderLimits
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["ConversationEncoder"]

_OPEN, _CLOSE, _BORDER, _END = "\U0010fff0", "\U0010fff1", "\U0010fff2", "\U0010fff3"  # private to us
_WORDS = frozenset({"role", "type"})  # keys whose values are words of the format, which templates compare
_MARKS = re.compile(f"{_OPEN}([0-9]+){_CLOSE}|[{_OPEN}-{_END}]")


class ConversationEncoder:
    """For one tokenizer and its chat template.

    Args:
        tokenizer: whose template renders.
        limits: on one rendering.
    """

    def __init__(self, tokenizer: Tokenizer, limits: RenderLimits | None = None) -> None:
        self._tokenizer = tokenizer
        self._limits = limits or RenderLimits()
        specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join([*map(re.escape, specials), f"[{_OPEN}-{_END}]"]))
        self._begins = {each[:size] for each in specials for size in range(1, len(each))}
        self._ends = {each[size:] for each in specials for size in range(1, len(each))}
        self._inner = "\0".join(specials)
        self._longest = max(map(len, specials), default=0)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation.

        Args:
            messages: in OpenAI's format; contents are strings or ``None``.
            tools: functions for the template to show, in OpenAI's format.
            add_generation_prompt: whether the beginning of an answer comes last.
            continue_final_message: the last message is left open, for the model to go on with.
            variables: others that the template may use.

        Raises:
            ChatTemplateError: the template refuses the conversation, fails, or takes too long.
            RequestError: a text has a lone surrogate.
        """
        pieces = self.segments(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        return self._tokenizer.encode_segments(pieces)

    def segments(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[tuple[str, bool]]:
        """The same as text, and what of it is trusted: see `Tokenizer.encode_segments`."""
        hidden: list[str] = []
        shown = [self._hide(message, hidden) for message in messages]
        if continue_final_message:
            shown[-1] = {**shown[-1], "content": f"{shown[-1].get('content') or ''}{_END}"}
        text = self._tokenizer.chat_template.render(
            shown,
            add_generation_prompt and not continue_final_message,
            limits=self._limits,
            tools=self._hide(list(tools), hidden) if tools else None,
            **(variables or {}),
        )
        if continue_final_message:
            text, found, _ = text.rpartition(_END)
            if not found:
                raise ChatTemplateError(
                    "the chat template does not show the last message, so it cannot go on"
                )
        return list(_segments(text, hidden))

    def _hide(self, value: Any, hidden: list[str]) -> Any:
        """A value whose texts have no special tokens in them; these are added to `hidden`."""
        if isinstance(value, str):
            return self._with_borders(self._hide_text(value, hidden))
        if isinstance(value, Mapping):
            return {
                self._hide_text(key, hidden): each if key in _WORDS else self._hide(each, hidden)
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._hide(each, hidden) for each in value]
        return value

    def _hide_text(self, text: str, hidden: list[str]) -> str:
        if self._special.search(text) is None:
            return text

        def hide(match: re.Match[str]) -> str:
            hidden.append(match[0])
            return f"{_OPEN}{len(hidden) - 1}{_CLOSE}"

        return self._special.sub(hide, text)

    def _with_borders(self, text: str) -> str:
        core = text.strip()
        if not core:
            return text
        inner = len(core) < self._longest and core in self._inner
        sizes = range(1, min(self._longest, len(core) + 1))
        starts = inner or any(core[:size] in self._ends for size in sizes)
        ends = inner or any(core[-size:] in self._begins for size in sizes)
        if not starts and not ends:
            return text
        before, _, after = text.partition(core)
        return f"{before}{_BORDER if starts else ''}{core}{_BORDER if ends else ''}{after}"


def _segments(text: str, hidden: Sequence[str]) -> Iterator[tuple[str, bool]]:
    at = 0
    for mark in _MARKS.finditer(text):
        if mark.start() > at:
            yield text[at : mark.start()], True
        at = mark.end()
        if mark[1] is not None and int(mark[1]) < len(hidden):
            yield hidden[int(mark[1])], False
    if at < len(text):
        yield text[at:], True
