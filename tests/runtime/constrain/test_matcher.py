"""The matcher: rollback, copies, ends, forced bytes and tokens, batches, threads and limits."""

from __future__ import annotations

import random
import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.base import Limits, Matcher, mask_words
from sgl_like.runtime.constrain.batch import fill_masks
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.constrain.pushdown.matcher import PushdownMatcher
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_naive import NaiveRegex, naive_regexes
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

VOCABULARY = make_vocabulary()
EOS = min(VOCABULARY.eos_token_ids)
IDS = {data: i for i, data in reversed(list(enumerate(VOCABULARY.token_bytes))) if data}
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "intent": {"const": name},
                **{s: {"type": "string", "minLength": 1} for s in slots},
            },
            "required": ["intent"],
        }
        for name, slots in {"play": ["artist", "album"], "book": ["city", "country", "time"]}.items()
    ]
}


def regex(pattern: str, vocabulary: Vocabulary = VOCABULARY, **limits: int) -> AutomatonMatcher:
    return GrammarCompiler(vocabulary, Limits(**limits)).compile_regex(pattern).matcher()


def schema(order: Any = "any", **limits: int) -> PushdownMatcher:
    return GrammarCompiler(VOCABULARY, Limits(**limits)).compile_json_schema(SCHEMA, order).matcher()


GRAMMAR = r"""
root ::= "{" member ("," member)* "}"
member ::= string ":" (string | "name" [0-9]{1,30} | list)
string ::= "\"" [^"\\]{0,40} "\""
list ::= "[" (member ("," member)*)? "]" | "true"
"""


def grammar(**limits: int) -> AutomatonMatcher:
    return GrammarCompiler(VOCABULARY, Limits(**limits)).compile_gbnf(GRAMMAR).matcher()


LISTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {
            "type": "array",
            "items": {"anyOf": [{"type": "string", "maxLength": 30}, {"type": "integer"}]},
        },
        "ab": {"type": "string", "pattern": "^[ab]+$", "maxLength": 5},
        "name": {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "additionalProperties": {"type": "null"},
        },
    },
}


@pytest.mark.parametrize("order", ["schema", "any"])
@pytest.mark.parametrize("source", [SCHEMA, LISTS, {"type": "array", "items": LISTS, "maxItems": 3}, True])
def test_mask_is_what_is_accepted(source: Any, order: Any) -> None:
    """Fragments, clipped counts and shared masks against stepping through every token."""
    pieces = [
        '","city":"',
        '":"a","',
        'a","a',
        '"},{"',
        '"],"ab":"',
        '":{"a":"',
        '"a","b',
        '"]}',
        '1,"a",',
        '":[1,',
    ]
    vocabulary = Vocabulary(
        [*VOCABULARY.token_bytes[:-2], *(p.encode() for p in pieces), b"</s>"], [VOCABULARY.size + 8]
    )
    grammar = GrammarCompiler(vocabulary).compile_json_schema(source, order)
    for seed in range(6):
        rng, matcher = random.Random(seed), grammar.matcher()
        for _ in range(40):
            mask = allowed(matcher)
            assert mask == {t for t in range(vocabulary.size) if matcher.copy().accept_token(t)}
            structural = [t for t in mask if b'"' in (vocabulary.token_bytes[t] or b'"')]
            assert matcher.accept_token(
                rng.choice(structural if structural and rng.random() < 0.6 else sorted(mask))
            )
            if matcher.is_terminated:
                break


def test_is_a_matcher() -> None:
    matcher: Matcher = regex("a")
    assert matcher.vocab_size == VOCABULARY.size


@settings(max_examples=80)
@given(st.one_of(naive_regexes(negated=True), st.none()), st.integers(0, 2**32))
def test_rollback_gives_the_same_masks_again(nfa: NaiveRegex | None, seed: int) -> None:
    rng = random.Random(seed)
    matcher = regex(nfa.source) if nfa else schema()
    masks, tokens = [allowed(matcher)], []
    for _ in range(12):
        choice = rng.choice(sorted(masks[-1]))
        assert matcher.accept_token(choice)
        tokens.append(choice)
        masks.append(allowed(matcher))
        if matcher.is_terminated:
            break
    back = rng.randint(0, len(tokens))
    twin = matcher.copy()
    matcher.rollback(back)
    assert not matcher.is_terminated or back == 0
    assert allowed(matcher) == masks[len(tokens) - back]
    for i in range(len(tokens) - back, len(tokens)):
        assert allowed(matcher) == masks[i]
        assert matcher.accept_token(tokens[i])
    assert allowed(matcher) == masks[-1] == allowed(twin)
    assert matcher.is_terminated == twin.is_terminated
    matcher.rollback(len(tokens))
    assert allowed(matcher) == masks[0]
    assert allowed(twin) == masks[-1]
    with pytest.raises(ConstraintError, match="cannot roll back 1"):
        matcher.rollback(1)


