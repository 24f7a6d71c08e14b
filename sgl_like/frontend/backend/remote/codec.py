r"""Prompts of engines whose tokens we do not know: private ids that stand for text, and what they say when read back.

Such an engine takes text or messages. An id is therefore a character: its code point, plus `TRUSTED` if the text is
trusted. No table has to remember anything, whatever is sampled can be written down, and text of a user cannot become
the markup of a message, because markup is only looked for among trusted characters. A picture is one id, which brings
it along.

    <|user turn|>\n     Hi            <|end of turn|>\n<|assistant turn|>\n     It is
    trusted             not trusted   trusted                                not trusted, the message being written
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Picture, Segment

__all__ = [
    "Chat",
    "Content",
    "PlainText",
    "Prompt",
    "Tokens",
    "Turn",
    "decode",
    "encode",
    "read",
    "turn_affixes",
]

TRUSTED = 1 << 21  # above every code point
_MARK = re.compile(r"<\|([A-Za-z_][\w-]*) turn\|>\n|<\|end of turn\|>\n")


Content = str | tuple[str | Picture, ...]
"""Of a message: text, or with pictures in it the parts in order."""


class Turn(NamedTuple):
    """A completed message."""

    role: str
    content: Content


class PictureId(int):
    """The id of a picture: a digest of it, above those of characters."""

    picture: Picture

    @classmethod
    def of(cls, picture: Picture) -> PictureId:
        """The same for equal pictures."""
        digest = hashlib.blake2b(picture.mime.encode() + b"\0" + picture.data, digest_size=8).digest()
        token = cls(2 * TRUSTED + int.from_bytes(digest, "big"))
        token.picture = picture
        return token


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
    for text, trusted, picture in segments:
        if picture is not None:
            ids.append(PictureId.of(picture))
            continue
        ids.extend([ord(char) + TRUSTED for char in text] if trusted else map(ord, text))
    return ids


def decode(ids: Sequence[int]) -> list[Segment]:
    """The text of private ids, in the longest segments of one kind, and pictures."""
    segments: list[Segment] = []
    for is_marked, run in groupby(
        ids, key=TRUSTED.__le__
    ):  # a prompt is long: no Python code for each character
        if not is_marked:
            segments.append(Segment("".join(map(chr, run)), False))
            continue
        for is_picture, marked in groupby(run, key=(2 * TRUSTED).__le__):
            if is_picture:
                segments += [
                    Segment("", False, token.picture) for token in marked if isinstance(token, PictureId)
                ]
            else:
                segments.append(Segment("".join([chr(token - TRUSTED) for token in marked]), True))
    return segments


def read(ids: Sequence[int]) -> PlainText | Chat:
    """What a prompt amounts to: text, or messages if it has the markup of any.

    Raises:
        RequestError: text stands between messages, or the prompt does not end in a message of the assistant.
    """
    segments = decode(ids)
    if not any(trusted and _MARK.search(text) for text, trusted, _ in segments):
        if any(segment.picture is not None for segment in segments):
            raise RequestError("an image can only be sent in a message; put it into sgl.user(...)")
        return PlainText("".join(text for text, *_ in segments))
    turns: list[Turn] = []
    role: str | None = None
    content: list[str | Picture] = []
    for text, trusted, picture in segments:
        position = 0
        if picture is not None:
            content.append(picture)
        for mark in _MARK.finditer(text) if trusted else ():
            _add(content, role, text[position : mark.start()])
            position = mark.end()
            if mark[1] is None and role is not None:
                turns.append(Turn(role, _content(content)))
            role, content = mark[1], []
        _add(content, role, text[position:])
    if role != "assistant":
        where = f"inside the {role} message" if role else "after the last message"
        raise RequestError(
            f"a chat endpoint answers in an assistant message, not {where}; put the gen into sgl.assistant(...)"
        )
    begun = _content(content)
    if not isinstance(begun, str):
        raise RequestError(
            "an image cannot be in the message that the model writes; put it into sgl.user(...)"
        )
    return Chat(tuple(turns), begun)


def _content(parts: Sequence[str | Picture]) -> Content:
    """Neighbouring texts joined."""
    joined: list[str | Picture] = [""]
    for part in parts:
        if isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    if len(joined) == 1 and isinstance(joined[0], str):
        return joined[0]
    return tuple(part for part in joined if part != "")


def _add(content: list[str | Picture], role: str | None, text: str) -> None:
    if role is None and text.strip():
        raise RequestError(
            f"text between messages cannot be sent to a chat endpoint: {text.strip()[:60]!r};"
            " put it into a message, e.g. sgl.user(...)"
        )
    if role and text:
        content.append(text)
