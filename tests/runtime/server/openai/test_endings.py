"""How streams end: as they should, aborted by the server, with the engine's failure, or since the client has gone."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from sgl_like.errors import EngineError, EngineUnavailable, RequestAborted, RequestError
from tests.support.posting import opened, post
from tests.support.scripted_engine import ScriptedEngine
from tests.support.servers import Running, running, wait_until

BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
}


def events(server: Running, path: str, **options: Any) -> list[str]:
    body = BODIES[path] | {"stream": True} | options
    lines = post(server.url + path, body)[1].split("\n\n")
    assert lines.pop() == ""
    return [line.removeprefix("data: ") for line in lines]


def reasons(found: list[str]) -> list[str]:
    choices = [json.loads(event)["choices"] for event in found]
    return [each["finish_reason"] for listed in choices for each in listed if each["finish_reason"]]


@pytest.mark.parametrize("path", BODIES)
def test_the_end_is_told(path: str) -> None:
    with running(engine=ScriptedEngine(["a", "b"])) as server:
        found = events(server, path)
    assert found[-1] == "[DONE]"
    assert reasons(found[:-1]) == ["stop"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "error", [EngineUnavailable("the engine died"), EngineError("secret"), RuntimeError("secret")]
)
def test_an_engine_that_fails_midway_is_told_of_and_nothing_comes_after(path: str, error: Exception) -> None:
    failure: Any = error if isinstance(error, EngineError) else EngineError(str(error))
    with running(engine=ScriptedEngine(["a", "b", failure])) as server:
        found = events(server, path)
    last = json.loads(found[-1])["error"]
    assert last["code"] == "service_unavailable"
    assert "secret" not in last["message"]
    assert not reasons(found[:-1])
    assert len(found) >= 3


@pytest.mark.parametrize("path", BODIES)
def test_clients_raise_what_ends_a_stream(path: str) -> None:
    with running(engine=ScriptedEngine(["a", EngineUnavailable("the engine died")])) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        create: Any = client.completions.create if "chat" not in path else client.chat.completions.create
        stream = create(model="tiny", stream=True, **BODIES[path])
        with pytest.raises(openai.APIError, match="the engine died"):
            list(stream)


@pytest.mark.parametrize("path", BODIES)
def test_what_fails_at_once_is_an_answer_of_its_own(path: str) -> None:
    for error, status in ((RequestError("no"), 400), (EngineUnavailable("dead"), 503)):
        with running(engine=ScriptedEngine([error])) as server:
            for stream in (True, False):
                given, text = post(server.url + path, BODIES[path] | {"stream": stream})
                assert given == status
                assert json.loads(text)["error"]["message"] in ("no", "dead")


@pytest.mark.parametrize("path", BODIES)
def test_what_the_server_aborts_ends_with_its_reason(path: str) -> None:
    with running(engine=ScriptedEngine(["a", RequestAborted("draining")])) as server:
        found = events(server, path)
        assert found[-1] == "[DONE]"
        assert reasons(found[:-1]) == ["abort"]
        whole = json.loads(post(server.url + path, BODIES[path])[1])["choices"][0]
        assert whole["finish_reason"] == "abort"
        assert whole.get("text", whole.get("message", {}).get("content")) == "a"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("n", [1, 3])
def test_requests_of_clients_that_have_gone_are_aborted(path: str, n: int) -> None:
    engine = ScriptedEngine(["a", None, "b"])
    with running(engine=engine) as server:
        body = BODIES[path] | {"stream": True, "n": n}
        with opened(server.url + path, body) as answer:
            assert answer.read(1)
        wait_until(lambda: sorted(engine.aborted) == sorted(each.rid for each in engine.requests))
        assert len(engine.aborted) == n


@pytest.mark.parametrize("path", BODIES)
def test_one_failure_ends_all_outputs(path: str) -> None:
    engine = ScriptedEngine(["a", "b", EngineUnavailable("dead")])
    with running(engine=engine) as server:
        found = events(server, path, n=2)
    assert "error" in json.loads(found[-1])
    assert sum("error" in json.loads(event) for event in found) == 1
