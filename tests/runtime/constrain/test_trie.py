"""The flat trie against a dictionary of prefixes, and machine code without a place to keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.constrain.trie import build_trie
from sgl_like.runtime.constrain.vocabulary import Vocabulary

TOKENS = st.lists(
    st.one_of(st.none(), st.binary(max_size=5), st.sampled_from([b"a", b"ab", b"abc", b"b"])), max_size=30
)
ROOT = Path(__file__).parents[3]


@given(TOKENS)
def test_trie_is_every_prefix_in_order(tokens: list[bytes | None]) -> None:
    trie = build_trie(tokens)
    prefixes = sorted({t[:i] for t in tokens if t for i in range(1, len(t) + 1)})
    assert len(trie.byte) == len(prefixes)
    for node, prefix in enumerate(prefixes):
        assert (trie.byte[node], trie.depth[node]) == (prefix[-1], len(prefix) - 1)
        below = [i for i, p in enumerate(prefixes) if p.startswith(prefix)]
        assert trie.end[node] == below[-1] + 1
        ids = trie.tokens[trie.first[node] : trie.first[node + 1]].tolist()
        assert sorted(ids) == [i for i, t in enumerate(tokens) if t == prefix]
    assert trie.longest == max((len(t) for t in tokens if t), default=0)


@given(TOKENS, st.binary(min_size=1, max_size=3))
def test_tokens_below_a_node(tokens: list[bytes | None], prefix: bytes) -> None:
    vocabulary = Vocabulary([*tokens, b"abcd"], [])
    expected = [i for i, t in enumerate([*tokens, b"abcd"]) if t and t.startswith(prefix) and t != prefix]
    trie, node = vocabulary.trie, vocabulary.trie_node(prefix)
    below = trie.tokens[trie.first[node + 1] : trie.first[trie.end[node]]] if node >= 0 else trie.tokens[:0]
    assert sorted(below.tolist()) == expected


def test_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """No directory for numba's cache: compiled in memory, without a word."""
    code = (
        "from numba.core import caching\n"
        "(getattr(caching, 'CacheImpl', None) or caching._CacheImpl)._locator_classes = []\n"
        "from sgl_like.runtime.constrain.trie import build_trie\n"
        "print(build_trie([b'a', b'ab']).end.tolist())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("[2, 2]\n", "")
