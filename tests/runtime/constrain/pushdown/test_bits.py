"""Sets of tokens as bits, against sets."""

from __future__ import annotations

import numpy as np
import pytest

from sgl_like.runtime.constrain.pushdown import bits


@pytest.mark.parametrize("words", [1, 2, 5, 33, 64])
@pytest.mark.parametrize("room", [0, 3, 40, 4096])
def test_the_tokens_beside_a_base_are_listed_in_order(words: int, room: int) -> None:
    """Whatever the number of words; without room for all, what was found stays."""
    rng = np.random.default_rng(words)
    for sparsity in range(1, 7):
        out, base = (
            np.bitwise_and.reduce(rng.integers(0, 1 << 32, (n, words), dtype=np.uint32))
            for n in (sparsity, 1)
        )
        before = out.copy()
        wanted = [
            t for t in range(32 * words) if out[t >> 5] >> (t & 31) & 1 and not base[t >> 5] >> (t & 31) & 1
        ]
        listed = np.zeros(room, dtype=np.int32)
        assert bits.take_tokens(out, base, listed) == len(wanted)
        assert listed[: len(wanted)].tolist() == wanted[:room]
        assert (out == (0 if len(wanted) <= room else before)).all()


def test_listed_tokens_are_added() -> None:
    """And taken again."""
    out, nothing = np.zeros(4, dtype=np.uint32), np.zeros(4, dtype=np.uint32)
    bits.add_tokens(np.array([127, 0, 33, 33, 31], dtype=np.int32), out)
    listed = np.zeros(8, dtype=np.int32)
    assert bits.take_tokens(out, nothing, listed) == 4
    assert listed[:4].tolist() == [0, 31, 33, 127]
    assert not out.any()
