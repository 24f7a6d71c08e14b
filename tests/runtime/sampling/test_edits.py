"""Penalties, bias and bans against a naive reading of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.sampling.bad_words import BadWords, TokenTable
from sgl_like.runtime.sampling.edits import RowEdits, apply_edits, ban, ban_in_mask
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.naive_sampling import completes_bad_word, edited

VOCAB = 40
tokens = st.integers(0, VOCAB - 1)
sequences = st.lists(tokens, max_size=90)
penalties = st.fixed_dictionaries(
    {
        "frequency_penalty": st.sampled_from([0, 0.5, -2]),
        "presence_penalty": st.sampled_from([0, 1.5, -0.3]),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.4]),
        "logit_bias": st.dictionaries(tokens, st.floats(-100, 100), max_size=5),
    }
)


@given(st.lists(st.tuples(penalties, sequences, sequences), min_size=1, max_size=4), st.integers(0, 999))
def test_penalties_and_bias(rows: list[tuple[dict[str, Any], list[int], list[int]]], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (len(rows) + 1, VOCAB)).astype(np.float32)
    logits[:, seed % VOCAB] = -np.inf
    before, changes = logits.copy(), []
    for i, (values, prompt, output) in enumerate(rows):
        edits = RowEdits(SamplingParams.from_dict(values), np.array(prompt, dtype=np.int64), [], None, VOCAB)
        for token in output:
            edits.observe(token)
        changes.append((i, edits.changes()))
    apply_edits(torch.from_numpy(logits), changes)
    for i, (values, prompt, output) in enumerate(rows):
        expected = edited(before[i].tolist(), SamplingParams.from_dict(values), prompt, output)
        assert logits[i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert np.array_equal(logits[-1], before[-1])


pieces = st.binary(min_size=1, max_size=3).map(lambda data: bytes(b"ab\xff"[x % 3] for x in data))


@given(
    vocabulary=st.lists(st.one_of(st.none(), pieces), min_size=1, max_size=25),
    words=st.lists(pieces.map(lambda x: x * 2), min_size=1, max_size=3),
    output=st.lists(st.integers(0, 24), max_size=12),
)
def test_bad_words_are_banned_however_they_are_cut(
    vocabulary: list[bytes | None], words: list[bytes], output: list[int]
) -> None:
    follower, text = BadWords(TokenTable(vocabulary), words), b""
    for token in [each % len(vocabulary) for each in output]:
        expected = {i for i, data in enumerate(vocabulary) if completes_bad_word(data, text, words)}
        assert set(follower.banned().tolist()) == expected
        follower.observe(token)
        text += vocabulary[token] or b""


def test_min_new_tokens_bans_the_ends_until_then() -> None:
    edits = RowEdits(SamplingParams(min_new_tokens=2), np.array([1]), [3, 5], None, VOCAB)
    assert edits.banned().tolist() == [3, 5]
    edits.observe(1)
    assert edits.banned().tolist() == [3, 5]
    edits.observe(1)
    assert edits.banned().tolist() == []


def test_bans_never_take_everything() -> None:
    table = TokenTable([b"a", b"b", b"c"])
    edits = RowEdits(
        SamplingParams(bad_words=("xa", "xb", "xc")),
        np.array([0]),
        [],
        BadWords(table, [b"ba", b"bb", b"bc"]),
        3,
    )
    edits.observe(1)
    assert edits.banned().tolist() == []
    logits = np.zeros((1, 3), dtype=np.float32)
    apply_edits(torch.from_numpy(logits), [(0, ban(np.array([0, 2, 2])))])
    assert logits.tolist() == [[-np.inf, 0, -np.inf]]


def test_only_allowed_tokens_are_not_banned() -> None:
    params = SamplingParams(allowed_token_ids=(1, 3), min_new_tokens=1)
    edits = RowEdits(params, np.array([1]), [3], None, 5)
    assert set(edits.banned().tolist()) == {0, 2, 3, 4}
    edits.observe(1)
    assert set(edits.banned().tolist()) == {0, 2, 4}
    both_end = RowEdits(params, np.array([1]), [1, 3], None, 5)
    assert set(both_end.banned().tolist()) == {0, 2, 4}


@given(st.sets(st.integers(0, 69), min_size=1), st.lists(st.integers(0, 69)))
def test_bans_in_a_mask(allowed: set[int], banned: list[int]) -> None:
    bits = np.zeros(96, dtype=np.uint8)
    bits[list(allowed)] = 1
    mask = np.packbits(bits, bitorder="little").view(np.int32)
    ban_in_mask(mask, np.array(banned, dtype=np.int64))
    left = set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())
    assert left == (allowed - set(banned) or allowed)
