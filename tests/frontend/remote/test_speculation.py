"""``num_api_spec_tokens``: several gens from one request, counted in tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.remote_replies import chat_reply
from tests.support.remote_server import Asked, FakeServer, Reply


def tokens_of(text: str) -> list[str]:
    return re.findall(r" ?\w+|\W", text)


def cut(text: str, body: Any) -> tuple[str, str, list[str]]:
    """What a server makes of a whole answer: cut at stops and at max_tokens; words are tokens."""
    stops = [text.find(stop) for stop in body.get("stop", ()) if stop in text]
    text = text[: min(stops)] if stops else text
    tokens = tokens_of(text)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return "".join(tokens[:limit]), "length" if len(tokens) > limit else "stop", tokens[:limit]


class Writer:
    """Writes one text, from where a prompt has got to; as a chat it always begins at the beginning."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.calls: list[Any] = []

    def __call__(self, asked: Asked) -> Reply:
        body = asked.body
        self.calls.append(body)
        whole = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if "messages" in body:
            text, finish, tokens = cut(whole, body)
            content = [{"token": token, "logprob": -1.0} for token in tokens]
            reply = chat_reply(
                text, finish, **({"logprobs": {"content": content}} if body.get("logprobs") else {})
            )
            reply.json["usage"] = {"prompt_tokens": 10, "completion_tokens": len(tokens)}
            return reply
        written = body["prompt"].removeprefix("Facts. ")
        assert whole.startswith(written) or written not in whole
        text, finish, tokens = cut(whole[len(written) :] if whole.startswith(written) else " other\n", body)
        choice: dict[str, Any] = {"text": text, "finish_reason": finish}
        if "logprobs" in body:
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": [-1.0] * len(tokens)}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": len(tokens)}})


WHOLE = "Name: Ada Lovelace\nBorn: 1815\nWork: the first program\nMore: of it"


def plain(tokens: int | None, **first: Any) -> Any:
    @sgl.function(num_api_spec_tokens=tokens)
    def program(s: Any) -> None:
        s += "Facts. Name:" + sgl.gen("name", stop="\n", **first) + "\nBorn:"
        s += sgl.gen("born", stop="\n")
        s += "\nWork:" + sgl.gen("work", stop="\n")

    return program


def chat(tokens: int | None, stop: str | None = "\n", **first: Any) -> Any:
    @sgl.function(num_api_spec_tokens=tokens)
    def program(s: Any) -> None:
        s += sgl.user("Facts, please.")
        s += sgl.assistant(
            "Name:" + sgl.gen("name", stop=stop, **first) + "\nBorn:" + sgl.gen("born", stop=stop)
            + "\nWork:" + sgl.gen("work", stop="\n")
        )  # fmt: skip

    return program


def values(state: Any) -> list[str]:
    assert state.error() is None, state.error()
    return [state["name"], state["born"], state["work"]]


ALL = [" Ada Lovelace", " 1815", " the first program"]


@pytest.mark.parametrize(("tokens", "calls"), [(None, 3), (64, 1), (12, 2), (1, 6)])
def test_plain_text_is_the_same_with_fewer_requests(tokens: int | None, calls: int) -> None:
    writer = Writer(WHOLE)
    with FakeServer(writer) as server, sgl.OpenAICompatible(server.url, "m", dialect="compatible") as backend:
        state = plain(tokens).run(backend=backend)
        assert values(state) == ALL
        assert state.text() == "Facts. " + WHOLE.partition("\nMore")[0]
        assert len(writer.calls) == calls
        assert state.get_meta_info("born")["finish_reason"] == {
            "type": "stop",
            **({"matched": "\n"} if tokens in (12, 64) else {}),
        }
        assert state.usage.completion_tokens == backend.token_usage.completion_tokens


def test_limits_are_counted_in_tokens() -> None:  # b#26: SGLang counted characters
    writer = Writer("Name: Ada Lovelace and others\nBorn:")
    with FakeServer(writer) as server, sgl.OpenAICompatible(server.url, "m", dialect="compatible") as backend:
        state = plain(64, max_tokens=2).run(backend=backend)
        assert state["name"] == " Ada Lovelace"
        assert state.get_meta_info("name")["finish_reason"] == {"type": "length"}
        assert writer.calls[0]["logprobs"] == 1 and writer.calls[0]["max_tokens"] == 64


def test_where_tokens_cannot_be_counted_the_gen_is_asked_for_alone() -> None:  # b#26
    def script(asked: Asked) -> Reply:
        limit = asked.body["options"]["num_predict"]
        text = "".join(tokens_of(" Ada Lovelace and others\nBorn:")[:limit])
        return Reply({"response": text, "done": True, "done_reason": "length", "eval_count": limit})

    with FakeServer(script) as server, sgl.OpenAICompatible(server.url, "m", dialect="ollama") as backend:
        assert plain(5, max_tokens=2).run(backend=backend)["name"] == " Ada Lovelace"
        assert [asked.body["options"]["num_predict"] for asked in server.asked[:2]] == [5, 2]


def test_text_that_the_model_did_not_write_is_asked_about() -> None:
    writer = Writer("Name: Ada\nDied: 1852")
    with FakeServer(writer) as server, sgl.OpenAICompatible(server.url, "m", dialect="compatible") as backend:
        state = plain(64).run(backend=backend)
        assert values(state) == [" Ada", " other", " other"] and len(writer.calls) == 3


