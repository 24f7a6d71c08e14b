"""What the texts of both grammar syntaxes have in common: parsing with lark, positions, escapes in quotes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import lark

from sgl_like.runtime.constrain.grammar import Position, Source

__all__ = ["ParseTree", "Token", "expand", "parse", "position", "repetition"]

Token = lark.Token
ParseTree = lark.Tree[lark.Token]

_MOST_TIMES = 1 << 30
_DIGITS = {"x": 2, "u": 4, "U": 8}


def position(token: Token, offset: int = 0) -> Position:
    """Where a token, or the character `offset` of it, stands. Tokens with an offset are on one line."""
    return Position(token.line or 1, (token.column or 1) + offset)


@lru_cache(maxsize=4)
def _parser(grammar: str) -> lark.Lark:
    return lark.Lark(grammar, parser="lalr", maybe_placeholders=False)


def parse(grammar: str, source: Source, names: Mapping[str, str]) -> ParseTree:
    """Parse the text of `source`.

    Args:
        grammar: the grammar of the syntax, for lark's LALR parser.
        source: what to parse.
        names: how to call terminals in errors.

    Raises:
        ConstraintError: a syntax error, with its position and what was expected there.
    """
    try:
        return _parser(grammar).parse(source.text)
    except lark.exceptions.UnexpectedCharacters as error:
        found = repr(source.text[error.pos_in_stream or 0])
        at, expected = Position(error.line, error.column), set(error.allowed or ())
    except lark.exceptions.UnexpectedToken as error:
        expected = set(error.accepts or error.expected)
        token = error.token
        if token.type == "$END":
            lines = source.text.splitlines() or [""]
            found, at = "the end", Position(len(lines), len(lines[-1]) + 1)
        else:
            found, at = repr(str(token)), position(token)
    wanted = sorted({names.get(name, name) for name in expected if not name.startswith("_")})
    detail = f"; expected {', '.join(wanted)}" if wanted else ""
    raise source.error(f"unexpected {found}{detail}", at) from None


def expand(
    source: Source, token: Token, text: str, offset: int, escapes: Mapping[str, str]
) -> list[tuple[str, bool]]:
    r"""The characters that quoted text stands for, each with whether it was escaped.

    Args:
        source: for errors.
        token: the token that the text is part of.
        text: what is between the quotes.
        offset: where in the token it begins.
        escapes: what a character after a backslash stands for, besides ``\xHH``, ``\uHHHH`` and ``\UHHHHHHHH``.

    Raises:
        ConstraintError: an unknown or unfinished escape, or one for a surrogate.
    """
    found: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            found.append((text[at], False))
            at += 1
            continue
        code = text[at + 1 : at + 2]
        digits = text[at + 2 : at + 2 + _DIGITS.get(code, 0)]
        end = at + 2 + len(digits)
        if code in _DIGITS:
            is_hex = len(digits) == _DIGITS[code] and all(c in "0123456789abcdefABCDEF" for c in digits)
            number = int(digits, 16) if is_hex else -1
            if not 0 <= number <= 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                message = f"{text[at:end]!r} is not a character"
                raise source.error(message, position(token, offset + at))
            found.append((chr(number), True))
        elif code in escapes:
            found.append((escapes[code], True))
        else:
            raise source.error(f"unknown escape {text[at:end]!r}", position(token, offset + at))
        at = end
    return found


def repetition(source: Source, token: Token, low: str, high: str) -> tuple[int, int | None]:
    """The bounds of a repetition from digits; no `high`: without end. Raises ConstraintError."""
    least, most = int(low or 0), int(high) if high else None
    if most is not None and most < least:
        raise source.error(f"repetition at least {least} and at most {most} times", position(token))
    if max(least, most or 0) > _MOST_TIMES:
        raise source.error(f"repetition of more than {_MOST_TIMES} times", position(token))
    return least, most
