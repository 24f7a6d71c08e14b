"""``/tokenize`` and ``/detokenize`` against the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.posting import post
from tests.support.servers import running, shared_engine


class Client:
    """Posts to one of the two places."""

    def __init__(self, base: str) -> None:
        self.base = base

    def post(self, path: str, body: Any) -> Any:
        """The answer to a body, which is taken."""
        status, text = post(self.base + path, body)
        assert status == 200, text
        return json.loads(text)


@pytest.fixture(scope="module", params=["", "/v1"])
def client(request: Any) -> Iterator[Client]:
    with running() as server:
        yield Client(server.url + request.param)


def test_texts_come_back(client: Client) -> None:
    text = "play 서울 <|end|> jazz"
    given = client.post("/tokenize", {"model": "tiny", "prompt": text, "return_token_strs": True})
    assert given["tokens"] == shared_engine().tokenizer.encode(text)
    assert given["count"] == len(given["tokens"]) == len(given["token_strs"])
    assert given["max_model_len"] == 1024
    body = {"tokens": given["tokens"], "skip_special_tokens": False}
    back = client.post("/detokenize", body)
    assert back["prompt"] == back["text"] == text
    assert client.post("/detokenize", {"tokens": given["tokens"]})["text"] == text.replace("<|end|>", "")


def test_several_texts(client: Client) -> None:
    encode = shared_engine().tokenizer.encode
    given = client.post("/tokenize", {"prompt": ["a b", "c"]})
    assert given["tokens"] == [encode("a b"), encode("c")]
    assert given["count"] == [len(encode("a b")), len(encode("c"))]
    assert client.post("/detokenize", {"tokens": given["tokens"]})["text"] == ["a b", "c"]
    assert client.post("/detokenize", {"tokens": []})["text"] == ""


def test_conversations(client: Client) -> None:
    messages = [{"role": "user", "content": "hi <|end|>"}]
    given = client.post("/tokenize", {"messages": messages})["tokens"]
    tokenizer = shared_engine().tokenizer
    assert given == tokenizer.encode_segments(
        [("<|user|>", True), ("hi <|end|>", False), ("<|end|><|assistant|>", True)]
    )
    body = {"messages": messages, "add_generation_prompt": False}
    assert client.post("/tokenize", body)["tokens"] == given[:-1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"messages": []}),
        ("/tokenize", {"prompt": []}),
        ("/tokenize", {"prompt": ["a"] * 129}),
        ("/tokenize", {"prompt": "a" * 1_000_000}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [4096]}),
        ("/detokenize", {"tokens": [2**63]}),
        ("/detokenize", {"tokens": [[1], 2]}),
        ("/detokenize", {"tokens": [True]}),
        ("/detokenize", {"tokens": "a"}),
    ],
)
def test_what_is_wrong_is_refused(client: Client, path: str, body: dict[str, Any]) -> None:
    status, text = post(client.base + path, body)
    assert status == 400
    assert json.loads(text)["error"]["message"]
