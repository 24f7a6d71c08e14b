"""Rules that contain themselves: random grammars against all their strings, and everything a matcher does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_cfg import NaiveGrammar, naive_grammars, words
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

VOCABULARY = make_vocabulary()
IDS = {data: i for i, data in reversed(list(enumerate(VOCABULARY.token_bytes))) if data}
TOKENS = [b"a", b"b", b"aa", b"ab", b"ba", b"bb", b"aab", b"bab", b"abba", b"c"]
SMALL = Vocabulary([*TOKENS, b"</s>"], [len(TOKENS)])
JSON = r"""
root ::= value
value ::= "{" (pair ("," pair)*)? "}" | "[" (value ("," value)*)? "]" | string | "true" | "12"
pair ::= string ":" value
string ::= "\"" [a-z서]* "\""
"""
SUM = 'root ::= root [+-] product | product\nproduct ::= product "*" atom | atom\natom ::= [0-9]+ | "(" root ")"'


def gbnf(grammar: str, vocabulary: Vocabulary = VOCABULARY, **limits: int) -> AutomatonMatcher:
    return GrammarCompiler(vocabulary, Limits(**limits)).compile_gbnf(grammar).matcher()


def accepts(matcher: AutomatonMatcher, text: str) -> bool:
    twin = matcher.copy()
    return twin.accept_bytes(text.encode()) and twin.is_complete


@settings(max_examples=150, deadline=None)
@given(naive_grammars())
def test_random_grammars_have_exactly_their_strings(grammar: NaiveGrammar) -> None:
    expected = grammar.strings(6)
    try:
        matcher = gbnf(grammar.gbnf(), SMALL)
    except ConstraintError as error:
        assert "'root' allows no output" in str(error) and not grammar.strings(9)
        return
    assert {word for word in words(6) if accepts(matcher, word)} == expected


@settings(max_examples=40, deadline=None)
@given(naive_grammars(), st.integers(0, 2**32))
def test_masks_completions_and_rollback_on_random_grammars(grammar: NaiveGrammar, seed: int) -> None:
    language = grammar.strings(8)
    if not language:
        return
    rng = random.Random(seed)
    matcher = gbnf(grammar.gbnf(), SMALL)
    path, masks, tokens = "", [], []
    for _ in range(5):
        mask = allowed(matcher)
        assert mask == {t for t in range(SMALL.size) if matcher.copy().accept_token(t)}
        later = [text for text in language if text.startswith(path)]
        assert {
            i for i, t in enumerate(TOKENS) if any(x.startswith(path + t.decode()) for x in later)
        } <= mask
        assert matcher.is_complete == (path in language)
        rest = matcher.shortest_completion().decode()
        if len(path + rest) <= 8:
            assert path + rest in language and len(path + rest) == min(map(len, later))
        if later:
            following = {text[len(path) : len(path) + 1] for text in later}
            forced = matcher.forced_bytes().decode()
            assert len(following) == 1 or not forced
            assert all((text + forced).startswith(path + forced) for text in later)
        masks.append(mask)
        choices = sorted(mask - SMALL.eos_token_ids)
        if not choices or len(path) > 4:  # a token has up to 4 letters
            break
        tokens.append(rng.choice(choices))
        assert matcher.accept_token(tokens[-1])
        path += TOKENS[tokens[-1]].decode()
    matcher.rollback(len(tokens))
    for mask, token in zip(masks, [*tokens, -1], strict=False):
        assert allowed(matcher) == mask
        matcher.accept_token(token)


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        ('root ::= root "a" | "b"', ["b", "ba", "baaa"], ["", "a", "ab", "bb"]),
        (
            'root ::= x "c" | "r"\nx ::= y "d" | root\ny ::= root "e" | x',
            ["r", "rc", "redc", "rdc", "rcdc"],
            ["re", "rd"],
        ),
        ('root ::= e root "a" | "b"\ne ::= "x"? ', ["b", "ba", "xba", "xxbaa", "xbaa"], ["xb", "xxba", "a"]),
        ('root ::= root | root root | "a" | ""', ["", "a", "aaaa"], ["b"]),
        ('root ::= "a" root "a" | "b" root "b" | ""', ["", "abba", "aabbaa"], ["ab", "aba"]),
        (
            'root ::= "if" root ("else" root)? | "x"',
            ["ififxelsexelsex", "ifx"],
            ["ifxelse", "ififxelsexelsexelsex"],
        ),
        (SUM, ["1+2*3", "(1-2)*(3+4)-5", "((7))"], ["1+", "(1", "1)", "()"]),
        (JSON, ['{"a":[12,{"b":[]}],"c":true}', "[[[]]]", '"서"'], ['{"a"}', "[,]", "[[]"]),
    ],
)
def test_known_grammars(grammar: str, yes: list[str], no: list[str]) -> None:
    matcher = gbnf(grammar)
    assert [text for text in yes if not accepts(matcher, text)] == []
    assert [text for text in no if accepts(matcher, text)] == []


@pytest.mark.parametrize("grammar", [JSON, SUM, 'root ::= "(" root ")" root | ""'])
def test_masks_and_random_outputs(grammar: str) -> None:
    compiled = GrammarCompiler(VOCABULARY).compile_gbnf(grammar)
    for seed in range(4):
        rng, matcher = random.Random(seed), compiled.matcher()
        for _ in range(12):
            mask = allowed(matcher)
            assert mask == {t for t in range(VOCABULARY.size) if matcher.copy().accept_token(t)}
            assert matcher.accept_token(rng.choice(sorted(mask)))
            if matcher.is_terminated:
                break
        random_output(compiled.matcher(), VOCABULARY, rng)


def test_forced_bytes_go_through_rules() -> None:
    matcher = gbnf('root ::= "[" root "]" | item\nitem ::= "<" name "=" name ">"\nname ::= "na" "me"')
    assert matcher.accept_bytes(b"[[<")
    assert matcher.forced_bytes() == b"name=name>]]"
    assert matcher.shortest_completion() == b"name=name>]]"


@pytest.mark.parametrize(
    ("grammar", "depth"),
    [
        (JSON, 10_000),
        ('root ::= "[" root "]" | "x"', 10_000),
        ('root ::= root "+" root | "[" root "]" | "x"', 2_000),
    ],
)
def test_thousands_of_open_brackets(grammar: str, depth: int) -> None:
    matcher = gbnf(grammar)
    assert matcher.accept_bytes(b"[" * depth)
    assert not matcher.is_complete
    assert IDS[b'"]'] not in allowed(matcher)
    rest = matcher.shortest_completion()
    assert rest.endswith(b"]" * depth) and len(rest) <= depth + 1
    assert matcher.accept_bytes(rest)
    assert matcher.is_complete
    assert not matcher.accept_bytes(b"]")


def test_the_stack_survives_an_emptied_automaton() -> None:
    matcher = gbnf('root ::= "[" root "]" | "x"', max_states=64)
    for _ in range(300):
        assert matcher.accept_bytes(b"[")
    assert matcher.accept_bytes(b"x")
    for _ in range(300):
        assert not matcher.is_complete
        assert matcher.accept_bytes(b"]")
    assert matcher.is_complete


def test_too_much_ambiguity_is_an_error_and_ends() -> None:
    matcher = gbnf('root ::= "a" root "b" | "a" root "c" root | "a"* ("b" | root)', max_width=3)
    with pytest.raises(ConstraintTooComplex, match="more than 3 alternatives"):
        matcher.accept_bytes(b"aaaaaaaaaabb")


def test_a_chain_of_many_rules_is_an_error_and_ends() -> None:
    rules = [f'r{i} ::= r{i + 1} "a" | "(" r0 ")"' for i in range(600)]
    text = "\n".join(["root ::= r0", *rules, 'r600 ::= "x"'])
    matcher = gbnf(text)
    with pytest.raises(ConstraintTooComplex, match="nested too deeply"):
        matcher.accept_bytes(b"x")
