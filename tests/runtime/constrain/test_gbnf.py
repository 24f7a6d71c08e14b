"""GBNF: what its syntax means, and errors with their positions."""

from __future__ import annotations

import pytest

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.derive import matches
from sgl_like.runtime.constrain.expr import Pool
from sgl_like.runtime.constrain.gbnf import gbnf_to_expr, is_gbnf
from tests.support.constrain_vocab import make_vocabulary

SQL = r"""
root ::= "SELECT " cols " FROM " ident (" WHERE " cond)? (" LIMIT " [0-9]+)? ";"
cols ::= "*" | col (", " col)*        # one or many
col ::= ident | ("COUNT" | "MAX") "(" ident ")"
cond ::= pred ((" AND " | " OR ") pred)*
pred ::= ident " " ("=" | "<" | "<=" | "LIKE") " " val | "(" cond ")"
val ::= [0-9]+ | "'" [^']* "'"
ident ::= [a-z_] [a-z0-9_]*
"""
CODE = r"""
root ::= stmt+
stmt ::= ident " = " expr ";\n" | "if (" expr ") {\n" stmt* "}\n"
expr ::= term (" " op " " term)*
op ::= "+" | "==" | "&&"
term ::= num | ident | ident "(" (expr (", " expr)*)? ")" | "(" expr ")" | "\"" [^"\n]* "\""
ident ::= [a-zA-Z_] [a-zA-Z0-9_]*
num ::= [0-9]+ ("." [0-9]+)?
"""


def check(grammar: str, yes: list[str], no: list[str]) -> None:
    pool = Pool(Limits())
    node = gbnf_to_expr(pool, grammar)
    assert [text for text in yes if not matches(pool, node, text.encode())] == []
    assert [text for text in no if matches(pool, node, text.encode())] == []


