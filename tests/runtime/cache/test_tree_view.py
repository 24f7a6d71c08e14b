"""The picture of the tree: the hottest nodes, whole paths, and no more work than allowed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgl_like.runtime.cache import tree_view
from sgl_like.runtime.cache.pages import SlotAllocator
from sgl_like.runtime.cache.radix_cache import HEAD, REMEMBERED, Node, RadixCache, sequence_of
from sgl_like.runtime.cache.tree_view import view_tree
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.small_model import make_model

Ids = tuple[int, ...]


def grown(sequences: list[tuple[str, Ids]], hits: list[tuple[str, Ids]]) -> RadixCache:
    allocator = SlotAllocator(100_000)
    tree = RadixCache(allocator)
    for namespace, ids in sequences:
        tokens = np.array(ids, dtype=np.int32)
        match = tree.match(tokens, namespace)
        fresh = allocator.allocate(len(ids) - len(match.slots))
        assert fresh is not None
        tree.insert(tokens, np.concatenate((match.slots, fresh)), namespace)
    for namespace, ids in hits:
        tree.hit(tree.match(np.array(ids, dtype=np.int32), namespace).node)
    return tree


def sequence(nodes: list[dict[str, Any]], at: int) -> tuple[str, Ids]:
    """What the picture says about a node whose path has short edges: namespace and all tokens from the root."""
    ids: Ids = ()
    name = nodes[at]["namespace"]
    while at >= 0:
        ids = (*nodes[at]["token_ids"], *ids)
        at = nodes[at]["parent"]
    return name, ids


def shown_first(shown: dict[tuple[str, Ids], Node]) -> Node:
    return next(iter(shown.values()))


some = st.tuples(
    st.sampled_from(["", "tenant"]), st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(some, max_size=25), st.lists(some, max_size=25), st.integers(0, 30))
def test_against_looking_at_every_node(
    sequences: list[tuple[str, Ids]], hits: list[tuple[str, Ids]], limit: int
) -> None:
    tree = grown(sequences, hits)
    tree.check()
    everything = {(n.namespace, tuple(sequence_of(n)[0].tolist())): n for n in tree.nodes()}
    picture = view_tree(tree, limit, pinned=frozenset(list(tree.nodes())[:2]))
    nodes = picture["nodes"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(picture)) == picture
    assert len(nodes) == min(limit, len(everything)) and picture["total_nodes"] == len(everything)
    shown: dict[tuple[str, Ids], Node] = {}
    path: list[int] = []
    for at, node in enumerate(nodes):
        real = everything[sequence(nodes, at)]
        shown[sequence(nodes, at)] = real
        assert (node["tokens"], node["hits"], node["locks"]) == (len(real.key), real.hits, real.locks)
        assert node["age"] + real.last_used == nodes[0]["age"] + shown_first(shown).last_used
        assert node["children"] == len(real.children)
        while path and path[-1] != node["parent"]:  # preorder: a parent is an ancestor of the node before
            path.pop()
        assert node["parent"] == (path[-1] if path else -1)
        path.append(at)
    hidden = [n for key, n in everything.items() if key not in shown]
    if hidden and shown:
        assert min(n.hits for n in shown.values()) >= max(n.hits for n in hidden)
    assert sum(n["pinned"] for n in nodes) == sum(n in list(tree.nodes())[:2] for n in shown.values())


def test_long_edges_and_evictions() -> None:
    tree = grown([("a", tuple(range(1000, 1100))), ("b", (1, 2, 3))], [])
    (one,) = [n for n in view_tree(tree)["nodes"] if n["namespace"] == "a"]
    assert one["tokens"] == 100 and one["token_ids"] == list(range(1000, 1000 + HEAD))
    assert tree.evict(1) == 100
    tree.flush()
    first, second = view_tree(tree)["evicted"]
    assert (first["namespace"], first["tokens"], first["token_ids"]) == ("b", 3, [1, 2, 3])
    assert (second["namespace"], second["tokens"], len(second["token_ids"])) == ("a", 100, HEAD)
    assert 0 <= first["seconds_ago"] <= second["seconds_ago"] < 1000 and view_tree(tree)["nodes"] == []
    more = grown([("", (i,)) for i in range(2 * REMEMBERED)], [])
    more.flush()
    assert [e["token_ids"] for e in view_tree(more)["evicted"]] == [
        [i] for i in range(2 * REMEMBERED - 1, REMEMBERED - 1, -1)
    ]


def lines(function: Callable[[], Any]) -> int:
    """Lines of the module run by a call."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != tree_view.__file__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("shape", ["wide", "binary", "namespaces"])
def test_work_is_bounded(shape: str) -> None:
    def tree(size: int) -> RadixCache:
        if shape == "wide":
            return grown([("", (i,)) for i in range(size)], [])
        if shape == "namespaces":
            return grown([(str(i), (1,)) for i in range(size)], [])
        return grown([("", tuple(int(bit) for bit in f"{i:016b}")) for i in range(size // 2)], [])

    small, large = tree(tree_view.MOST_SEEN), tree(4 * tree_view.MOST_SEEN)
    assert lines(lambda: view_tree(large, 200)) <= 1.1 * lines(lambda: view_tree(small, 200))
    assert len(view_tree(large, 10**9)["nodes"]) == tree_view.MOST_NODES


def test_hits_are_requests_that_were_admitted(tmp_path: Path) -> None:
    harness = Harness(make_model(tmp_path), running=2)
    shared = list(range(30))
    for i in range(5):
        request = GenerateRequest(
            [*shared, 100 + i], SamplingParams(max_new_tokens=1), rid=str(i), namespace="t"
        )
        harness.run([request])
    number = harness.memory.pin(np.array(shared, dtype=np.int32), "t")
    picture = harness.memory.view(100)
    top = picture["nodes"][0]
    assert (top["tokens"], top["hits"], top["locks"], top["pinned"], top["parent"]) == (30, 4, 1, True, -1)
    assert [(n["tokens"], n["hits"], n["pinned"], n["parent"]) for n in picture["nodes"][1:]] == [
        (1, 0, False, 0)
    ] * 5
    assert picture["total_tokens"] == 35 and picture["total_namespaces"] == 1
    assert harness.memory.unpin(number)