def test_a_refused_token_changes_nothing() -> None:
    matcher = regex("ab+")
    assert not matcher.accept_token(IDS[b"b"])
    assert not matcher.accept_token(EOS)
    assert not matcher.accept_token(VOCABULARY.size)
    assert not matcher.accept_token(-1)
    assert not matcher.accept_token(VOCABULARY.size - 3)  # the special token
    assert not matcher.accept_bytes(b"abc")
    assert matcher.accept_token(IDS[b"ab"])
    assert allowed(matcher) == {IDS[b"b"], IDS[b"bb"], *VOCABULARY.eos_token_ids}


def test_end_of_sequence() -> None:
    matcher = regex("a?")
    assert matcher.is_complete
    assert matcher.accept_token(EOS + 1)
    assert matcher.is_terminated
    assert allowed(matcher) == VOCABULARY.eos_token_ids
    assert not matcher.accept_token(EOS)
    assert not matcher.accept_bytes(b"a")
    assert (matcher.forced_bytes(), matcher.forced_tokens()) == (b"", [])
    matcher.rollback(1)
    assert not matcher.is_terminated
    assert matcher.accept_bytes(b"a")
    assert allowed(matcher) == VOCABULARY.eos_token_ids


def test_same_bytes_are_the_same_tokens() -> None:
    twins = [i for i, data in enumerate(VOCABULARY.token_bytes) if data == b"foo"]
    assert len(twins) == 2
    assert {*twins, IDS[b"f"]} == allowed(regex("foo"))


@settings(max_examples=80)
@given(naive_regexes(negated=False), st.integers(0, 2**32))
def test_forced_bytes_are_the_only_path(nfa: NaiveRegex, seed: int) -> None:
    matcher = regex(nfa.source)
    states = nfa.after(b"")
    rng = random.Random(seed)
    for _ in range(6):
        path = b""
        while 1 not in states:
            following = [b for b in range(256) if nfa.after(bytes([b]), states)]
            if len(following) > 1:
                break
            path += bytes(following)
            states = nfa.after(bytes(following), states)
        assert matcher.forced_bytes() == path
        assert matcher.accept_bytes(path)
        choices = sorted(allowed(matcher) - VOCABULARY.eos_token_ids)
        if not choices:
            break
        choice = rng.choice(choices)
        assert matcher.accept_token(choice)
        states = nfa.after(VOCABULARY.token_bytes[choice] or b"", states)


def _tokens(*pieces: str) -> list[int]:
    return [IDS[piece.encode()] for piece in pieces]


@pytest.mark.parametrize(
    ("pattern", "before", "expected"),
    [
        ('\\{"name": ".*"', "", ['{"', "name"]),  # "": the blank may become part of a token that goes on
        ("nullx", "", ["null", "x"]),
        ("null(?:x|y)", "", ["null"]),
        ("fo(?:o|x)", "", []),  # foo is a token
        ("서울[가-나]", "", ["서울"]),
        ("[가각]", "", []),  # two bytes of a character are not text
        ("a?", "", []),
        ("foobar", "foo", ["bar"]),
        ("xname", "x", ["name"]),
        ("x", "x", []),
    ],
)
def test_forced_tokens(pattern: str, before: str, expected: list[str]) -> None:
    matcher = regex(pattern)
    assert not before or matcher.accept_token(IDS[before.encode()])
    if expected == ['{"', "name"]:
        forced = matcher.forced_tokens()
        text = b"".join(VOCABULARY.token_bytes[t] or b"" for t in forced)
        assert b'{"name": "'.startswith(text) and forced[:1] == _tokens('{"')
        return
    assert matcher.forced_tokens() == _tokens(*expected)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(["schema", "any"]))
def test_forced_tokens_are_how_any_continuation_is_tokenised(seed: int, order: Any) -> None:
    matcher = schema(order)
    rng = random.Random(seed)
    assert VOCABULARY.tokenize is not None
    done: list[int] = []
    for _ in range(6):
        forced = matcher.forced_tokens()
        for trial in range(4):
            rest = random_output(matcher.copy(), VOCABULARY, random.Random(trial + seed), tokens=6)
            try:
                assert VOCABULARY.tokenize(rest.decode())[: len(forced)] == forced
            except UnicodeDecodeError:
                break
        for token in forced or [rng.choice(sorted(allowed(matcher) - VOCABULARY.eos_token_ids) or [EOS])]:
            assert matcher.accept_token(token)
            done.append(token)
        if matcher.is_terminated:
            break


def test_no_tokenizer_forces_no_tokens() -> None:
    vocabulary = Vocabulary(VOCABULARY.token_bytes, [EOS])
    assert regex("foobar", vocabulary).forced_tokens() == []


