"""Vocabularies for constraint tests: all bytes, pieces of JSON and of text, and characters cut in the middle."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from sgl_like.runtime.constrain.base import Matcher, mask_words
from sgl_like.runtime.constrain.vocabulary import Vocabulary

_PIECES = [
    *[
        '{"',
        '":"',
        '","',
        '":',
        '",',
        '"}',
        '"]',
        "[]",
        "{}",
        "},{",
        '":["',
        "\\n",
        "\\u00",
        '\\"',
        "null",
        "true",
    ],
    *[
        "false",
        "name",
        '"name',
        '"name"',
        " the",
        " a",
        "ing",
        "foo",
        "bar",
        "ab",
        "aab",
        "ba",
        "bb",
        "00",
        "10",
    ],
    *[
        "12",
        "2024",
        "-0",
        ".5",
        "e+",
        "서울",
        "한국",
        "울",
        "😀",
        "é",
        "éa",
        "  ",
        "\n",
        "\t",
        ",",
        '"a',
        'b"',
        '"b"',
    ],
]


def token_bytes(size: int = 0, seed: int = 0) -> list[bytes | None]:
    """256 bytes, pieces, cut characters, random words up to `size`, one special token, and two ends of sequence."""
    rng = random.Random(seed)
    tokens = [bytes([i]) for i in range(256)] + [piece.encode() for piece in _PIECES]
    for text in ("서울", "한국", "😀", "é"):
        data = text.encode()
        tokens += [data[:2], data[1:], data[-2:] + b'"', b'"' + data[:-1]]
    tokens += [b"a", b"foo"]  # the same bytes twice
    while len(tokens) < size - 3:
        word = "".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8)))
        tokens.append((rng.choice(["", " ", '"', "_"]) + word).encode())
    return [*tokens, None, b"</s>", b"<|end|>"]


def make_vocabulary(size: int = 0, seed: int = 0) -> Vocabulary:
    """A vocabulary of `token_bytes`, with greedy longest-match tokenisation; the last two tokens end a sequence."""
    tokens = token_bytes(size, seed)
    ids: dict[bytes, int] = {}
    for i, data in enumerate(tokens[:-2]):
        if data:
            ids.setdefault(data, i)
    longest = max(map(len, ids))

    def tokenize(text: str) -> list[int]:
        data, at, found = text.encode(), 0, []
        while at < len(data):
            piece = next(data[at : at + n] for n in range(longest, 0, -1) if data[at : at + n] in ids)
            found.append(ids[piece])
            at += len(piece)
        return found

    return Vocabulary(tokens, [len(tokens) - 2, len(tokens) - 1], tokenize)


def allowed(matcher: Matcher) -> set[int]:
    """The token ids in the mask of `matcher`."""
    out: NDArray[np.int32] = np.full((2, mask_words(matcher.vocab_size)), 0x5A5A5A5A, dtype=np.int32)
    matcher.fill_mask(out, 1)
    assert (out[0] == 0x5A5A5A5A).all()
    bits = np.unpackbits(out[1].view(np.uint8), bitorder="little")
    assert not bits[matcher.vocab_size :].any()
    return set(np.flatnonzero(bits).tolist())


def random_output(matcher: Matcher, vocabulary: Vocabulary, rng: random.Random, tokens: int = 60) -> bytes:
    """Walk with random allowed tokens, ending where possible now and then, or by the shortest completion."""
    output = b""
    for _ in range(tokens):
        choice = rng.choice(sorted(allowed(matcher)))
        if matcher.is_complete and rng.random() < 0.2:
            choice = min(vocabulary.eos_token_ids)
        assert matcher.accept_token(choice)
        if matcher.is_terminated:
            return output
        output += vocabulary.token_bytes[choice] or b""
    rest = matcher.shortest_completion()
    assert matcher.accept_bytes(rest)
    assert matcher.is_complete
    return output + rest
