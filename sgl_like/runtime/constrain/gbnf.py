r"""GBNF, the grammar syntax of llama.cpp and xgrammar, to expressions.

    root  ::= item ("," item)*      # the whole output
    item  ::= [a-z]+ | "\"" [^"\n]{0,9} "\""

A rule ends where the next ``name ::=`` begins; other line ends mean nothing. Literals and classes know the escapes
``\n \t \r \f \v \a \b \0 \e \xHH \uHHHH \UHHHHHHHH`` and a backslash before punctuation; each ``\x``, ``\u`` or ``\U``
is one Unicode character, as in llama.cpp, and the output is UTF-8. ``.`` and negated classes match any character they
do not exclude, line ends too. Repetition: ``* + ? {m} {m,} {,n} {m,n}``. Any recursion is allowed, left recursion too.
Not part of it: xgrammar's look-ahead ``(=...)`` and tag macros, llama.cpp's token references ``<[1]>``.
"""

from __future__ import annotations

import re
import string

from sgl_like.runtime.constrain.codepoints import ALL, complement, normalize, utf8
from sgl_like.runtime.constrain.expr import Node, Pool
from sgl_like.runtime.constrain.grammar import (
    Choice,
    Definition,
    Leaf,
    Position,
    Ref,
    Seq,
    Source,
    Term,
    Times,
    build,
)
from sgl_like.runtime.constrain.grammar_text import ParseTree, Token, expand, parse, position, repetition

__all__ = ["gbnf_to_expr", "is_gbnf"]

_NAME = r"[a-zA-Z0-9_-]+(?:\.[a-zA-Z0-9_-]+)*"
_SYNTAX = rf"""
start: rule*
rule: HEAD "::=" choice
choice: sequence ("|" sequence)*
sequence: times*
times: _atom (STAR | PLUS | OPTIONAL | COUNT)*
_atom: LITERAL | CLASS | ANY | NAME | "(" choice ")"
HEAD.2: /{_NAME}(?=\s*::=)/
NAME: /{_NAME}/
LITERAL: /"(?:\\.|[^"\\\n])*"/
CLASS: /\[(?:\\.|[^\]\\\n])*\]/
ANY: "."
STAR: "*"
PLUS: "+"
OPTIONAL: "?"
COUNT: /\{{[ \t]*[0-9]*[ \t]*(?:,[ \t]*[0-9]*[ \t]*)?\}}/
%ignore /\s+/
%ignore /#[^\n]*/
"""
_ESCAPES = {c: c for c in string.punctuation} | dict(zip("ntrfvab0e", "\n\t\r\f\v\a\b\0\x1b", strict=True))
_NAMES = {
    "HEAD": "a rule (name ::= ...)", "NAME": "a rule name", "LITERAL": '"text"', "CLASS": "[characters]", "ANY": "'.'",
    "STAR": "'*'", "PLUS": "'+'", "OPTIONAL": "'?'", "COUNT": "{m,n}", "VBAR": "'|'", "LPAR": "'('", "RPAR": "')'",
    "$END": "the end",
}  # fmt: skip


def is_gbnf(text: str) -> bool:
    """Whether the text of a grammar looks like GBNF: some line begins with ``name ::=``."""
    return re.search(rf"^[ \t]*{_NAME}\s*::=", text, re.MULTILINE) is not None


def gbnf_to_expr(pool: Pool, text: str, start: str = "root") -> Node:
    """The language of rule `start`.

    Raises:
        ConstraintError: bad syntax, an undefined rule, one that is defined twice, or no output at all; with line and
            column.
        ConstraintTooComplex: a limit of the pool was reached.
    """
    source = Source("GBNF grammar", text)
    tree = parse(_SYNTAX, source, _NAMES)
    converter = _Converter(pool, source)
    rules: dict[str, Definition] = {}
    for rule in tree.children:
        head, body = _parts(rule)
        assert isinstance(head, Token) and not isinstance(body, Token)
        if head in rules:
            before = rules[head].at.line
            raise source.error(
                f"rule {str(head)!r} is defined twice; the other is in line {before}", position(head)
            )
        rules[str(head)] = Definition(converter.choice(body), position(head), source)
    if start not in rules:
        at = next(iter(rules.values())).at if rules else Position(1, 1)
        raise source.error(f"there is no rule {start!r} to begin with", at)
    return build(pool, rules, start)


def _parts(tree: ParseTree | Token) -> list[ParseTree | Token]:
    assert not isinstance(tree, Token)
    return tree.children


class _Converter:
    """Parse trees to terms."""

    def __init__(self, pool: Pool, source: Source) -> None:
        self._pool = pool
        self._source = source

    def choice(self, tree: ParseTree | Token) -> Term:
        items = tuple(Seq(tuple(map(self._times, _parts(sequence)))) for sequence in _parts(tree))
        return items[0] if len(items) == 1 else Choice(items)

    def _times(self, tree: ParseTree | Token) -> Term:
        atom, *operators = _parts(tree)
        term = self._atom(atom) if isinstance(atom, Token) else self.choice(atom)
        for operator in operators:
            assert isinstance(operator, Token)
            low, high = {"STAR": (0, None), "PLUS": (1, None), "OPTIONAL": (0, 1)}.get(
                operator.type, (-1, -1)
            )
            if low < 0:
                first, comma, last = operator[1:-1].replace(" ", "").replace("\t", "").partition(",")
                if not first and not last:
                    raise self._source.error("repetition without a number", position(operator))
                low, high = repetition(self._source, operator, first, last if comma else first)
            term = Times(term, low, high)
        return term

    def _atom(self, token: Token) -> Term:
        if token.type == "NAME":
            return Ref(str(token), position(token))
        if token.type == "ANY":
            return Leaf(utf8(self._pool, ALL))
        if token.type == "LITERAL":
            text = "".join(c for c, _ in expand(self._source, token, token[1:-1], 1, _ESCAPES))
            return Leaf(self._pool.literal(self._encode(text, token)))
        return Leaf(self._class(token))

    def _class(self, token: Token) -> Node:
        negated = token.startswith("[^")
        offset = 2 if negated else 1
        members = expand(self._source, token, token[offset:-1], offset, _ESCAPES)
        if not members and not negated:
            raise self._source.error("empty character class", position(token))
        ranges: list[tuple[int, int]] = []
        at = 0
        while at < len(members):
            low = high = ord(members[at][0])
            at += 1
            if members[at : at + 1] == [("-", False)] and at + 1 < len(members):
                high = ord(members[at + 1][0])
                at += 2
                if high < low:
                    raise self._source.error(f"bad range {chr(low)}-{chr(high)}", position(token))
            ranges.append((low, high))
        found = normalize(ranges)
        return utf8(self._pool, complement(found) if negated else found)

    def _encode(self, text: str, token: Token) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise self._source.error("text that is not valid Unicode", position(token)) from None