@pytest.mark.parametrize(
    ("body", "yes", "no"),
    [
        (r'"\n\t\r\\\"\x41\u00e9\U0001f600"', ['\n\t\r\\"Aé😀'], ["n"]),
        (r'"\xe9"', ["é"], []),
        ('"a" "b" | | "c"', ["ab", "", "c"], ["a"]),
        ('""', [""], ["a"]),
        (r"[a-c\]\-é\x30-\x32]", [*"abc]-é012"], ["d", "3", ""]),
        (r'[^a"\n]', ["b", "서", "\r", "😀"], ["a", '"', "\n"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[-a]", ["a", "-"], ["b"]),
        ("[^]", ["a", "\n"], [""]),
        (". .", ["ab", "\n서"], ["a"]),
        ("[a]*", ["", "aaa"], ["b"]),
        ("[a]+ [b]?", ["a", "aab"], ["", "abb"]),
        ('("a" | "b"){2}', ["ab", "bb"], ["a", "aba"]),
        ('"a"{2,}', ["aa", "aaaa"], ["a"]),
        ('"a"{,2}', ["", "aa"], ["aaa"]),
        ('"a"{ 1 , 2 }', ["a", "aa"], ["", "aaa"]),
        ('"ab"{2}{2}', ["abababab"], ["abab"]),
        ('"a" # "b"\n  "c"', ["ac"], ["a", "abc"]),
        ('"a" |\n\n "c"', ["a", "c"], ["ac"]),
        ('(\n "a"\n | "b"\n)\n | "c"', ["a", "b", "c"], [""]),
        ('first-rule\nfirst-rule ::= second_2\nsecond_2::="x"', ["x"], [""]),
        ("x.y\nx.y ::= [0-9]{1,3}", ["123"], ["1234"]),
    ],
)
def test_syntax(body: str, yes: list[str], no: list[str]) -> None:
    check(f"root ::= {body}", yes, no)


def test_grammars_as_people_write_them() -> None:
    check(
        SQL,
        [
            "SELECT * FROM t;",
            "SELECT a, COUNT(b) FROM t_1 WHERE (a <= 5 OR b LIKE 'x%') AND c = 'y' LIMIT 3;",
        ],
        ["SELECT FROM x;", "SELECT * FROM t WHERE (a = 1;", "SELECT * FROM t"],
    )
    check(
        CODE,
        [
            'x = foo(1, bar(2.5, (a + b)));\nif (x == y && ready(x)) {\ny = "some text" + n;\n}\n',
            "a = f();\n",
        ],
        ["x = = 1;\n", "x = f(;\n", "if (x) {\n", ""],
    )


@pytest.mark.parametrize(
    ("grammar", "where", "message", "caret"),
    [
        ("root ::= a\nb ::= c", (1, 10), "rule 'a' is not defined", "root ::= a\n         ^"),
        ('a ::= "x"', (1, 1), "there is no rule 'root'", "^"),
        ("", (1, 1), "there is no rule 'root'", "^"),
        ('root ::= "a"\nroot ::= "b"', (2, 1), "defined twice; the other is in line 1", '"b"\n^'),
        ('root ::= "a', (1, 10), "unexpected '\"'; expected", '"a\n         ^'),
        ('root ::= ("a"', (1, 14), "unexpected the end; expected", "^"),
        ('root ::= "a")', (1, 13), "unexpected ')'", "^"),
        ('root ::= "a"\n  (= "b")', (2, 4), "unexpected '='", '  (= "b")\n   ^'),
        (r'root ::= "ab\q"', (1, 13), r"unknown escape '\\q'", "            ^"),
        (r'root ::= "\x4"', (1, 11), r"'\\x4' is not a character", "^"),
        (r'root ::= "\ud800"', (1, 11), "is not a character", "^"),
        (r"root ::= [\U00110000]", (1, 11), "is not a character", "^"),
        ("root ::= [z-a]", (1, 10), "bad range z-a", "^"),
        ("root ::= []", (1, 10), "empty character class", "^"),
        ('root ::= "a"{3,2}', (1, 13), "at least 3 and at most 2", "^"),
        ('root ::= "a"{}', (1, 13), "without a number", "^"),
        ('root ::= "a"{99999999999}', (1, 13), "more than", "^"),
        ('root ::= x "a"\nx ::= "b" root', (1, 1), "rule 'root' allows no output at all: it never ends", "^"),
    ],
)
def test_errors_say_where(grammar: str, where: tuple[int, int], message: str, caret: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        GrammarCompiler(make_vocabulary()).compile_gbnf(grammar)
    text = str(caught.value)
    assert text.startswith(f"GBNF grammar, line {where[0]}, column {where[1]}: ") and message in text
    assert text.endswith(caret)


def test_rules_that_never_end_are_left_out() -> None:
    check('root ::= "a" | x | y*\nx ::= "b" x\ny ::= y', ["a", ""], ["b", "bb"])


def test_long_lines_are_shown_around_the_place() -> None:
    with pytest.raises(ConstraintError) as caught:
        gbnf_to_expr(Pool(Limits()), "root ::= " + '"a" ' * 200 + "nowhere" + ' "b"' * 200)
    line, caret = str(caught.value).splitlines()[1:]
    assert len(line) == 100 and line[caret.index("^") :].startswith("nowhere")


def test_deeply_nested_groups_are_an_error_and_end() -> None:
    with pytest.raises(ConstraintTooComplex, match="nested too deeply"):
        GrammarCompiler(make_vocabulary()).compile_gbnf("root ::= " + "(" * 5_000 + '"a"' + ")" * 5_000)


def test_doubling_rules_do_not_blow_up() -> None:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(60)]
    matcher = (
        GrammarCompiler(make_vocabulary())
        .compile_gbnf("\n".join(["root ::= r0", *rules, 'r60 ::= "ab"']))
        .matcher()
    )
    assert matcher.accept_bytes(b"ab" * 1_000)
    assert not matcher.is_complete and matcher.forced_bytes() == b"ab" * 512


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ('root ::= "a"', True),
        ('# comment\n\n  root  ::=\n "a"', True),
        ('start: "a"', False),
        ('start: "x ::= y"\n', False),
        ('start: name "::=" name\nname: /[a-z]/', False),
    ],
)
def test_which_syntax(grammar: str, expected: bool) -> None:
    assert is_gbnf(grammar) == expected
    assert GrammarCompiler(make_vocabulary()).compile_ebnf(grammar).matcher().vocab_size


def test_a_grammar_is_text() -> None:
    for name in ("compile_ebnf", "compile_gbnf", "compile_lark"):
        with pytest.raises(ConstraintError, match="a grammar is a string, not int"):
            getattr(GrammarCompiler(make_vocabulary()), name)(3)
