from __future__ import annotations

from typing import Any

from sgl_like.runtime.server.openai.responses.store import ResponseStore


def response(id: str, size: int = 100) -> dict[str, Any]:
    return {"id": id, "output": [{"type": "message", "text": "x" * size}]}


def test_the_least_recently_used_makes_room() -> None:
    store = ResponseStore(500)
    for id in "abc":
        store.put("t", response(id), (), ())
    assert store.get("t", "a") is not None  # used: now b is the oldest
    store.put("t", response("d"), (), ())
    assert [id for id in "abcd" if store.get("t", id) is not None] == ["a", "c", "d"]
    assert 0 < store.held("t") <= 500


def test_tenants_do_not_see_each_other_and_do_not_take_each_others_room() -> None:
    store = ResponseStore(200)
    store.put("one", response("a"), (), ())
    store.put("two", response("b"), (), ())
    assert store.get("two", "a") is None and store.get("one", "b") is None
    assert not store.delete("two", "a")
    assert store.get("one", "a") is not None and store.get("two", "b") is not None


def test_deleting_gives_room_back_and_what_is_too_large_is_not_kept() -> None:
    store = ResponseStore(200)
    store.put("t", response("a"), (), ())
    store.put("t", response("big", 500), (), ())
    assert store.get("t", "big") is None and store.get("t", "a") is not None
    assert store.delete("t", "a") and not store.delete("t", "a")
    assert store.held("t") == 0


def test_a_conversation_is_all_that_came_before() -> None:
    store = ResponseStore(10_000)
    store.put("t", response("a"), ({"id": "question"},), ({"id": "earlier"},))
    found = store.get("t", "a")
    assert found is not None
    assert [item.get("id") for item in found.conversation] == ["earlier", "question", None]
