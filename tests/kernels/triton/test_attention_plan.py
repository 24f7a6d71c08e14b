"""A plan against counting: every key that a token sees is in one of its tiles, and in one only."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.kernels.attention import AttentionRows

SPLIT = 8
Sizes = list[tuple[int, int, int, int]]


def make_rows(sizes: Sizes) -> AttentionRows:
    """Rows of (new tokens, tokens before, which of two prefixes, how much of it) over slots of their own."""
    lists, new, free = [], [], 1000
    for count, before, prefix, shared in sizes:
        own = before + count - min(shared, before)
        lists.append([*range(500 * prefix, 500 * prefix + min(shared, before)), *range(free, free + own)])
        new.append(count)
        free += own
    starts = np.cumsum([0] + [len(each) for each in lists]).astype(np.int32)
    slots = np.array([slot for each in lists for slot in each], dtype=np.int32)
    return AttentionRows(np.cumsum([0, *new]).astype(np.int32), starts, slots)


def expected(rows: AttentionRows, window: int | None) -> Counter[tuple[int, int]]:
    """All (token, slot), where the token sees the slot."""
    found: Counter[tuple[int, int]] = Counter()
    for r in range(len(rows.q_start) - 1):
        slots = rows.kv_slots[rows.kv_start[r] : rows.kv_start[r + 1]].tolist()
        tokens = range(rows.q_start[r], rows.q_start[r + 1])
        for token in tokens:
            seen = slots[: len(slots) - (tokens[-1] - token)]
            found.update((token, slot) for slot in (seen if window is None else seen[-window:]))
    return found


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 1), st.integers(0, 40)),
        min_size=1,
        max_size=12,
    ),
    group=st.sampled_from([1, 3, 4, 16, 20, 130]),
    window=st.sampled_from([None, None, 1, 5, 8, 30]),
    cascade=st.booleans(),
    exact=st.booleans(),
)
def test_every_key_once(sizes: Sizes, group: int, window: int | None, cascade: bool, exact: bool) -> None:
    from sgl_like.kernels.triton import attention_plan

    rows = make_rows(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_plan, "SPLIT", SPLIT)
        patch.setattr(attention_plan, "LONG", 2 * SPLIT)
        made = attention_plan.plan(rows, group, "cpu", window, cascade, exact)
    few, many = attention_plan.most_queries(group)
    order, slots = made.order.tolist(), made.kv_slots.tolist()
    found: Counter[tuple[int, int]] = Counter()
    results: Counter[int] = Counter()  # tiles that write a token's result at once
    parts: dict[int, tuple[int, int]] = {}  # of partial rows: whose, and the first key
    for tiles, most, longest in ((made.small, few, SPLIT), (made.large, many, 1000)):
        for first, count, begin, low, high, place, where in tiles.tolist():
            assert 0 < count * group <= most and 0 < high - low <= longest and low % SPLIT == 0
            for i, token in enumerate(order[first : first + count]):
                for key in range(low, min(high, place + i + 1)):
                    if window is None or key > place + i - window:
                        found[token, slots[begin + key]] += 1
                if where < 0:
                    results[token] += 1
                else:
                    assert where + i not in parts
                    parts[where + i] = token, low
    assert found == expected(rows, window)

    starts = made.starts.tolist()
    assert sorted(made.parts.tolist()) == sorted(parts) == list(range(len(parts)))
    for token, start, end in zip(made.tokens.tolist(), starts, starts[1:], strict=False):
        results[token] += 1
        mine = [parts[part] for part in made.parts.tolist()[start:end]]
        assert {owner for owner, _ in mine} == {token} and len(mine) == len(set(mine)) > 0
        assert mine == sorted(mine)
    assert results == Counter(range(rows.q_start[-1]))


def test_a_shared_piece_is_in_one_tile_for_all() -> None:
    from sgl_like.kernels.triton.attention_plan import SPLIT, plan

    common = list(range(2 * SPLIT + 100))
    lists = [[*common, 5000 + i] for i in range(40)]
    starts = np.cumsum([0] + [len(each) for each in lists]).astype(np.int32)
    rows = AttentionRows(np.arange(41, dtype=np.int32), starts, np.concatenate(lists).astype(np.int32))
    made = plan(rows, 4, "cpu")
    assert [tile[1:5] for tile in made.large.tolist()] == [
        [32, 0, 0, SPLIT],
        [8, 0, 0, SPLIT],
        [32, 0, SPLIT, 2 * SPLIT],
        [8, 0, SPLIT, 2 * SPLIT],
    ]
    assert len(made.small) == 40 and len(made.parts) == 3 * 40
    assert len(plan(rows, 4, "cpu", cascade=False).small) == 3 * 40


def test_tiles_of_rows_that_extend() -> None:
    from sgl_like.kernels.triton.attention_plan import LONG, SPLIT, plan

    made = plan(make_rows([(33, 10, 0, 0), (65, SPLIT, 0, 0)]), 4, "cpu")
    assert [tile[4] for tile in made.large.tolist()] == [
        SPLIT + 65,
        SPLIT + 64,
        SPLIT + 32,
        42,
    ]  # longest first
    assert [tile[:5] for tile in made.small.tolist()] == [
        [32, 1, 0, 0, 43]
    ]  # a short rest is computed by fewer
    assert not len(made.tokens)

    made = plan(make_rows([(32, 2 * LONG - 32, 0, 0)]), 4, "cpu")  # one tile would keep few processors busy
    assert [tile[3:5] for tile in made.large.tolist()] == [[0, LONG], [LONG, 2 * LONG]]
    assert [tile[3:5] for tile in made.small.tolist()] == []
    made = plan(make_rows([(32, 2 * LONG - 32, 0, 0)]), 4, "cpu", exact=True)
    assert [tile[3:5] for tile in made.large.tolist()] == [[0, 2 * LONG]]
