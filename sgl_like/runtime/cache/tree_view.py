"""A picture of the radix tree for who looks at it while the engine runs: the hottest paths, in bounded time.

A hit passes every node from the root to where a match ends, so a parent has at least the hits of each child, and a
search that always goes on at the hottest node it has seen finds the hottest nodes with all that is above them. It sees
the children of the nodes it takes, of each node only the newest `MOST_CHILDREN`, and at most `MOST_SEEN` in all: the
engine's thread does this between two steps, whatever the tree's size.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Set
from itertools import count, islice
from typing import Any

from sgl_like.runtime.cache.radix_cache import HEAD, Node, RadixCache

MOST_NODES = 2000
"""Nodes of one picture."""
MOST_CHILDREN = 2000
"""Children of one node that are looked at."""
MOST_SEEN = 10_000
"""Nodes that are looked at."""


def view_tree(tree: RadixCache, limit: int = 200, pinned: Set[Node] = frozenset()) -> dict[str, Any]:
    """The hottest `limit` nodes and the last evictions, as values that msgpack and JSON have.

    Args:
        tree: not changed.
        limit: number of nodes, at most `MOST_NODES`.
        pinned: nodes to be marked as pinned.

    Returns:
        ``{"nodes": [...], "evicted": [...], "total_nodes", "total_tokens", "total_namespaces"}``. Nodes are in
        preorder, the hottest child first; each has ``parent`` (its index, -1 below a root), ``namespace``, ``tokens``
        (of its edge), ``token_ids`` (the first of them), ``locks`` (requests and pins that hold it), ``pinned``,
        ``hits`` (admitted requests that found it), ``age`` (uses of the tree since its own last one) and ``children``
        (also those not shown). What was evicted, the last first, has ``namespace``, ``tokens``, ``token_ids`` and
        ``seconds_ago``.
    """
    now = tree.now
    shown = _hottest(tree, min(max(limit, 0), MOST_NODES))
    below: dict[Node | None, list[Node]] = {}
    for node in shown:  # hottest first, and so are they in these lists
        parent = node.parent
        below.setdefault(parent if parent is not None and parent.parent is not None else None, []).append(
            node
        )
    places: dict[Node, int] = {}
    nodes: list[dict[str, Any]] = []
    waiting = below.get(None, [])[::-1]
    while waiting:
        node = waiting.pop()
        places[node] = len(nodes)
        assert node.parent is not None
        nodes.append(
            {
                "parent": places.get(node.parent, -1),
                "namespace": node.namespace,
                "tokens": len(node.key),
                "token_ids": node.key[:HEAD].tolist(),
                "locks": node.locks,
                "pinned": node in pinned,
                "hits": node.hits,
                "age": now - node.last_used,
                "children": len(node.children),
            }
        )
        waiting += below.get(node, [])[::-1]
    return {
        "nodes": nodes,
        "total_nodes": tree.node_count,
        "total_tokens": tree.evictable_count + tree.locked_count,
        "total_namespaces": len(tree.roots),
        "evicted": [
            {
                "namespace": each.namespace,
                "tokens": each.tokens,
                "token_ids": each.head.tolist(),
                "seconds_ago": time.monotonic() - each.when,
            }
            for each in reversed(tree.evictions)
        ],
    }


def _hottest(tree: RadixCache, limit: int) -> list[Node]:
    """The hottest nodes, each after its parent; of equally hot ones those used last."""
    ties = count()
    seen = 0
    found: list[Node] = []
    heap: list[tuple[int, int, int, Node]] = []

    def look_below(node: Node) -> None:
        nonlocal seen
        for child in islice(reversed(node.children.values()), min(MOST_CHILDREN, MOST_SEEN - seen)):
            heapq.heappush(heap, (-child.hits, -child.last_used, next(ties), child))
            seen += 1

    for root in islice(reversed(tree.roots.values()), MOST_CHILDREN):
        look_below(root)
    while heap and len(found) < limit:
        found.append(heapq.heappop(heap)[-1])
        look_below(found[-1])
    return found
