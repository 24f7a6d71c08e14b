"""Lark grammars: against lark's own Earley parser, and what differs from it on purpose."""

from __future__ import annotations

import random

import lark
import pytest

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.derive import matches
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.lark_grammar import lark_to_expr
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

VOCABULARY = make_vocabulary()

SUM = r"""
?start: sum
?sum: product | sum "+" product -> add
?product: atom | product "*" atom -> mul   // left recursion
?atom.2: NUMBER -> number | "-" atom -> neg | NAME | "(" sum ")"
NAME.3: /[a-z_]+/
%import common.INT -> NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""
JSON = r"""
start: value
?value: object | array | ESCAPED_STRING | SIGNED_NUMBER | "true" | "null"
array: "[" [value ("," value)*] "]"
object: "{" [pair ("," pair)*] "}"
pair: ESCAPED_STRING ":" value
%import common (ESCAPED_STRING, SIGNED_NUMBER, WS)
%ignore WS
"""
# Grammar, and pieces to make random texts of. Lark refuses terminals that may be empty.
GRAMMARS = {
    "sum": (SUM, ["1", "12", "a", "_b", "+", "*", "-", "(", ")", " ", "("]),
    "json": (JSON, ["{", "}", "[", "]", ",", ":", '"a"', '"\\""', "-1", "2.5e3", "true", "null", " ", "\n"]),
    "no lexer": (
        'start: num "5" ("if" | WORD)\nnum: /[0-9]+/\nWORD: "a".."i"+',
        ["1", "2", "5", "55", "i", "f", "a"],
    ),
    "templates": (
        '!start: _list{item, ","} ";"~1..2\n_list{x, sep}: x (sep x)*\n'
        'item: "Ab"i | A | _list{B, "+"}\nA: "c" B?\nB: /d/i',
        ["ab", "AB", "c", "d", "D", ",", "+", ";"],
    ),
    "empty": ('start: a start b | \na: ["x"]\nb: "y" | "z"*', ["x", "y", "z", "xy"]),
    "ignore": (
        'start: ("a" | "bc")+\n%ignore " "\n%ignore /#[^\\n]*\\n/',
        ["a", "bc", "b", "c", " ", "#x\n", "#"],
    ),
    "flags": (
        "start: /a.b/s X /[가-힣]{2}/ | /é b+ # c\n/ix\nX: /x?y/",
        ["a", "b", "\n", "y", "x", "서", "É", "é"],
    ),
}


def reader(grammar: str) -> lark.Lark:
    return lark.Lark(grammar, parser="earley", lexer="dynamic_complete", ambiguity="resolve")


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_language_is_that_of_larks_earley_parser(name: str) -> None:
    grammar, pieces = GRAMMARS[name]
    parser, pool, rng = reader(grammar), Pool(Limits()), random.Random(name)
    node = lark_to_expr(pool, grammar)
    matcher = GrammarCompiler(VOCABULARY).compile_lark(grammar).matcher()
    good = [random_output(matcher.copy(), VOCABULARY, rng, 8) for _ in range(12)]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 7))) for _ in range(80)]
    for data in good:
        assert matches(pool, node, data)
        text = data.decode()
        texts += [text, text[:-1], text[1:], text.replace(rng.choice(pieces), rng.choice(pieces), 1)]
    accepted = 0
    for text in texts:
        try:
            parser.parse(text)
            expected = True
        except lark.exceptions.UnexpectedInput:
            expected = False
        accepted += expected
        assert matches(pool, node, text.encode()) == expected, text
    assert accepted >= 10


@pytest.mark.parametrize("name", ["sum", "json", "ignore"])
def test_masks(name: str) -> None:
    compiled = GrammarCompiler(VOCABULARY).compile_ebnf(GRAMMARS[name][0])
    rng, matcher = random.Random(0), compiled.matcher()
    for _ in range(12):
        mask = allowed(matcher)
        assert mask == {t for t in range(VOCABULARY.size) if matcher.copy().accept_token(t)}
        assert matcher.accept_token(rng.choice(sorted(mask)))
        if matcher.is_terminated:
            break


def check(grammar: str, yes: list[str], no: list[str], ignore_bytes: int | None = 20) -> None:
    pool = Pool(Limits())
    node = lark_to_expr(pool, grammar, ignore_bytes=ignore_bytes)
    assert [text for text in yes if not matches(pool, node, text.encode())] == []
    assert [text for text in no if matches(pool, node, text.encode())] == []


def test_ignored_terminals_are_bounded() -> None:
    grammar = 'start: "a"+\n%import common.WS\n%ignore WS'
    check(grammar, ["a" + " " * 20 + "a", " " * 20 + "a" + "\n" * 20], ["a" + " " * 21 + "a", " " * 21 + "a"])
    check(grammar, ["a \na"], ["a  \na"], ignore_bytes=2)
    check(grammar, ["aa"], ["a a"], ignore_bytes=0)
    check(grammar, ["a" + " " * 500 + "a"], [], ignore_bytes=None)
    comments = 'start: A*\nA: "a"?\n%import common.C_COMMENT\n%ignore C_COMMENT\n%ignore " "'
    check(
        comments,
        ["a /* x */ a", "/* 3*4 **/", "", "/*" + "x" * 16 + "*/"],
        ["a /* /", "/*" + "x" * 17 + "*/"],
    )
    check(comments, ["/*" + "x" * 40 + "*/ a"], ["/* a */ b */"], ignore_bytes=None)


def test_a_string_ends_at_its_first_quote() -> None:
    grammar = "start: ESCAPED_STRING\n%import common.ESCAPED_STRING"
    check(grammar, ['""', r'"a\"b"', r'"\\"', '"서"'], ['"a"b"', r'"\"', '"a\nb"', r'"\\"a"'])


def test_lazy_quantifiers_do_not_change_a_language() -> None:
    check('start: /".*?"/', ['"a"', '"a"b"'], ['"a'])


def test_repetition_and_escapes() -> None:
    check('start: "a"~2 ("b" | "c")~1..3 "d"?', ["aab", "aabcbd"], ["ab", "aa", "aabbbb"])
    check(r'start: "\"\\\n\x41\u00e9" /[\/\]]/ "x"i "ß"i', ['"\\\nAé/Xß', '"\\\nAé]xß'], [])
    check(
        'start: ("a" | "b" -> x)\n     | "c"\n   # comment\n   | "d" // "e"', ["a", "b", "c", "d"], ["e", ""]
    )


@pytest.mark.parametrize(
    ("grammar", "where", "message"),
    [
        ("start: x", "1, column 8", "rule 'x' is not defined"),
        ('start: "a" X', "1, column 12", "terminal 'X' is not defined"),
        ('start: start "a"', "1, column 1", "rule 'start' allows no output at all"),
        ('x: "a"', "1, column 1", "there is no rule 'start'"),
        ('start: A\nA: "a" A', "2, column 8", "terminal 'A' contains itself"),
        ('start: A\nA: B\nB: "b" A', "3, column 8", "terminal 'A' contains itself"),
        ('start: A\nA: b\nb: "x"', "2, column 4", "a terminal cannot contain the rule 'b'"),
        ('start: "a"\nstart: "b"', "2, column 1", "'start' is defined twice"),
        ('start: "a"\na: "x', "2, column 4", "unexpected '\"'; expected"),
        ('start: "a" | )', "1, column 14", "unexpected ')'"),
        ('start: ("a"', "1, column 12", "unexpected the end"),
        (r'start: "\."', "1, column 9", r"unknown escape '\\.'"),
        ("start: /a(/", "1, column 8", "missing ), unterminated subpattern"),
        ("start: /(?<=a)b/", "1, column 8", "look-behind cannot be enforced"),
        ("start: /a/l", "1, column 8", "flag l (locale)"),
        ("start: A\nA: /x(?=y)/", "2, column 1", "terminal 'A' never matches"),
        ('start: "a"~3..2', "1, column 12", "at least 3 and at most 2"),
        ('start: "b".."a"', "1, column 8", "from a lower to a higher"),
        ('start: "ab".."c"', "1, column 8", "from one character"),
        ("%declare X\nstart: X", "1, column 1", "%declare is not supported"),
        ('%override x: "a"\nstart: x', "1, column 1", "%override is not supported"),
        ("%import .a.X\nstart: X", "1, column 9", "only lark's own grammars"),
        ("%import nothing.X\nstart: X", "1, column 9", "lark has no grammar 'nothing'"),
        ("%import common.FOO\nstart: FOO", "1, column 16", "common has no terminal 'FOO'"),
        ("s{x}: x\nstart: s", "2, column 8", "template 's' without arguments"),
        ('s{x}: x\nstart: s{"a", "b"}', "2, column 8", "takes 1 arguments, not 2"),
        ('start: s{"a"}', "1, column 8", "there is no template 's'"),
    ],
)
def test_errors_say_where(grammar: str, where: str, message: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        GrammarCompiler(VOCABULARY).compile_lark(grammar)
    assert str(caught.value).startswith(f"Lark grammar, line {where}: ") and message in str(caught.value)


def test_a_template_that_grows_without_end_is_an_error() -> None:
    with pytest.raises(ConstraintTooComplex, match="more than 1000 instances"):
        GrammarCompiler(VOCABULARY).compile_lark('s{x}: x | s{(x x)}\nstart: s{"a"}')


def test_start_rule_and_cache() -> None:
    compiler = GrammarCompiler(VOCABULARY)
    grammar = 'start: "a"\nother: "b" "c"\n%ignore " "'
    assert compiler.compile_lark(grammar, start="other").matcher().accept_bytes(b" b c ")
    assert not compiler.compile_lark(grammar, "other", ignore_bytes=0).matcher().accept_bytes(b"b c")
    assert compiler.compile_lark(grammar) is compiler.compile_ebnf(grammar)
