"""Text of any origin made safe to show: what would control a terminal, or the order of letters, becomes visible.

Terminals act on control characters; browsers and terminals both let bidirectional controls change where the letters
after them stand (Unicode Standard Annex 9), so that text seems to say something else; a lone surrogate cannot be
written as UTF-8 at all. Line breaks and tabs stay.
"""

from __future__ import annotations

import re

__all__ = ["percent", "split_visible", "visible"]

_SPECIAL = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff])"
)


def split_visible(text: str) -> list[tuple[str, bool]]:
    """Pieces of the text; those with True are names of characters that are not shown themselves."""
    parts = _SPECIAL.split(text)
    return [(_name(part) if i % 2 else part, bool(i % 2)) for i, part in enumerate(parts) if part]


def visible(text: str) -> str:
    """The text with such names in it."""
    return "".join(part for part, _ in split_visible(text))


def percent(probability: float | None) -> str:
    """A probability for people; empty if there is none."""
    if probability is None:
        return ""
    return f"{probability:.1%}" if probability >= 0.001 or probability == 0 else f"{probability:.1e}"


def _name(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)  # its picture
    if code == 0x7F:
        return "\u2421"
    return f"\\u{code:04x}" if 0xD800 <= code <= 0xDFFF else f"U+{code:04X}"
