from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Iterator
from queue import Queue
from struct import unpack
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.http_clients import call
from tests.support.servers import Running, running, shared_engine

TEXTS = ["play some jazz", "book a table for two", "what is the weather in Oslo"]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def engines(text: str) -> list[float]:
    """The engine's own embedding of a text, scaled to length 1."""
    engine = shared_engine()
    outputs: Queue[Output] = Queue()
    ids = engine.tokenizer.encode(text)
    engine.submit(GenerateRequest(ids, SamplingParams(max_new_tokens=0), embed=True), outputs.put)
    found = list(outputs.get(timeout=60).embedding or ())
    length = math.sqrt(sum(value * value for value in found))
    return [value / length for value in found]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_are_the_engines_in_both_encodings(client: OpenAI, encoding: Any) -> None:
    extra = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model="tiny", input=TEXTS, **extra)
    assert [each.index for each in answer.data] == [0, 1, 2]
    for text, each in zip(TEXTS, answer.data, strict=True):
        values = each.embedding
        if encoding == "base64":  # asked for by name, the client leaves it as it is
            assert isinstance(values, str)
            values = list(unpack("<256f", b64decode(values)))
        assert values == pytest.approx(engines(text), abs=1e-6)
    tokens = sum(len(shared_engine().tokenizer.encode(text)) for text in TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_texts_and_their_ids_are_the_same_input(client: OpenAI) -> None:
    ids = [shared_engine().tokenizer.encode(text) for text in TEXTS]
    texts = client.embeddings.create(model="tiny", input=TEXTS).data
    for given in (client.embeddings.create(model="tiny", input=ids).data, texts):
        for one, other in zip(given, texts, strict=True):
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    alone = client.embeddings.create(model="tiny", input=ids[0]).data
    assert len(alone) == 1 and alone[0].embedding == pytest.approx(texts[0].embedding, abs=1e-6)


def test_fewer_dimensions_are_the_first_scaled_again(client: OpenAI) -> None:
    whole = client.embeddings.create(model="tiny", input=TEXTS[0]).data[0].embedding
    short = client.embeddings.create(model="tiny", input=TEXTS[0], dimensions=16).data[0].embedding
    length = math.sqrt(sum(value * value for value in whole[:16]))
    assert short == pytest.approx([value / length for value in whole[:16]], abs=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {"input": ""},
        {"input": []},
        {"input": [[]]},
        {"input": [""]},
        {"input": [-1]},
        {"input": [4096]},
        {"input": [2**31]},
        {"input": [2**70]},
        {"input": [True]},
        {"input": [1.5]},
        {"input": [[1], [4096]]},
        {"input": ["a", 1]},
        {"input": ["a", [1]]},
        {"input": {"text": "a"}},
        {"input": None},
        {"input": [1] * 1025},
        {"input": ["a"] * 129},
        {"input": "a", "dimensions": 0},
        {"input": "a", "dimensions": 257},
        {"input": "a", "dimensions": "16"},
        {"input": "a", "encoding_format": "int8"},
    ],
)
def test_what_cannot_be_embedded_is_refused(client: OpenAI, body: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.post("/embeddings", body={"model": "tiny"} | body, cast_to=object)
    assert caught.value.body is not None
    assert len(client.embeddings.create(model="tiny", input="a").data) == 1


def test_sglangs_encode_gives_the_same(server: Running) -> None:
    one = call(server, "/encode", {"text": TEXTS[0], "rid": "mine"}).json
    assert one["embedding"] == pytest.approx(engines(TEXTS[0]), abs=1e-6)
    assert one["meta_info"]["id"] == "mine"
    ids = [shared_engine().tokenizer.encode(text) for text in TEXTS]
    several = call(server, "/encode", {"input_ids": ids}).json
    assert [each["meta_info"]["prompt_tokens"] for each in several] == [len(each) for each in ids]
    for text, each in zip(TEXTS, several, strict=True):
        assert each["embedding"] == pytest.approx(engines(text), abs=1e-6)
    for body in (
        {},
        {"text": "a", "input_ids": [1]},
        {"input_ids": [1, [1]]},
        {"text": ["a"], "rid": ["x", "y"]},
    ):
        assert call(server, "/encode", body).status == 400
