from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from sgl_like.runtime.server.config import ServerConfig
from tests.support.servers import Running, running, shared_engine


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def ask(server: Running, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text else None


def test_the_model_is_listed_shown_and_running(server: Running) -> None:
    _, listed = ask(server, "/api/tags")
    (model,) = listed["models"]
    assert model["name"] == model["model"] == "tiny:latest"
    assert len(model["digest"]) == 64 and model["size"] > 1_000_000
    assert model["details"]["family"] == "llama"
    _, loaded = ask(server, "/api/ps")
    assert loaded["models"][0]["digest"] == model["digest"]
    for name in ("tiny", "tiny:latest"):
        _, shown = ask(server, "/api/show", {"model": name})
        assert shown["model_info"]["llama.context_length"] == 1024
        assert shown["model_info"]["llama.embedding_length"] == 256
        assert "completion" in shown["capabilities"]
    assert ask(server, "/api/version")[1]["version"].count(".") == 2


def test_other_models_and_what_would_change_them_do_not_exist(server: Running) -> None:
    status, answer = ask(server, "/api/show", {"model": "llama3"})
    assert status == 404 and "llama3" in answer["error"]
    for path in ("pull", "push", "create", "copy"):
        status, answer = ask(server, f"/api/{path}", {"model": "llama3"})
        assert status == 404 and path in answer["error"]
    assert ask(server, "/api/delete", {"model": "tiny"}, "DELETE")[0] == 404


def test_the_served_name_is_the_models() -> None:
    with running(ServerConfig(served_model_name="mine")) as server:
        assert ask(server, "/api/tags")[1]["models"][0]["name"] == "mine:latest"
        assert ask(server, "/api/show", {"model": "tiny"})[0] == 404


def test_embed_gives_vectors_of_length_one_and_the_older_endpoint_as_they_are(server: Running) -> None:
    texts = ["play some jazz", "what is the weather"]
    _, found = ask(server, "/api/embed", {"model": "tiny", "input": texts})
    assert [math.hypot(*each) for each in found["embeddings"]] == pytest.approx([1, 1])
    assert found["prompt_eval_count"] == sum(len(shared_engine().tokenizer.encode(text)) for text in texts)
    assert found["total_duration"] > found["load_duration"] > 0
    _, one = ask(server, "/api/embed", {"model": "tiny", "input": texts[0]})
    assert one["embeddings"][0] == pytest.approx(found["embeddings"][0], abs=1e-6)
    _, raw = ask(server, "/api/embeddings", {"model": "tiny", "prompt": texts[0]})
    length = math.hypot(*raw["embedding"])
    assert [value / length for value in raw["embedding"]] == pytest.approx(one["embeddings"][0], abs=1e-6)


def test_texts_that_are_too_long_are_cut_unless_asked_not_to_be(server: Running) -> None:
    long = "weather " * 2000
    _, cut = ask(server, "/api/embed", {"model": "tiny", "input": long})
    assert cut["prompt_eval_count"] == 1024
    status, answer = ask(server, "/api/embed", {"model": "tiny", "input": long, "truncate": False})
    assert status == 400 and "1024" in answer["error"]
