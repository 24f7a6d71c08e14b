from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.support.servers import Running, running, shared_engine

PROMPT = "play some"


@pytest.fixture(scope="module")
def server() -> Any:
    with running() as started:
        yield started


def post(server: Running, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def test_whole_and_streamed_texts_are_the_engines(server: Running) -> None:
    expected = shared_engine().generate(PROMPT, {"max_new_tokens": 8, "temperature": 0})["text"]
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    whole = json.loads(post(server, "/v1/completions", body))
    assert whole["choices"][0]["text"] == expected
    events = post(server, "/v1/completions", body | {"stream": True}).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected
