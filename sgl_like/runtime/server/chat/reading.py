"""Telling an answer's parts apart while its text arrives: reasoning, text, and calls of functions.

    Let me see.</think>Sure.<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>
    reasoning          text            call    f                  arguments

Every character is looked at a constant number of times. Text that may become markup is held back until that is decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from sgl_like.runtime.reasoning import Splitter
from sgl_like.runtime.server.chat.forms import CallForm

_STRUCTURE = re.compile(r'["\\{}\[\]]')
_SLICE = 4096  # characters that are looked at together
_BLANKS = 256  # that are held back


class Said(NamedTuple):
    """Some of an answer.

    Args:
        kind: ``"call"`` begins a call, and `text` is the function's name; ``"arguments"`` are more of its JSON.
        text: never empty.
        call: which call it belongs to, counted from 0.
    """

    kind: Literal["text", "reasoning", "call", "arguments"]
    text: str
    call: int = 0


class AnswerReader:
    """Reads one answer.

    Args:
        form: how calls look; ``None``: there are none.
        names: of the functions.
        splitter: tells reasoning apart; ``None``: there is none.
    """

    def __init__(
        self, form: CallForm | None = None, names: Sequence[str] = (), splitter: Splitter | None = None
    ) -> None:
        self._calls = None if form is None else _CallReader(form, names)
        self._splitter = splitter

    @property
    def plain(self) -> bool:
        """Whether everything is text."""
        return self._calls is None and self._splitter is None

    @property
    def held(self) -> int:
        """Characters of calls, or before them, that are held back."""
        return 0 if self._calls is None else self._calls.held

    @property
    def calls(self) -> int:
        """How many calls there were so far."""
        return 0 if self._calls is None else self._calls.count

    def feed(self, text: str, final: bool = False) -> list[Said]:
        """What `text` adds; `final`: no more will come."""
        if self._splitter is None:
            return self._read(text, final)
        said: list[Said] = []
        for part in self._splitter.feed(text, final):
            said += [Said("reasoning", part.text)] if part.is_reasoning else self._read(part.text, False)
        return said + self._read("", final) if final else said

    def _read(self, text: str, final: bool) -> list[Said]:
        if self._calls is None:
            return [Said("text", text)] if text else []
        if len(text) <= _SLICE:
            return list(self._calls.feed(text, final))
        ends = range(_SLICE, len(text) + _SLICE, _SLICE)
        return [
            said
            for end in ends
            for said in self._calls.feed(text[end - _SLICE : end], final and end >= len(text))
        ]


class _CallReader:
    def __init__(self, form: CallForm, names: Sequence[str]) -> None:
        self._form = form
        self._begins = {f"{form.begin}{name}{form.between}": name for name in names}
        self._held = ""  # not decided, or blanks that may come before a call
        self._depth = 0  # of brackets in the arguments
        self._in_string = self._escaped = False
        self._state: Literal["text", "begin", "arguments", "end"] = "text"
        self._said_text = False
        self.count = 0

    @property
    def held(self) -> int:
        """Characters held back."""
        return len(self._held)

    def feed(self, text: str, final: bool) -> Iterator[Said]:
        self._held += text
        while True:
            state, size = self._state, len(self._held)
            match state:
                case "text":
                    yield from self._text(final)
                case "begin":
                    yield from self._begin(final)
                case "arguments":
                    yield from self._arguments()
                case "end":
                    self._end(final)
            if (state, size) == (self._state, len(self._held)) or not self._held:
                return

    def _text(self, final: bool) -> Iterator[Said]:
        at = self._held.find(self._form.trigger)
        if at >= 0:
            text, self._held = self._held[:at].rstrip(), self._held[at:]
            self._state = "begin"
        elif final:
            text, self._held = self._held, ""
            if not text.strip() and self.count:
                return
        else:
            keep = len(self._held) - _overlap(self._held, self._form.trigger)
            unblank = len(self._held[:keep].rstrip())
            keep = unblank if keep - unblank <= _BLANKS else keep
            text, self._held = self._held[:keep], self._held[keep:]
        if self.count and not self._said_text:
            text = text.lstrip()
        if text:
            self._said_text = True
            yield Said("text", text)

    def _begin(self, final: bool) -> Iterator[Said]:
        for begin, name in self._begins.items():
            if self._held.startswith(begin):
                self._held = self._held[len(begin) :]
                self._state, self._depth, self._in_string = "arguments", 0, False
                self.count += 1
                yield Said("call", name, self.count - 1)
                return
        if final or not any(begin.startswith(self._held) for begin in self._begins):
            text, self._held = self._held, ""  # an output that was cut
            self._state = "text"
            yield Said("text", text)

    def _arguments(self) -> Iterator[Said]:
        text, end = self._held, len(self._held)
        if self._depth == 0 and not self._in_string:
            text = text.lstrip()
            end = len(text)
        at = 0
        if self._escaped and text:
            at, self._escaped = 1, False
        while (found := _STRUCTURE.search(text, at)) is not None:
            char, at = found[0], found.end()
            if char == "\\":
                self._escaped = at == len(text)
                at += 1
            elif char == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if char in "{[" else -1
                if self._depth == 0:
                    end = at
                    self._state = "end"
                    break
        self._held = text[end:]
        if end:
            yield Said("arguments", text[:end], self.count - 1)

    def _end(self, final: bool) -> None:
        end = self._form.end
        if self._held.startswith(end):
            self._held = self._held[len(end) :]
            self._state, self._said_text = "text", False
        elif final or not end.startswith(self._held):
            self._held, self._state = self._held.lstrip() if not final else "", "text"


def _overlap(text: str, mark: str) -> int:
    sizes = range(min(len(text), len(mark) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)
