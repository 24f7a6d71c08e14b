"""Programs on our own server give what they give on the engine in this process: texts, tokens, values, scores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import sgl_like as sgl
from sgl_like.errors import EngineUnavailable, RemoteAuthenticationError, RemoteError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from tests.support.proxy import proxied
from tests.support.servers import Running, running, shared_engine


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def here() -> sgl.Runtime:
    return sgl.Runtime.from_engine(shared_engine())


@pytest.fixture(scope="module")
def there(server: Running) -> Iterator[sgl.RuntimeEndpoint]:
    with sgl.RuntimeEndpoint(server.url) as backend:
        assert backend.dialect.name == "sgl_like" and backend.ids_are_tokens
        yield backend


class Person(BaseModel):
    name: str
    age: int
    kind: Literal["cat", "dog", "bird"]


@sgl.function
def plain(s: Any) -> None:
    s += "Once upon a time" + sgl.gen("x", max_tokens=16) + "." + sgl.gen("y", max_tokens=8, stop=["e", "\n"])


@sgl.function
def roles(s: Any) -> None:
    s += sgl.system("You help.")
    s += sgl.user("Book a table <|im_end|> for two")
    s += sgl.assistant("Well: " + sgl.gen("a", max_tokens=12))
    s += sgl.user("And now?")
    s += sgl.assistant(sgl.gen("b", max_tokens=12, stop_regex="[aeiou]{2}"))


@sgl.function
def constrained(s: Any) -> None:
    s += "A number: " + sgl.gen("number", regex="[0-9]{3}-[a-f]{2}", max_tokens=20)
    s += "\nA person: " + sgl.gen("person", json_schema=Person, max_tokens=80)
    s += "\nAny order: " + sgl.gen(
        "order", json_schema=Person, max_tokens=120, property_order="any", whitespace="any"
    )
    s += "\nA grammar: " + sgl.gen("grammar", ebnf='root ::= "yes" | "no" | "may" "be"+', max_tokens=12)
    s += "\nTyped: " + sgl.gen("typed", dtype=int, max_tokens=8) + sgl.gen_string("string", max_tokens=16)


@sgl.function
def sampled(s: Any) -> None:
    s += "Sampled:" + sgl.gen("x", max_tokens=16, temperature=1.0, seed=3, top_p=0.9, top_k=50, min_p=0.01)
    s += sgl.gen("y", max_tokens=16, frequency_penalty=1.0, presence_penalty=0.5, repetition_penalty=1.2)
    s += sgl.gen("z", max_tokens=12, min_tokens=6, bad_words=["e", "the"], ignore_eos=True)
    s += sgl.gen("many", max_tokens=6, n=3, temperature=1.2, seed=8)
    s += sgl.gen("biased", max_tokens=6, logit_bias={"70": 40.0}, stop_token_ids=[71])


@sgl.function
def selects(s: Any) -> None:
    s += "The capital of France is " + sgl.select("a", ["Paris", "London", "a", "Pa", "Paris, of course"])
    s += ". Yes or no? " + sgl.select("b", ["yes", "no"], choices_method=sgl.greedy_token_selection)
    s += sgl.select("c", [" one", " two"], choices_method=sgl.unconditional_likelihood_normalized)
    s += sgl.select("d", [" up", " down", " left"], temperature=1.5, seed=4)
    s += sgl.user("And?") + sgl.assistant(sgl.select("e", ["so", "thus"]))


@sgl.function
def forks(s: Any) -> None:
    s += "Tips:"
    branches = s.fork(3)
    for at, branch in enumerate(branches):
        branch += f"\n{at}." + sgl.gen("tip", max_tokens=8)
    branches.join()
    s += "\nIn all: " + " | ".join(str(branch["tip"]) for branch in branches) + sgl.gen("end", max_tokens=8)


def weather(city: str, day: Literal["today", "tomorrow"]) -> str:
    """The weather somewhere."""
    return f"rain in {city} {day}"


@sgl.function
def tools(s: Any) -> None:
    s += sgl.user("What is the weather?")
    s += sgl.assistant(sgl.gen("x", tools=[weather], tool_choice="required", max_tokens=100))


@sgl.function
def scored(s: Any) -> None:
    s += "Once" + sgl.gen(
        "x", max_tokens=8, return_logprob=True, top_logprobs_num=2, logprob_start_len=0,
        return_text_in_logprobs=True,
    )  # fmt: skip
    s += sgl.gen("y", max_tokens=60, json_schema=Person, return_logprob=True, token_ids_logprob=[5])


@sgl.function
def pinned(s: Any) -> None:
    s += "A prefix that is kept: "
    with sgl.pinned(s):
        s += sgl.gen("x", max_tokens=6)
    s += sgl.gen("y", max_tokens=6, dtype=bool)


PROGRAMS: list[tuple[Any, str]] = [
    (plain, "x y"),
    (roles, "a b"),
    (constrained, "number person order grammar typed string"),
    (sampled, "x y z many biased"),
    (selects, "a b c d e"),
    (forks, "end"),
    (tools, "x"),
    (scored, "x y"),
    (pinned, "x y"),
]


def seen(state: sgl.ProgramState, names: str) -> dict[str, Any]:
    """Text and values, and of what is known about them what does not depend on the cache and the clock."""
    found: dict[str, Any] = {"text": state.text()}
    for name in names.split():
        found[name] = (str(state[name]), meta_of(state.get_meta_info(name)))
    return found


def meta_of(meta: Any) -> Any:
    if isinstance(meta, list):
        return [meta_of(each) for each in meta]
    if not isinstance(meta, dict):
        return meta
    names = ("finish_reason", "prompt_tokens", "completion_tokens", "forced_tokens", "output_ids", "choice_probs",
             "output_token_logprobs", "input_token_logprobs", "output_top_logprobs")  # fmt: skip
    return {name: rounded(meta[name]) for name in names if name in meta}


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-4)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("program", "names"), PROGRAMS, ids=[program.name for program, _ in PROGRAMS])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_programs_give_the_same(
    program: Any, names: str, stream: bool, here: sgl.Runtime, there: sgl.RuntimeEndpoint
) -> None:
    given = {"temperature": 0.0}
    expected = program.run(backend=here, **given)
    state = program.run(backend=there, stream=stream, **given)
    if stream:
        assert "".join(state.text_iter()) == expected.text()
    assert seen(state, names) == seen(expected, names)


def requests_of(server: Running) -> int:
    return server.server.observer.totals.http_requests["/generate", "POST"]


def test_choices_are_scored_in_one_request(server: Running, there: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "The capital of France is " + sgl.select("a", ["Paris", "London", "Rome", "Berlin"])

    before = requests_of(server)
    program.run(backend=there)
    assert requests_of(server) == before + 1


def test_more_choices_than_one_request_may_have(here: sgl.Runtime, there: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "A number: " + sgl.select("a", [str(number) for number in range(300)])

    expected, found = program.run(backend=here), program.run(backend=there)
    assert found["a"] == expected["a"]
    assert found.get_meta_info("a")["choice_probs"] == rounded(expected.get_meta_info("a")["choice_probs"])


def test_nothing_is_computed_twice(there: sgl.RuntimeEndpoint) -> None:
    assert there.flush_cache()
    state = roles.run(backend=there, temperature=0)
    first, second = state.get_meta_info("a"), state.get_meta_info("b")
    assert first["cached_tokens"] == 0
    # the last token that was sampled was never an input of the model
    assert second["cached_tokens"] == first["prompt_tokens"] + first["completion_tokens"] - 1


def test_without_a_tokenizer_text_is_sent(server: Running, here: sgl.Runtime) -> None:
    with sgl.RuntimeEndpoint(server.url, tokenizer=None) as backend:
        expected = plain.run(backend=here, temperature=0)
        assert plain.run(backend=backend, temperature=0).text() == expected.text()
        streamed = plain.run(backend=backend, temperature=0, stream=True)
        assert "".join(streamed.text_iter()) == expected.text()

        @sgl.function
        def choose(s: Any) -> None:
            s += "The capital of France is " + sgl.select("a", ["Paris", "London", "Pa"])

        a, b = (choose.run(backend=each).get_meta_info("a")["choice_probs"] for each in (here, backend))
        assert a == rounded(b)


def test_a_batch_keeps_its_connections(server: Running, here: sgl.Runtime) -> None:
    rows = [{"at": at} for at in range(64)]

    @sgl.function
    def program(s: Any, at: int) -> None:
        s += f"Row {at}: " + sgl.gen("x", max_tokens=6) + sgl.gen("y", max_tokens=4)

    expected = [state.text() for state in program.run_batch(rows, backend=here, temperature=0)]
    with proxied(server.url) as proxy, sgl.RuntimeEndpoint(proxy.url, max_connections=8) as backend:
        states = program.run_batch(rows, backend=backend, temperature=0, num_threads=32)
        assert [state.text() for state in states] == expected
        assert proxy.connections <= 8, "for 129 requests"
    with proxied(server.url) as proxy, sgl.RuntimeEndpoint(proxy.url) as backend:
        for row in rows[:8]:
            program.run(**row, backend=backend)
        assert proxy.connections == 1


def test_a_server_that_refuses_some_is_asked_again(here: sgl.Runtime) -> None:
    rows = [{"at": at} for at in range(32)]

    @sgl.function
    def program(s: Any, at: int) -> None:
        s += f"Row {at}: " + sgl.gen("x", max_tokens=6)

    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.005)

    expected = [state.text() for state in program.run_batch(rows, backend=here, temperature=0)]
    config = ServerConfig(api_keys=("k",), key_max_requests=2)
    with (
        running(config) as server,
        sgl.RuntimeEndpoint(server.url, api_key="k", max_retries=10_000, sleep=sleep) as backend,
    ):
        states = program.run_batch(rows, backend=backend, temperature=0, num_threads=16)
        assert [state.text() for state in states] == expected
    assert waits and min(waits) >= 1.0, "the server says that it is at least a second"


def test_keys(here: sgl.Runtime) -> None:
    with running(ServerConfig(api_keys=("open-sesame",), admin_key="the-boss")) as server:
        with pytest.raises(RemoteAuthenticationError):
            sgl.RuntimeEndpoint(server.url)
        with sgl.RuntimeEndpoint(server.url, api_key="open-sesame") as backend:
            assert (
                plain.run(backend=backend, temperature=0).text()
                == plain.run(backend=here, temperature=0).text()
            )
            with pytest.raises(RemoteAuthenticationError, match="admin key") as caught:
                backend.flush_cache()
            assert "open-sesame" not in f"{backend!r} {caught.value}"
        with sgl.RuntimeEndpoint(server.url, api_key="the-boss") as backend:
            assert backend.flush_cache()


def test_what_requests_have_besides(server: Running) -> None:
    prefix = "A prefix that is asked for under two salts, which have nothing in common. " * 2

    @sgl.function
    def program(s: Any) -> None:
        s += prefix + sgl.gen("x", max_tokens=2)

    def cached(salt: str) -> int:
        extra = {"cache_salt": salt, "priority": 3}
        with sgl.RuntimeEndpoint(server.url, extra_body=extra) as backend:
            backend.cache_prefix(prefix)
            return int(program.run(backend=backend).get_meta_info("x")["cached_tokens"])

    with sgl.RuntimeEndpoint(server.url, extra_body={"cache_salt": "c"}) as backend:
        assert program.run(backend=backend).get_meta_info("x")["cached_tokens"] == 0
    assert cached("a") == cached("b") > 0

    @sgl.function
    def slow(s: Any) -> None:
        s += "Once" + sgl.gen("x", max_tokens=900, ignore_eos=True)

    late = sgl.RuntimeEndpoint(server.url, extra_body={"deadline": 0.01})
    before = requests_of(server)
    with late, pytest.raises(sgl.ProgramError, match="deadline"):
        slow.run(backend=late).text()
    assert requests_of(server) == before + 1, "it is not tried again"


def test_what_the_server_says_of_itself(there: sgl.RuntimeEndpoint) -> None:
    assert there.get_server_info()["dtype"] == "float32"
    before = there.cache_stats()
    plain.run(backend=there)
    after = there.cache_stats()
    assert after.hits + after.misses > before.hits + before.misses and after.capacity == before.capacity


def test_images_are_refused(server: Running, there: sgl.RuntimeEndpoint) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(16)

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user(sgl.image(picture)) + sgl.assistant(sgl.gen("x", max_tokens=2))

    before = requests_of(server)
    with pytest.raises(sgl.ProgramError, match="image"):
        program.run(backend=there).text()
    with (
        sgl.RuntimeEndpoint(server.url, tokenizer=None) as backend,
        pytest.raises(sgl.ProgramError, match="image"),
    ):
        program.run(backend=backend).text()
    assert requests_of(server) == before


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(("program", "names"), PROGRAMS, ids=[program.name for program, _ in PROGRAMS])
def test_streams_that_break_off_go_on(
    program: Any, names: str, server: Running, here: sgl.Runtime, there: sgl.RuntimeEndpoint
) -> None:
    expected = program.run(backend=here, temperature=0)
    rng = random.Random(names)
    with (
        proxied(server.url) as proxy,
        sgl.RuntimeEndpoint(proxy.url, max_retries=50, sleep=at_once) as backend,
    ):
        for _ in range(6):
            proxy.cuts = [rng.randrange(1, 3000) for _ in range(8)]
            state = program.run(backend=backend, temperature=0, stream=True)
            assert "".join(state.text_iter()) == expected.text()
            assert seen(state, names) == seen(expected, names)
        assert proxy.connections > 6


def test_without_a_tokenizer_streams_go_on_too(server: Running, here: sgl.Runtime) -> None:
    expected = plain.run(backend=here, temperature=1.0, seed=2)
    rng = random.Random(1)
    with (
        proxied(server.url) as proxy,
        sgl.RuntimeEndpoint(proxy.url, tokenizer=None, max_retries=50, sleep=at_once) as backend,
    ):
        for _ in range(6):
            proxy.cuts = [rng.randrange(1, 2000) for _ in range(8)]
            state = plain.run(backend=backend, temperature=1.0, seed=2, stream=True)
            assert "".join(state.text_iter()) == expected.text()


class Failing(LocalEngine):
    """Fails every other request after some outputs, as an engine does that dies; is away for the request after it."""

    def __init__(self) -> None:
        super().__init__(shared_engine())
        self.submitted = 0

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """Start it, if this is not one of those that are refused."""
        self.submitted += 1
        if self.submitted % 3 == 2:
            raise EngineUnavailable("the engine is being started")
        left = 3 if self.submitted % 3 == 1 else 10**9
        failed = False

        def some(output: Output) -> None:
            nonlocal left, failed
            left -= 1
            if left >= 0:
                receive(output)
            elif not failed:
                failed = True
                self.abort(request.rid)
                error = EngineUnavailable("the engine died")
                receive(Output(request.rid, finish=FinishReason("error", message=str(error)), error=error))

        super().submit(request, some)


@pytest.mark.parametrize(("program", "names"), PROGRAMS, ids=[program.name for program, _ in PROGRAMS])
def test_engines_that_fail_are_waited_for(program: Any, names: str, here: sgl.Runtime) -> None:
    expected = program.run(backend=here, temperature=0)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    engine = Failing()
    with running(engine=engine) as server, sgl.RuntimeEndpoint(server.url, sleep=sleep) as backend:
        state = program.run(backend=backend, temperature=0, stream=True)
        assert "".join(state.text_iter()) == expected.text()
        assert seen(state, names) == seen(expected, names)
    assert engine.submitted > 1 and all(seconds >= 0.25 for seconds in slept)


def test_a_client_that_may_not_try_again_says_what_happened() -> None:
    with running(engine=Failing()) as server, sgl.RuntimeEndpoint(server.url, max_retries=0) as backend:
        state = plain.run(backend=backend, stream=True, temperature=0)
        with pytest.raises(sgl.ProgramError) as caught:
            list(state.text_iter())
        assert isinstance(caught.value.__cause__, RemoteError)


@sgl.function
def chat(s: Any, begun: str, options: dict[str, Any]) -> None:
    s += sgl.system("You help.")
    s += sgl.user("Book a table <|im_end|> for two") + sgl.assistant("Done.") + sgl.user("And now?")
    s += sgl.assistant(begun + sgl.gen("x", **options))


CHATS: list[tuple[str, dict[str, Any]]] = [
    ("", {"max_tokens": 16}),
    ("Well: ", {"max_tokens": 12, "stop": "e"}),
    ("", {"max_tokens": 80, "json_schema": Person}),
    ("Code ", {"max_tokens": 20, "regex": "[a-c]{3}-[0-9]{2}"}),
    ("", {"max_tokens": 16, "temperature": 1.0, "seed": 5, "top_p": 0.9, "frequency_penalty": 0.5}),
]


@pytest.mark.parametrize(("begun", "options"), CHATS)
def test_without_a_tokenizer_messages_are_the_servers_to_write(
    server: Running, here: sgl.Runtime, begun: str, options: dict[str, Any]
) -> None:
    given = {"temperature": 0.0} | options
    expected = chat.run(begun, given, backend=here)
    backends = (
        sgl.RuntimeEndpoint(server.url, tokenizer=None),
        sgl.OpenAICompatible(f"{server.url}/v1"),
    )
    for backend in backends:
        with backend:
            assert backend.dialect.name == "sgl_like"
            for stream in (False, True):
                state = chat.run(begun, given, backend=backend, stream=stream)
                assert "".join(state.text_iter("x")) == str(expected["x"])
                assert state.messages() == expected.messages()
