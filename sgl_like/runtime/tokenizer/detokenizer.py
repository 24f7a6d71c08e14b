"""Token ids to text, a few at a time, without ever cutting a character or letting a stop string slip out.

    bytes of tokens ──> UTF-8 decoder (keeps an unfinished character) ──> text ──> stop search ──> released text
                                                                             └── tail that may begin a stop string

Text once released never changes, so the pieces of a stream join to exactly the final text.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class TextSearch(Protocol):
    """Looks for something in the text as it grows."""

    @property
    def held(self) -> int:
        """Length of the end of the text that may become part of a match."""

    def push(self, text: str) -> tuple[int, int, str] | None:
        """Add text; the first match, if there is one now: where it starts and ends, and what it is called."""


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Bytes to text; invalid bytes become U+FFFD, an unfinished character waits for its rest."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


@dataclass(slots=True)
class Detokenizer:
    """The text of one request's output.

    Args:
        token_bytes: bytes of each token id; ``None`` entries (special tokens) add nothing.
        special_text: text of special tokens to show, by id (``skip_special_tokens=False``).
        stop: stop strings.
        keep_stop: leave the matched stop string at the end of the text.
        search: finds what else ends the text.
    """

    token_bytes: Sequence[bytes | None]
    special_text: dict[int, str]
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    search: TextSearch | None = None
    matched: str | None = None
    text: str = ""
    _released: int = 0
    _decoder: codecs.IncrementalDecoder = field(default_factory=utf8_decoder)

    def push(self, token: int) -> bool:
        """Add one token. Returns whether a stop string is complete (see `matched`)."""
        data = self.token_bytes[token] if token < len(self.token_bytes) else None
        piece = self.special_text.get(token, "") if data is None else self._decoder.decode(data)
        return self._append(piece)

    def finish(self) -> None:
        """No more tokens: an unfinished character becomes U+FFFD and everything held back is released."""
        if self.matched is None:
            self._append(self._decoder.decode(b"", final=True))

    def release(self, final: bool = False) -> str:
        """Text not handed out before. Unless `final`, a tail that could begin a stop string stays back."""
        end = len(self.text)
        if not final and self.matched is None:
            end -= self._held_back()
        end = max(end, self._released)
        piece = self.text[self._released : end]
        self._released = end
        return piece

    def _append(self, piece: str) -> bool:
        if not piece:
            return False
        old = len(self.text)
        self.text += piece
        found = [
            (at, at + len(stop), stop)
            for stop in self.stop
            if (at := self.text.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        search, self.search = self.search, None  # one that fails is not asked again
        if search is not None:
            match = search.push(piece)
            if match is not None:
                found.append(match)
        self.search = search
        if not found:
            return False
        start, end, self.matched = min(found)
        self.text = self.text[: end if self.keep_stop else start]
        return True

    def _held_back(self) -> int:
        """Length of the longest end of the text that may become a stop string or part of another match."""
        longest = self.search.held if self.search is not None else 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return longest
