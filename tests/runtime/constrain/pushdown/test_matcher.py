"""The matcher of the pushdown machine: rollback, copies, ends, forced tokens, threads."""

from __future__ import annotations

import json
import random
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.batch import fill_masks
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.matcher import PushdownMatcher
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_schemas import SCHEMAS
from tests.support.constrain_vocab import allowed, make_vocabulary

VOCABULARY = make_vocabulary()
EOS = min(VOCABULARY.eos_token_ids)
COMPILER = JsonCompiler(VOCABULARY)
ANY, COMPACT = Style(spaces=2, any_order=True), Style()
ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["order", "return"]},
        "id": {"type": "integer", "minimum": 100, "maximum": 120},
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["foo", "bar"]}, "minItems": 1},
    },
    "required": ["kind", "id", "name", "tags"],
    "additionalProperties": False,
}


def matcher(schema: Any, style: Style = COMPACT, compiler: JsonCompiler = COMPILER) -> PushdownMatcher:
    return compiler.compile(schema, style).matcher()


def play(one: PushdownMatcher, rng: random.Random, steps: int) -> list[int]:
    """Accept random tokens."""
    tokens: list[int] = []
    while len(tokens) < steps and not one.is_terminated:
        try:
            choices = sorted(allowed(one))
        except ConstraintError:
            break
        if not choices:
            break
        tokens.append(rng.choice(choices))
        assert one.accept_token(tokens[-1])
    return tokens


def test_is_a_matcher() -> None:
    one: Matcher = matcher(True)
    assert one.vocab_size == VOCABULARY.size


@pytest.mark.parametrize("style", [ANY, COMPACT], ids=["any", "compact"])
@pytest.mark.parametrize("schema", SCHEMAS[::3], ids=range(0, len(SCHEMAS), 3))
def test_rollback_gives_the_same_masks_again(schema: Any, style: Style) -> None:
    rng = random.Random(1)
    one = matcher(schema, style)
    masks, tokens = [allowed(one)], []
    for _ in range(10):
        if not masks[-1] or one.is_terminated:
            break
        tokens.append(rng.choice(sorted(masks[-1])))
        assert one.accept_token(tokens[-1])
        try:
            masks.append(allowed(one))
        except ConstraintError:
            one.rollback(1)
            tokens.pop()
            break
    twin, back = one.copy(), rng.randint(0, len(tokens))
    one.rollback(back)
    for i in range(len(tokens) - back, len(tokens)):
        assert allowed(one) == masks[i]
        assert one.accept_token(tokens[i])
    assert allowed(one) == masks[-1] == allowed(twin)
    one.rollback(len(tokens))
    assert allowed(one) == masks[0]
    assert allowed(twin) == masks[-1]
    with pytest.raises(ConstraintError, match="cannot roll back 1"):
        one.rollback(1)


def test_the_end() -> None:
    one = matcher({"const": "a"})
    assert not one.accept_token(EOS) and not one.is_complete
    assert one.accept_bytes(b'"a') and one.shortest_completion() == b'"'
    assert not one.accept_bytes(b'"x') and one.accept_bytes(b'"')
    assert one.is_complete and one.shortest_completion() == b"" == one.forced_bytes()
    assert one.accept_token(EOS) and one.is_terminated
    assert allowed(one) == set(VOCABULARY.eos_token_ids)
    assert not one.accept_token(EOS) and not one.accept_bytes(b" ") and one.forced_tokens() == []
    one.rollback(1)
    assert not one.is_terminated and one.is_complete


def test_a_refused_token_changes_nothing() -> None:
    one = matcher({"type": "integer"})
    before = allowed(one)
    for token in (-1, VOCABULARY.size, EOS, *(t for t in range(0, VOCABULARY.size, 7) if t not in before)):
        assert not one.accept_token(token)
    assert allowed(one) == before


def test_a_batch_of_masks() -> None:
    matchers = [matcher({"type": "integer"}), None, matcher({"type": "null"})]
    out = np.zeros((3, VOCABULARY.words), dtype=np.int32)
    fill_masks(matchers, out)
    assert (out[1] == -1).all() and (out[0] != out[2]).any()


