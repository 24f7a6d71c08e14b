"""Expressions in f-strings: ``s += f"Name: {sgl.gen('n')}"``.

An f-string is a plain string before anybody sees it, so an expression formats itself as a placeholder, and what is
added to a state is searched for them.

    "Name: " + MARK + "<number><signature>" + END

The signature is keyed with a secret of this process: no text of users or models can name an expression, and text that
only looks like a placeholder is text. Strings cannot be told when they die, so what a placeholder stands for is kept
as long as the body lives in which it was made; of those made outside of any body the newest `KEPT` are. One
that is used later is an error, which is better than a prompt with a placeholder in it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from sgl_like.errors import ProgramError
from sgl_like.frontend.bodies.current import current_body

if TYPE_CHECKING:
    from sgl_like.frontend.expr import Expr

__all__ = ["has_placeholder", "placeholder_for", "split_placeholders"]

KEPT = 4096
_MARK, _END = "\ufdd0", "\ufdd1"  # noncharacters: no text has a reason to contain them
_PATTERN = re.compile(f"{_MARK}([0-9]{{1,20}})-([0-9]{{40}}){_END}")  # digits survive lower() and upper()
_PART = re.compile(
    f"{_MARK}([0-9]{{1,20}})-\\s*([0-9]{{6,39}})"
)  # enough digits to tell that it is one of ours
_SECRET = secrets.token_bytes(32)
_numbers = itertools.count()
_known: WeakValueDictionary[str, Expr] = WeakValueDictionary()
_outside: deque[Expr] = deque(maxlen=KEPT)


def placeholder_for(expr: Expr) -> str:
    """Text that stands for `expr` until it is added to a state."""
    number = str(next(_numbers))
    _known[number] = expr
    body = current_body()
    (_outside if body is None else body.placeholders).append(expr)
    return f"{_MARK}{number}-{_signature(number)}{_END}"


def split_placeholders(text: str) -> list[str | Expr]:
    """`text` with its placeholders replaced by what they stand for.

    Raises:
        ProgramError: what one stands for is gone, or one was cut.
    """
    if _MARK not in text:
        return [text]
    parts: list[str | Expr] = []
    plain = 0  # where the text begins that is not in `parts`
    for match in _PATTERN.finditer(text):
        number, signature = match.groups()
        if not secrets.compare_digest(signature, _signature(number)):
            continue  # it only looks like one
        expr = _known.get(number)
        if expr is None:
            raise ProgramError(
                "an f-string with sgl.gen or the like is used after the program that made it has ended;"
                " make it anew where it is added"
            )
        parts += [text[plain : match.start()], expr]
        plain = match.end()
    parts.append(text[plain:])
    if any(
        _signature(number).startswith(digits)
        for part in parts
        if isinstance(part, str)
        for number, digits in _PART.findall(part)
    ):
        raise ProgramError(
            "an f-string with sgl.gen or the like was cut or wrapped before it was added; change the text around it"
            " before it becomes part of the f-string"
        )
    return parts


def has_placeholder(text: str) -> bool:
    """Whether `text` contains a placeholder, e.g. where only text makes sense."""
    return any(match[2] == _signature(match[1]) for match in _PATTERN.finditer(text))


def _signature(number: str) -> str:
    digest = hashlib.blake2b(number.encode(), key=_SECRET, digest_size=16).digest()
    return str(int.from_bytes(digest, "big")).zfill(40)
