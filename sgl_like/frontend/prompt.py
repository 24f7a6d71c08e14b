"""The exact prompt of one state: pieces of text, and the token ids the model has seen.

    pieces  [ "<|user|>" | "2+2=" | "<|end|>" | "4" ids=(19,) | " so" | " on" ]
              `------ encoded together -----´    `- as sampled   `- not yet encoded
    ids     [ 1, 50, 10, 50, 28, 2,              19 ]

What was sampled is kept as the ids that were sampled and is never tokenised again. Given text waits until a gen
needs it, and is then encoded in one go, so how a program cuts up its strings makes no difference to the ids.
Only the executor's thread touches a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from sgl_like.frontend.backend.base import Backend, Picture, Segment
from sgl_like.frontend.view.log import GenRecord, Log, SelectRecord
from sgl_like.runtime.reasoning import REASONING_MODELS

__all__ = ["OpenRole", "Piece", "Prompt"]


class Piece(NamedTuple):
    """Some text of a prompt; `ids` if its tokens are fixed, because they were sampled. Or a picture at its place."""

    text: str
    trusted: bool
    ids: tuple[int, ...] | None = None
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class OpenRole:
    """The message being written: its role, where its content starts, and the markup that ends it."""

    role: str
    start: int  # index into Prompt.pieces
    suffix: str


class _Waiting(NamedTuple):
    """The end of an assistant's prefix as long as its content has not begun."""

    before_given: str
    before_model: str


_NOTHING = _Waiting("", "")


class _CopyPoint(NamedTuple):
    """How far a prompt was when it was copied."""

    pieces: int
    messages: int
    role: OpenRole | None


