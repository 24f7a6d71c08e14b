r"""Regexes for engines that know grammars only: Python's syntax as GBNF (llama.cpp, grammars/README.md).

``re`` itself reads the pattern. What depends on what is around it (look-around, word boundaries, back references) has
no equivalent and is refused. ``\d``, ``\w`` and ``\s`` stand for the ASCII characters among those that they match.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.codepoints import Ranges, complement, matching, normalize, other_cases

__all__ = ["choices_to_gbnf", "regex_to_gbnf"]

_parser: Any = importlib.import_module("re._parser")
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def choices_to_gbnf(choices: tuple[str, ...]) -> str:
    """A grammar of these texts and nothing else."""
    return "root ::= " + " | ".join(map(_literal, choices))


def regex_to_gbnf(pattern: str) -> str:
    """A grammar of the texts that `pattern` matches as a whole.

    Raises:
        ConstraintError: it is no regex, or has something in it that GBNF cannot say.
    """
    try:
        parsed = _parser.parse(pattern)
        return "root ::= " + _sequence(_unanchored(list(parsed)), int(parsed.state.flags))
    except (re.error, RecursionError, OverflowError) as error:
        raise ConstraintError(f"regex {pattern[:60]!r}: {error}") from error
    except _Unsupported as error:
        raise ConstraintError(
            f"regex {pattern[:60]!r}: {error} cannot be said in GBNF; use ebnf or json_schema"
        ) from None


class _Unsupported(Exception):
    """Names what it is."""


def _unanchored(items: list[Any]) -> list[Any]:
    """Anchors at the two ends say nothing new of a whole match."""
    if items and _is_anchor(items[0], "AT_BEGINNING"):
        items = items[1:]
    return items[:-1] if items and _is_anchor(items[-1], "AT_END") else items


def _is_anchor(item: Any, name: str) -> bool:
    return str(item[0]) == "AT" and str(item[1]) in (name, f"{name}_STRING")


def _sequence(items: Any, flags: int) -> str:
    return " ".join(_item(str(op), value, flags) for op, value in items) or '""'


def _item(op: str, value: Any, flags: int) -> str:
    match op:
        case "LITERAL" if not flags & re.IGNORECASE:
            return _literal(chr(value))
        case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY":
            return _class(_characters(op, value, flags))
        case "MAX_REPEAT" | "MIN_REPEAT":
            low, high, inner = value
            most = "" if high is _parser.MAXREPEAT else str(int(high))
            return f"({_sequence(inner, flags)}){{{int(low)},{most}}}"
        case "SUBPATTERN":
            _, added, removed, inner = value
            return f"({_sequence(inner, (flags | added) & ~removed)})"
        case "BRANCH":
            return f"({' | '.join(_sequence(branch, flags) for branch in value[1])})"
    raise _Unsupported({"AT": "an anchor inside it", "GROUPREF": "a back reference"}.get(op, op.lower()))


def _characters(op: str, value: Any, flags: int) -> Ranges:
    """The set that one item matches."""
    if op == "ANY":
        return complement(()) if flags & re.DOTALL else complement(((10, 10),))
    members = value if op == "IN" else [("LITERAL", value)]
    ranges: list[tuple[int, int]] = []
    negated = op == "NOT_LITERAL"
    for kind, item in members:
        match str(kind):
            case "NEGATE":
                negated = True
            case "CATEGORY":
                source = _CATEGORIES[str(item)]
                ascii_only = source.islower() != negated  # the smaller set of characters in the end
                ranges.extend(matching(source, int(re.ASCII) if ascii_only else 0))
            case name:
                own: Ranges = ((item, item),) if name == "LITERAL" else ((item[0], item[1]),)
                ranges.extend(own)
                if flags & re.IGNORECASE:
                    ranges.extend(other_cases(own, flags & re.ASCII))
    return complement(normalize(ranges)) if negated else normalize(ranges)


def _class(ranges: Ranges) -> str:
    if not ranges:
        raise _Unsupported("a class without characters")
    inverse = complement(ranges)
    sign, shown = ("^", inverse) if 0 < len(inverse) < len(ranges) else ("", ranges)
    return f"[{sign}{''.join(_escaped(low) + (f'-{_escaped(high)}' if high > low else '') for low, high in shown)}]"


def _escaped(code: int) -> str:
    char = chr(code)
    if char.isascii() and char.isalnum():
        return char
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _literal(text: str) -> str:
    """In double quotes."""
    plain = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(plain.get(c, c if c >= " " else _escaped(ord(c))) for c in text) + '"'
