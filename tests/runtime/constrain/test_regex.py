"""Regexes: masks against a Thompson automaton, outputs against ``re.fullmatch``."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from tests.support.constrain_naive import CHARACTERS, NaiveRegex, naive_regexes
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

VOCABULARY = make_vocabulary()
PIECES = [*CHARACTERS, "ab", "0", "한글", "\n", "x", "가"]


def _compiler() -> GrammarCompiler:
    return GrammarCompiler(VOCABULARY)


def accepts(pattern: str, text: str) -> bool:
    matcher = _compiler().compile_regex(pattern).matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete


@settings(max_examples=200)
@given(naive_regexes(negated=False), st.integers(0, 2**32))
def test_mask_equals_trying_every_token(nfa: NaiveRegex, seed: int) -> None:
    _compare_masks(nfa, seed, {i: data for i, data in enumerate(VOCABULARY.token_bytes) if data})


@settings(max_examples=100)
@given(naive_regexes(negated=True), st.integers(0, 2**32))
def test_mask_equals_trying_every_token_of_known_characters(nfa: NaiveRegex, seed: int) -> None:
    known = set(CHARACTERS + "x가")
    texts = {i: data.decode(errors="replace") for i, data in enumerate(VOCABULARY.token_bytes) if data}
    _compare_masks(nfa, seed, {i: text.encode() for i, text in texts.items() if known.issuperset(text)})


def _compare_masks(nfa: NaiveRegex, seed: int, tokens: dict[int, bytes]) -> None:
    rng = random.Random(seed)
    matcher = _compiler().compile_regex(nfa.source).matcher()
    states = nfa.after(b"")
    for _ in range(8):
        mask = allowed(matcher)
        expected = {i for i, data in tokens.items() if nfa.after(data, states)}
        assert mask & tokens.keys() == expected
        assert VOCABULARY.eos_token_ids <= mask if 1 in states else not VOCABULARY.eos_token_ids & mask
        assert matcher.is_complete == (1 in states)
        if not expected:
            break
        choice = rng.choice(sorted(expected))
        assert matcher.accept_token(choice)
        states = nfa.after(tokens[choice], states)


@settings(max_examples=150)
@given(naive_regexes(negated=True), st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_agrees_with_fullmatch(nfa: NaiveRegex, text: str) -> None:
    assert accepts(nfa.source, text) == bool(re.fullmatch(nfa.source, text))


@settings(max_examples=80)
@given(naive_regexes(negated=True), st.integers(0, 2**32))
def test_random_walks_end_in_matches(nfa: NaiveRegex, seed: int) -> None:
    matcher = _compiler().compile_regex(nfa.source).matcher()
    output = random_output(matcher, VOCABULARY, random.Random(seed), tokens=15)
    assert re.fullmatch(nfa.source, output.decode())


@settings(max_examples=60)
@given(naive_regexes(negated=False))
def test_shortest_completion_is_shortest(nfa: NaiveRegex) -> None:
    """Breadth first in the model: no shorter string."""
    shortest = _compiler().compile_regex(nfa.source).matcher().shortest_completion()
    level = {nfa.after(b"")}
    for length in range(len(shortest) + 1):
        if any(1 in states for states in level):
            assert length == len(shortest)
            return
        level = {nfa.after(bytes([b]), s) for s in level for b in range(256)} - {frozenset()}
    raise AssertionError(f"{shortest!r} is too short")


WALKS = [
    r"\w+@\w+\.(?:com|kr)",
    r"(?i)stra(ß|ss)e [k-m]+",
    r"[가-힣]{2,4}(?: [가-힣]+){0,3}",
    r"(?=.*\d)(?=.*[a-z])[a-z0-9]{4,8}",
    r"(?!foo)[a-z]{3}(?!x).*",
    r"^(?:ab|cd)$",
    r"\d{4}-\d\d-\d\d",
    r"(?s).{0,30}",
    r"[^\n]{3,60}",
    r"(?:[😀-😎]|é){1,3}",
    r"[^\W\d_]+",
    r"(?a:\w)\W",
    r"\x41\u00e9\U0001F600[\d\-\]]",
    r"(?P<y>a|b)*?c",
    r"(?x) a b # comment",
    r"a$\n?",
    r"(?m)a$(?:\n.*)?",
    r"(?:a(?=b)|c)(?:b|d)",
    r"^(?:^a|b$)c?\Z",
    "",
]


@pytest.mark.parametrize("pattern", WALKS)
def test_walks_of_all_kinds_of_syntax(pattern: str) -> None:
    grammar = _compiler().compile_regex(pattern)
    for seed in range(8):
        output = random_output(grammar.matcher(), VOCABULARY, random.Random(seed), tokens=12)
        assert re.fullmatch(pattern, output.decode()), output


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"\w\d\s", ["é٣\u3000", "_1\n", "a1a", "-1 "]),
        (r"(?i)[a-c]ſk", ["BSK", "asK", "Cſk", "dsk"]),
        (r"(?i)[^a]", ["A", "a", "b", "ß"]),
        (r"a(?=b)b", ["ab", "a", "abb"]),
        (r"(?!ab)a.", ["ab", "ac", "aé"]),
        (r"a$\n", ["a\n", "a", "a\n\n"]),
        (r"a\Z\n?", ["a\n", "a"]),
        (r"(?:a|ab)(?:c|bcd)", ["abcd", "ac", "abc", "abbcd"]),
        (r".", ["\n", "가", "😀", "\r", ""]),
        (r"(a*)*b{0}", ["", "aaa", "b"]),
        (r"(?:a{2,3}){2}", ["aaa", "aaaa", "aaaaaa", "aaaaaaa"]),
        (r"(?:)|x", ["", "x", "xx"]),
        (r"x^y|z", ["z", "xy", "y"]),
        (r"[\]\-a]+", ["]-a", "b"]),
        (r"\{[^}]*\}", ["{}", "{a}", "{a"]),
    ],
)
def test_corner_cases(pattern: str, texts: list[str]) -> None:
    for text in texts:
        assert accepts(pattern, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", "missing ), unterminated subpattern at position 1"),
        ("*a", "nothing to repeat at position 0"),
        ("[z-a]", "bad character range z-a at position 1"),
        (r"(a)\1", "back-references"),
        (r"(?<=a)b", "look-behind"),
        (r"\bword\b", "word boundary"),
        (r"a*+b", "possessive"),
        (r"(?>a|b)", "atomic"),
        (r"(?:^a|b)*", "inside a repetition"),
        (r"a*(?:^b|c)", "^ after something"),
        ("(?=a)b", "allows no output"),
        ("[^\\s\\S]", "allows no output"),
        ("\ud800", "allows no output"),
        ("(" * 5000 + ")" * 5000, "nested too deeply"),
    ],
)
def test_errors_say_what_and_where(pattern: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=re.escape(message)):
        _compiler().compile_regex(pattern)


@pytest.mark.parametrize(
    "pattern", ["a{1,1000}b", ".{0,300}foo.{0,300}", "(?:[a-z]{1,50} ){1,1000}", "a{1000000}"]
)
def test_counts_are_not_expanded(pattern: str) -> None:
    grammar = _compiler().compile_regex(pattern)
    matcher = grammar.matcher()
    allowed(matcher)
    assert matcher.accept_bytes(b"aaaaaa")
    allowed(matcher)
    assert grammar.states < 600


def test_cut_characters_are_followed() -> None:
    matcher = _compiler().compile_regex("[가-깋]*").matcher()
    data = "각".encode()
    for i in range(3):
        assert matcher.is_complete == (i == 0)
        assert matcher.accept_bytes(data[i : i + 1])
    assert matcher.is_complete
    assert not matcher.accept_bytes("나".encode()[:2])