class Prompt:
    """Pieces, their ids as far as encoded, and the messages they amount to."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.ids: list[int] = []
        self.encoded = 0  # self.ids stand for self.pieces[:encoded]
        self.messages: list[dict[str, Any]] = []
        self.role: OpenRole | None = None
        self.waiting = _NOTHING  # the end of the open message's prefix
        self.log = Log()
        self._copied: _CopyPoint | None = None

    def copy(self) -> Prompt:
        """An independent prompt that goes on from here."""
        other = Prompt()
        other.pieces = list(self.pieces)
        other.ids = list(self.ids)
        other.encoded = self.encoded
        other.messages = [dict(message) for message in self.messages]
        other.role = self.role
        other.waiting = self.waiting
        other.log = self.log.child()
        other._copied = _CopyPoint(len(self.pieces), len(self.messages), self.role)
        return other

    def tail(self, length: int) -> str:
        """The last `length` characters."""
        text = ""
        for piece in reversed(self.pieces):
            text = piece.text + text
            if len(text) >= length:
                break
        return text[-length:]

    def append_given(self, text: str) -> str:
        """Text of the program; outside a role, raw prompt text that may hold special tokens. Returns what was added."""
        begun = self.begin_content(given=True)
        self.pieces.append(Piece(text, trusted=self.role is None))
        self.log.given(text, *self._place)
        return begun + text

    def append_markup(self, text: str) -> None:
        """Markup; at the beginning of a message it is no part of the message's content."""
        self.log.given(text, *self._place, markup=True)
        self.pieces.append(Piece(text, trusted=True))
        if self.role is not None and self.role.start == len(self.pieces) - 1:
            self.role = replace(self.role, start=len(self.pieces))

    def append_picture(self, picture: Picture, text: str) -> str:
        """A picture, shown as `text` where there is only text. Returns what was added."""
        begun = self.begin_content(given=True)
        self.pieces.append(Piece(text, trusted=False, picture=picture))
        self.log.given(text, *self._place)
        return begun + text

    def append_pieces(self, pieces: Iterable[Piece]) -> None:
        """Pieces of another prompt; what was sampled there keeps its ids."""
        for piece in pieces:
            self.waiting = _NOTHING
            self.pieces.append(piece)
            self.log.given(piece.text, *self._place)

    def open_role(self, role: str, prefix: str, suffix: str) -> str:
        """Begin a message; `prefix` and `suffix` are the chat template's markup around its content. Returns what was
        added: the end of an assistant's prefix may depend on whether the program or the model writes first.
        """
        if role == "assistant":
            prefix, self.waiting = _divided(prefix)
        self.pieces.append(Piece(prefix, trusted=True))
        if self.waiting != _NOTHING:
            self.pieces.append(Piece("", trusted=True))
        self.role = OpenRole(role, len(self.pieces), suffix)
        self.log.given(prefix, *self._place, markup=True)
        return prefix

    def begin_content(self, given: bool) -> str:
        """Add what waits for the first content of the open message, which is given or the model's; returns it."""
        waiting, self.waiting = self.waiting, _NOTHING
        text = waiting.before_given if given else waiting.before_model
        if text:
            assert self.role is not None, "only messages have one"
            self.pieces[self.role.start - 1] = Piece(text, trusted=True)
            self.log.given(text, *self._place, markup=True)
        return text

    def close_role(self) -> str:
        """End the open message; returns the markup added."""
        assert self.role is not None, "submission checks that a role is open"
        begun = self.begin_content(given=True)
        self.log.given(self.role.suffix, *self._place, markup=True)
        role, self.role = self.role, None
        content = _content(self.pieces[role.start :])
        self.pieces.append(Piece(role.suffix, trusted=True))
        self.messages.append({"role": role.role, "content": content})
        return begun + role.suffix

    @property
    def said(self) -> str:
        """Text of the open message so far, or of everything outside of messages."""
        return "".join(piece.text for piece in self.pieces[self.role.start if self.role else 0 :])

    def begin_again(self, messages: Iterable[dict[str, Any]]) -> None:
        """The open message has ended and begun anew, by what was added last; `messages` lie behind it now."""
        assert self.role is not None, "there is one, to be begun again"
        self.messages.extend(messages)
        self.role = replace(self.role, start=len(self.pieces))

    def encode(self, backend: Backend) -> list[int]:
        """Ids of the whole prompt. From here on they are fixed: later text gets tokens of its own."""
        self.ids = self.continued(backend, self.settle(backend))
        self.encoded = len(self.pieces)
        return self.ids

    def continued(self, backend: Backend, segments: list[Segment]) -> list[int]:
        """Ids of what is encoded of this prompt, and then `segments`."""
        if not segments and self.ids:
            return self.ids
        return [*self.ids, *backend.encode(segments, start=not self.ids)]

    def settle(self, backend: Backend) -> list[Segment]:
        """Encode up to the last piece with ids of its own; returns the text after it, still open to merging."""
        last = max(
            (i for i in range(self.encoded, len(self.pieces)) if self.pieces[i].ids is not None), default=-1
        )
        for fixed, group in groupby(self.pieces[self.encoded : last + 1], key=lambda p: p.ids is not None):
            if fixed:
                self.ids.extend(token for piece in group for token in piece.ids or ())
            else:
                self.ids = self.continued(backend, _segments(group))
        self.encoded = max(self.encoded, last + 1)
        return _segments(self.pieces[self.encoded :])

    def append_sampled(self, text: str, ids: tuple[int, ...], record: GenRecord | None = None) -> None:
        """Text that the model wrote after all of this prompt, as these tokens; `record` is for the log."""
        assert self.encoded == len(self.pieces), "a prompt is encoded before anything is sampled after it"
        self.log.requested(text, *self._place, self.ids, record, sampled=len(ids))
        self.pieces.append(Piece(text, trusted=False, ids=ids))
        self.ids.extend(ids)
        self.encoded = len(self.pieces)

    def append_joint(
        self, text: str, trusted: bool, ids: list[int], record: SelectRecord | None = None
    ) -> None:
        """Text whose tokens may reach back over its first character; `ids` are those of the whole prompt."""
        self.log.requested(text, *self._place, ids, record)
        self.pieces.append(Piece(text, trusted))
        self.ids = list(ids)
        self.encoded = len(self.pieces)

    @property
    def _place(self) -> tuple[str | None, int | None]:
        """Role and number of the open message."""
        return (None, None) if self.role is None else (self.role.role, len(self.messages))

    def grown(self) -> tuple[list[Piece], list[dict[str, Any]]]:
        """Pieces and messages that this copy has got since it was copied."""
        assert self._copied is not None, "only forks are asked"
        return self.pieces[self._copied.pieces :], self.messages[self._copied.messages :]

    def is_extension_of(self, parent: Prompt) -> bool:
        """Whether what this copy has got since can be put after `parent`: both are in the message they parted in."""
        return self._copied is not None and self.role is self._copied.role and self.role is parent.role


def _divided(prefix: str) -> tuple[str, _Waiting]:
    """What of an assistant's prefix is there in any case, and what waits for its content.

    A blank that is all of it models write themselves, as a part of their first token. What opens a model's reasoning
    stands before what it writes, but not before an answer that is given.
    """
    if prefix.isspace():
        return "", _Waiting(prefix, "")
    opened = next(
        (tags for tags in REASONING_MODELS.values() if tags and prefix.rstrip().endswith(tags.begin)), None
    )
    if opened is None:
        return prefix, _NOTHING
    at = prefix.rindex(opened.begin)
    return prefix[:at], _Waiting("", prefix[at:])


def _segments(pieces: Iterable[Piece]) -> list[Segment]:
    return [Segment(piece.text, piece.trusted, piece.picture) for piece in pieces if piece.text]


def _content(pieces: Sequence[Piece]) -> str | list[dict[str, Any]]:
    """Content of a message in OpenAI's format: its text, or with pictures a list of parts in their order."""
    if all(piece.picture is None for piece in pieces):
        return "".join(piece.text for piece in pieces)
    parts: list[dict[str, Any]] = []
    for picture, group in groupby(pieces, key=lambda piece: piece.picture):
        if picture is None:
            parts.append({"type": "text", "text": "".join(piece.text for piece in group)})
        else:
            parts += [{"type": "image_url", "image_url": {"url": picture.data_url}} for _ in group]
    return parts
