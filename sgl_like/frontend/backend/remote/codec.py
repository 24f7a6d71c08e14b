r"""Prompts of engines whose tokens we do not know: private ids that stand for text, and what they say when read back.

Such an engine takes text or messages. An id is therefore a character: its code point, plus `TRUSTED` if the text is
trusted. No table has to remember anything, whatever is sampled can be written down, and text of a user cannot become
the markup of a message, because markup is only looked for among trusted characters.

    <|user turn|>\n     Hi            <|end of turn|>\n<|assistant turn|>\n     It is
    trusted             not trusted   trusted                                not trusted, the message being written
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Segment

__all__ = ["Chat", "PlainText", "Prompt", "Tokens", "Turn", "decode", "encode", "read", "turn_affixes"]

TRUSTED = 1 << 21  # above every code point
_MARK = re.compile(r"<\|([A-Za-z_][\w-]*) turn\|>\n|<\|end of turn\|>\n")


class Turn(NamedTuple):
    """A completed message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class PlainText:
    """A prompt without messages, to be continued as it is."""

    text: str

    def extended(self, text: str) -> PlainText:
        """The same with more text at its end."""
        return PlainText(self.text + text)


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages, and what is already written of the assistant's next one."""

    turns: tuple[Turn, ...]
    begun: str = ""

    def extended(self, text: str) -> Chat:
        """The same with more text in the open message."""
        return Chat(self.turns, self.begun + text)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt in the engine's own token ids."""

    ids: tuple[int, ...]


Prompt = PlainText | Chat | Tokens


def turn_affixes(role: str) -> tuple[str, str]:
    """The markup of a message whose real markup is added by the server."""
    return f"<|{role} turn|>\n", "<|end of turn|>\n"


def encode(segments: Iterable[Segment]) -> list[int]:
    """Private ids of text."""
    ids: list[int] = []
    for text, trusted, _ in segments:
        ids.extend([ord(char) + TRUSTED for char in text] if trusted else map(ord, text))
    return ids


def decode(ids: Sequence[int]) -> list[Segment]:
    """The text of private ids, in the longest segments of one kind."""
    return [
        Segment("".join(chr(token - TRUSTED if trusted else token) for token in run), trusted)
        for trusted, run in groupby(ids, key=lambda token: token >= TRUSTED)
    ]


def read(ids: Sequence[int]) -> PlainText | Chat:
    """What a prompt amounts to: text, or messages if it has the markup of any.

    Raises:
        RequestError: text stands between messages, or the prompt does not end in a message of the assistant.
    """
    segments = decode(ids)
    if not any(trusted and _MARK.search(text) for text, trusted, _ in segments):
        return PlainText("".join(text for text, *_ in segments))
    turns: list[Turn] = []
    role: str | None = None
    content = ""
    for text, trusted, _ in segments:
        position = 0
        for mark in _MARK.finditer(text) if trusted else ():
            content = _added(role, content, text[position : mark.start()])
            position = mark.end()
            if mark[1] is None and role is not None:
                turns.append(Turn(role, content))
            role, content = mark[1], ""
        content = _added(role, content, text[position:])
    if role != "assistant":
        where = f"inside the {role} message" if role else "after the last message"
        raise RequestError(
            f"a chat endpoint answers in an assistant message, not {where}; put the gen into sgl.assistant(...)"
        )
    return Chat(tuple(turns), content)


def _added(role: str | None, content: str, text: str) -> str:
    if role is None and text.strip():
        raise RequestError(
            f"text between messages cannot be sent to a chat endpoint: {text.strip()[:60]!r};"
            " put it into a message, e.g. sgl.user(...)"
        )
    return content + text if role else ""