MERGES = [
    *[("a", "m"), ("am", "e"), ("n", "ame"), ('"', "name"), ('"', ":"), ('":', '"'), ('"', ","), ('",', '"')],
    *[("k", "i"), ("n", "d"), ("ki", "nd"), ('{', '"'), ("t", "a"), ("g", "s"), ("ta", "gs"), ('":', "[")],
    *[('":[', '"'), ("i", "d"), ("o", "r"), ("d", "er"), ("e", "r"), ("or", "d"), ("ord", "er"), ("r", "e")],
    *[("t", "u"), ("r", "n"), ("re", "tu"), ("retu", "rn"), ("f", "o"), ("fo", "o"), ("b", "a"), ("ba", "r")],
    *[('"', "]"), ('"]', "}"), ("1", "0"), ("1", "1"), ("10", "0"), ("12", "0"), ("1", "2"), ('",', " "), (":", "1")],
    *[("a", "b"), ("s", "\""), ("er", '"'), ("order", '"'), ('"', "kind"), ('{"', "kind"), ('","', "id")],
]  # fmt: skip


def bpe_vocabulary() -> Vocabulary:
    pieces = [bytes([b]) for b in range(256)]
    ranks: dict[tuple[bytes, bytes], int] = {}
    for left, right in MERGES:
        ranks.setdefault((left.encode(), right.encode()), len(ranks))
        pieces.append((left + right).encode())
    ids = {piece: i for i, piece in reversed(list(enumerate(pieces)))}

    def tokenize(text: str) -> list[int]:
        parts = [bytes([b]) for b in text.encode()]
        while True:
            pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
            if not pairs:
                return [ids[part] for part in parts]
            at = min(pairs)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    return Vocabulary([*pieces, None], [len(pieces)], tokenize=tokenize)


@pytest.mark.parametrize("style", [Style(any_order=True), COMPACT, ANY], ids=["any", "compact", "spaced"])
def test_forced_tokens_are_those_of_the_whole_output(style: Style) -> None:
    """The model writes canonical tokens; what is forced after each of them is what it would have had to write."""
    vocabulary = bpe_vocabulary()
    compiler = JsonCompiler(vocabulary)
    assert vocabulary.tokenize is not None
    rng, found = random.Random(3), 0
    for schema in (
        ORDER,
        {"const": {"kind": "order", "tags": ["foo", "name"]}},
        {"enum": ["order", "orders", "return"]},
    ):
        for _ in range(12):
            whole = sample(matcher(schema, style, compiler), rng)
            tokens, one, at = vocabulary.tokenize(whole), matcher(schema, style, compiler), 0
            while at < len(tokens):
                forced = one.forced_tokens()
                assert tokens[at : at + len(forced)] == forced, (whole, at)
                found += len(forced)
                for token in forced or [tokens[at]]:
                    assert one.accept_token(token)
                    at += 1
            assert one.is_complete
    assert found or style is ANY


def sample(one: PushdownMatcher, rng: random.Random) -> str:
    """A random output."""
    out = b""
    while not one.is_complete and len(out) < 80:
        mask = [t for t in allowed(one) if t < 256 and (t < 128) and t != 0x5C]
        token = rng.choice(mask)
        out += bytes([token])
        assert one.accept_token(token)
    out += one.shortest_completion()
    json.loads(out)
    return out.decode()


def test_no_tokenizer_forces_no_tokens() -> None:
    vocabulary = Vocabulary([*(bytes([b]) for b in range(256)), None], [256])
    one = matcher({"const": "abc"}, COMPACT, JsonCompiler(vocabulary))
    assert one.forced_bytes() == b'"abc"' and one.forced_tokens() == []


def test_threads_share_a_machine() -> None:
    compiler = JsonCompiler(VOCABULARY)
    expected = [play(matcher(schema), random.Random(i), 12) for i, schema in enumerate(SCHEMAS[:20])]
    found: list[list[int] | None] = [None] * (4 * len(expected))

    def run(offset: int) -> None:
        for i, schema in enumerate(SCHEMAS[:20]):
            one = matcher(schema, COMPACT, compiler)
            found[offset + i] = play(one, random.Random(i), 12)
            one.forced_bytes()

    threads = [threading.Thread(target=run, args=(k * len(expected),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected * 4