def test_batch() -> None:
    out = np.zeros((3, mask_words(VOCABULARY.size)), dtype=np.int32)
    fill_masks([regex("a"), None, regex("b")], out)
    assert (out[1] == -1).all()
    assert [int((np.unpackbits(row.view(np.uint8))).sum()) for row in out[[0, 2]]] == [2, 1]


def test_a_vocabulary_that_lacks_bytes_is_an_error_at_the_mask() -> None:
    vocabulary = Vocabulary([b"a", b"b", None, b""], [2])
    matcher = regex("ac?", vocabulary)
    assert allowed(matcher) == {0}
    assert matcher.accept_token(0)
    assert allowed(matcher) == {2}
    with pytest.raises(ConstraintError, match="lacks some bytes"):
        allowed(regex("c", vocabulary))
    with pytest.raises(ConstraintError, match="no token with bytes"):
        Vocabulary([None, b""], [])
    with pytest.raises(ConstraintError, match="end-of-sequence"):
        Vocabulary([b"a"], [1])


def test_a_full_automaton_starts_again() -> None:
    """Masks, steps, rollback and copies do not notice that the table was emptied."""
    plain, tight = grammar(), grammar(max_states=120)
    rng = random.Random(0)
    for _ in range(6):
        a, b = plain.copy(), tight.copy()
        for step in range(40):
            mask = allowed(a)
            assert allowed(b) == mask
            choice = rng.choice(sorted(mask))
            assert a.accept_token(choice) and b.accept_token(choice)
            if a.is_terminated:
                break
            if step % 7 == 6:
                a.rollback(3)
                b.rollback(3)
    with pytest.raises(ConstraintTooComplex, match="automaton states"):
        allowed(grammar(max_states=3))


def test_a_limit_leaves_the_matcher_as_it_was() -> None:
    matcher = regex(r"ab\w+", max_states=4)
    assert matcher.accept_token(IDS[b"a"])
    with pytest.raises(ConstraintError):
        allowed(matcher)
    assert not matcher.is_complete
    assert matcher.forced_bytes() == b"b"
    assert matcher.accept_bytes(b"b")
    matcher.rollback(1)
    assert matcher.forced_bytes() == b"ab"


def test_masks_are_bounded() -> None:
    matcher = grammar(max_mask_bytes=5 * 4 * mask_words(VOCABULARY.size))
    plain = grammar()
    for seed in range(3):
        tokens = [random_output(m.copy(), VOCABULARY, random.Random(seed)) for m in (matcher, plain)]
        assert tokens[0] == tokens[1]
    masked = matcher._masks._masked
    assert matcher._masks.count == len(masked) <= 5
    assert all(state.mask is not None for state in masked)


@pytest.mark.parametrize("max_states", [150, 30_000])
def test_threads_share_an_automaton(max_states: int) -> None:
    """Many matchers, one automaton, also while it is emptied again and again: the same outputs as alone."""
    expected = [random_output(grammar(), VOCABULARY, random.Random(seed), tokens=30) for seed in range(12)]
    shared = grammar(max_states=max_states)
    results: dict[int, bytes] = {}
    errors: list[BaseException] = []

    def work(seeds: range) -> None:
        try:
            for seed in seeds:
                results[seed] = random_output(shared.copy(), VOCABULARY, random.Random(seed), tokens=30)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(range(i, 12, 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [results[seed] for seed in range(12)] == expected


def test_tokens_that_nothing_can_follow_are_refused_early() -> None:
    """A conjunction that cannot be satisfied any more is never entered."""
    matcher = regex(r"(?=[a-z]{3}$)(?:[a-f]+1|[g-z]+)")
    mask = allowed(matcher)
    assert IDS[b"a"] not in mask and IDS[b"g"] in mask
    assert matcher.accept_bytes(b"gh")
    assert matcher.shortest_completion() == b"o" or re.fullmatch(
        "[g-z]", matcher.shortest_completion().decode()
    )


def test_a_closing_quote_that_a_tokenizer_joins_with_what_follows_is_not_forced() -> None:
    """The token ``"/`` starts inside the forced ``":"``; whether it comes depends on the string's first character."""
    pieces = [*(bytes([b]) for b in range(256)), b"path", b'":"', b'":', b'"/', b'{"']

    def tokenize(text: str) -> list[int]:
        parts = re.findall(r'\{"|path|":(?="/)|"/|":"|":|[\s\S]', text)
        known = {piece: token for token, piece in enumerate(pieces)}
        return [
            token for p in parts for token in ([known[p.encode()]] if p.encode() in known else p.encode())
        ]

    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": False,
    }
    vocabulary = Vocabulary([*pieces, None], [len(pieces)], tokenize=tokenize)
    matcher = GrammarCompiler(vocabulary).compile_json_schema(schema).matcher()
    assert matcher.forced_bytes() == b'{"path":"'
    assert [pieces[token] for token in matcher.forced_tokens()] == [b'{"', b"path"]