@pytest.mark.parametrize("stop", ["\n", None])
def test_one_request_for_a_message_of_a_chat(stop: str | None) -> None:
    writer = Writer(WHOLE)
    with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        state = chat(64, stop).run(backend=backend)
        assert values(state) == ALL and len(writer.calls) == 1
        assert writer.calls[0]["messages"] == [{"role": "user", "content": "Facts, please."}]
        assert "stop" not in writer.calls[0] and writer.calls[0]["max_completion_tokens"] == 64
        assert state.messages()[-1]["content"] == WHOLE.partition("\nMore")[0]


def test_a_message_that_does_not_fit_is_asked_for_again() -> None:
    writer = Writer("Sure! Name: Ada", "Name: Ada\nWork: none", WHOLE)
    with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        state = chat(64).run(backend=backend)
        assert values(state) == ALL and len(writer.calls) == 3
        assert state.usage.completion_tokens == backend.token_usage.completion_tokens


@sgl.function(num_api_spec_tokens=64)
def gen_first(s: Any) -> None:
    s += sgl.user("Who?") + sgl.assistant(sgl.gen("name", stop=",") + ", born " + sgl.gen("born"))


@pytest.mark.parametrize("seed", [None, 7])
def test_a_message_that_begins_with_a_gen_is_asked_for_again_too(seed: int | None) -> None:
    writer = Writer("Ada Lovelace, of London", "Ada, born in 1815")
    with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        state = gen_first.run(backend=backend, seed=seed)
        assert (state["name"], state["born"]) == ("Ada", "in 1815"), state.error()
        seeds = [call.get("seed") for call in writer.calls]
        assert len(seeds) == 2 and (seeds == [None, None] if seed is None else len(set(seeds)) == 2)


def test_a_gen_alone_may_be_longer() -> None:
    @sgl.function(num_api_spec_tokens=4)
    def program(s: Any) -> None:
        s += sgl.user("Go on.") + sgl.assistant(sgl.gen("x", max_tokens=64))

    writer = Writer("one two three four five six seven")
    with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        assert program.run(backend=backend)["x"] == writer.texts[0]
        assert [call["max_completion_tokens"] for call in writer.calls] == [4, 64]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sure! Name: Ada", "it does not begin with 'Name:'"),
        ("Name: Ada\nWork: none", r"its texts ['\nBorn:', '\nWork:'] are not where the program has them"),
        ("Name:" + " Ada" * 99, "does not end within num_api_spec_tokens=64"),
    ],
)
def test_tries_are_bounded(text: str, message: str) -> None:
    writer = Writer(text)
    with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        error = chat(64).run(backend=backend).error()
        assert message in str(error) and "3 times" in str(error) and len(writer.calls) == 3
        assert isinstance(error.__cause__, sgl.RequestError)


def test_without_it_such_an_api_says_what_would_help() -> None:
    with FakeServer([]) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        assert "num_api_spec_tokens" in str(chat(None).run(backend=backend).error())


def test_a_message_in_steps_and_the_gens_of_forks() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        s += sgl.user("Facts, please.")
        with s.assistant():
            s += "Name:" + sgl.gen("name", stop="\n")
            forks = s.fork(2)
            forks += "\nBorn:" + sgl.gen("born", stop="\n")
            forks.join()

    for temperature, calls in ((0, 1), (1, 2)):  # forks that draw each have their own draw
        writer = Writer(WHOLE)
        with FakeServer(writer) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
            state = program.run(backend=backend, temperature=temperature)
            assert state["born"] == [" 1815", " 1815"], state.error()
            assert len(writer.calls) == calls


def test_each_of_several_samples_is_drawn() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        s += "Facts. Name:" + sgl.gen("name", stop="\n", n=3)

    writer = Writer(WHOLE)
    with FakeServer(writer) as server, sgl.OpenAICompatible(server.url, "m", dialect="compatible") as backend:
        assert program.run(backend=backend)["name"] == [" Ada Lovelace"] * 3
        assert len(writer.calls) == 3


@pytest.mark.parametrize("params", [{"json_schema": {"type": "object"}}, {"return_logprob": True}])
def test_gens_that_cannot_share_a_request_have_their_own(params: dict[str, Any]) -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        s += sgl.user("Hi") + sgl.assistant(sgl.gen("x", **params))

    with FakeServer([chat_reply("{}")]) as server, sgl.OpenAI("gpt", "k", base_url=server.url) as backend:
        assert program.run(backend=backend)["x"] == "{}"
        assert server.asked[0].body["max_completion_tokens"] == 128


def test_errors_arrive() -> None:
    with FakeServer([Reply({"error": {"message": "no"}}, 400)]) as server:
        error = chat(64).run(backend=sgl.OpenAI("gpt", "k", base_url=server.url)).error()
        assert isinstance(error.__cause__, sgl.RemoteRequestError)


def test_a_backend_of_tokens_takes_no_notice() -> None:
    backend = FakeBackend()
    assert plain(64).run(backend=backend)["name"] == "answer 1"
    assert [call.params["max_new_tokens"] for call in backend.calls] == [128] * 3


def test_it_is_kept_when_arguments_are_bound() -> None:  # b#22
    assert plain(64).bind().num_api_spec_tokens == 64
    with pytest.raises(ValueError, match="at least 1, not 0"):
        plain(0)
