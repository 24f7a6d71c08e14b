"""Load tests of serving.md (T1, T2, T3, T12, T13, T18, T23), each followed by the oracle; acceptance 15, 18, 22.

What fits into a test here; the sizes that are asked for are marked slow.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import aiohttp
import pytest

from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.limits import Limits
from tests.support.http_clients import address, call, connect, read_all
from tests.support.local_stub import LocalStub, stub
from tests.support.oracle import nothing_lost
from tests.support.servers import Running, running, wait_until

slow = (pytest.mark.slow, pytest.mark.load)


@pytest.fixture
def fake() -> Iterator[LocalStub]:
    with stub(step=0.002, max_running_requests=64) as engine:
        yield engine


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


class Client:
    """Sends many calls at once.

    Args:
        server: where.
        keys: whose; one after another.
    """

    def __init__(self, server: Running) -> None:
        self._url = server.url
        self.statuses: Counter[int] = Counter()
        self.ends: Counter[str] = Counter()

    async def post(self, body: dict[str, Any], leave: float | None = None, key: str | None = None) -> None:
        """One call; `leave`: seconds after which its client goes away."""
        try:
            async with asyncio.timeout(leave):
                await self._post(body, {} if key is None else {"x-api-key": key})
        except TimeoutError:
            self.ends["left"] += 1

    async def _post(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        async with self._session.post(self._url + "/v1/completions", json=body, headers=headers) as response:
            status = response.status
            if not body.get("stream") or status != 200:
                answer = await response.json()
                self.ends["whole" if status == 200 else answer["error"]["code"]] += 1
                assert status == 200 or status < 500 or "Retry-After" in response.headers
            else:
                events = (await response.read()).split(b"\n\n")
                assert events[-2:] == [b"data: [DONE]", b""] and events.count(b"data: [DONE]") == 1
                self.ends["stream"] += 1
        self.statuses[status] += 1

    def run(self, calls: Any) -> None:
        """Run a coroutine that makes calls."""

        async def main() -> None:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(600)
            ) as session:
                self._session = session
                await calls

        asyncio.run(main())


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=slow)])
def test_t1_many_streams_at_once(fake: LocalStub, count: int) -> None:
    with running(ServerConfig(limits=Limits(queue_requests=2000)), fake) as server, nothing_lost(server):
        for _ in range(3):
            client = Client(server)

            async def calls(client: Client = client) -> None:
                body = {"prompt": "hi", "max_tokens": 16, "stream": True}
                await asyncio.gather(*(client.post(body) for _ in range(count)))

            client.run(calls())
            assert client.ends == {"stream": count}


def _some_request(rng: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": "play " + "some more of the " * rng.randrange(8),
        "max_tokens": rng.randrange(1, 24),
        "temperature": rng.choice([0, 1]),
        "stream": rng.random() < 0.5,
    }
    if rng.random() < 0.2:
        body["max_tokens"] = 24
        body["regex"] = rng.choice(["[a-z ]{5,40}", "(yes|no) [0-9]+", '\\{"a": [0-9]{1,5}\\}'])
    if rng.random() < 0.1:
        body["n"] = 4
    return body


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=slow)])
def test_t2_15_a_storm_of_aborts_leaves_nothing(server: Running, count: int) -> None:
    seed = 7
    rng = random.Random(seed)
    with nothing_lost(server):
        client = Client(server)

        async def calls() -> None:
            room = asyncio.Semaphore(40)

            async def one(body: dict[str, Any], leave: float | None) -> None:
                async with room:
                    await client.post(body, leave)

            await asyncio.gather(
                *(
                    one(_some_request(rng), rng.uniform(0, 0.3) if rng.random() < 0.3 else None)
                    for _ in range(count)
                )
            )

        client.run(calls())
        assert set(client.statuses) == {200}
        assert 0 < client.ends["left"] < count / 2


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=slow)])
def test_t3_overload_is_refused_and_what_is_taken_is_done(seconds: int) -> None:
    """Five times what the engine can do is offered: 16 rows of 10 steps of 5 ms are 320 a second."""
    body = {"prompt": "hi", "max_tokens": 10}
    with stub(step=0.005, max_running_requests=16) as engine:
        config = ServerConfig(limits=Limits(queue_requests=32))
        with running(config, engine) as server, nothing_lost(server):
            client = Client(server)

            async def calls() -> None:
                sent: set[asyncio.Task[None]] = set()
                loop = asyncio.get_running_loop()
                end = loop.time() + seconds
                while loop.time() < end:
                    for _ in range(5 * 32):
                        task = asyncio.create_task(client.post(body))
                        sent.add(task)
                        task.add_done_callback(sent.discard)
                    await asyncio.sleep(0.1)
                    while len(sent) > 500:  # this machine has a limit, too
                        await asyncio.sleep(0.01)
                await asyncio.gather(*sent)

            client.run(calls())
            admission = server.server.admission
            assert admission.most_sequences <= 16 + 32
            assert set(client.ends) == {"whole", "queue_full"}
            assert admission.rejected["queue_requests"] == client.ends["queue_full"] > 0
            assert call(server, "/v1/completions", body).status == 200


HASTY = Limits(header_seconds=1.0, body_seconds=1.5)


@pytest.mark.parametrize(
    ("headers", "bodies", "limits"), [(300, 50, HASTY), pytest.param(2000, 500, Limits(), marks=slow)]
)
def test_t12_slow_clients_are_closed_and_others_are_served(
    fake: LocalStub, headers: int, bodies: int, limits: Limits
) -> None:
    with running(ServerConfig(limits=limits), fake) as server, nothing_lost(server), ExitStack() as stack:
        half = [stack.enter_context(connect(server)) for _ in range(headers)]
        for sock in half:
            sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
        partial = [stack.enter_context(connect(server)) for _ in range(bodies)]
        for sock in partial:
            sock.sendall(
                b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"prompt"'
            )
        for _ in range(50):
            assert call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 2}).status == 200
        assert all(read_all(sock) == b"" for sock in half)
        assert Counter(read_all(sock)[:12] for sock in partial) == {b"HTTP/1.1 408": bodies}


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=slow)])
def test_t13_22_clients_that_do_not_read_cost_nobody_anything(count: int) -> None:
    body = b'{"prompt": "hi", "max_tokens": 30000, "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with stub(step=0.0005, max_running_requests=1024) as engine:
        config = ServerConfig(limits=Limits(stream_seconds=1.0))
        with running(config, engine) as server, nothing_lost(server), ExitStack() as stack:
            before = len(server.server.observer.calls)
            for _ in range(count):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(address(server))
                sock.sendall(head + body)
            wait_until(lambda: server.server.admission.admitted >= count)
            assert call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 2}).status == 200
            wait_until(lambda: len(server.server.observer.calls) == before, 120)
            wait_until(lambda: server.server.observer.totals.ended["abort"] >= count)


def test_t18_when_files_run_out_connections_wait_and_nothing_breaks(fake: LocalStub) -> None:
    with running(ServerConfig(), fake) as server, nothing_lost(server):
        server.runner.guard.max_connections = 50
        with ExitStack() as stack:
            held = []
            for _ in range(50):
                held.append(stack.enter_context(connect(server)))
                held[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert held[-1].recv(4096)
            for _ in range(20):
                assert read_all(stack.enter_context(connect(server))) == b""
        wait_until(lambda: server.runner.guard.connections == 0)
        assert call(server, "/livez").status == 200


def test_t18_the_limit_follows_from_the_files_there_are(fake: LocalStub) -> None:
    with running(ServerConfig(), fake) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
            with ExitStack() as stack:
                for _ in range(40):
                    stack.enter_context(connect(server))
                wait_until(lambda: server.runner.guard.connections > 30)
                assert server.runner.guard.connections <= 128 - 64
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert call(server, "/livez").status == 200


def test_t23_a_prompt_alone_and_among_many_gets_the_same(server: Running) -> None:
    bodies = [
        {"prompt": f"play {what}", "max_tokens": 12, "temperature": temperature, "seed": 3}
        for what in ("jazz", "some music by the", "")
        for temperature in (0, 1)
    ]
    alone = [call(server, "/v1/completions", body).json["choices"][0]["text"] for body in bodies]
    found: list[list[str]] = []
    client = Client(server)

    async def calls() -> None:
        async def text(body: dict[str, Any]) -> str:
            async with client._session.post(server.url + "/v1/completions", json=body) as response:
                answer: str = (await response.json())["choices"][0]["text"]
                return answer

        for _ in range(2):
            others = [client.post({"prompt": f"set an alarm for {i}", "max_tokens": 20}) for i in range(26)]
            texts, _ = await asyncio.gather(asyncio.gather(*map(text, bodies)), asyncio.gather(*others))
            found.append(list(texts))

    with nothing_lost(server):
        client.run(calls())
    assert found == [alone, alone]


@pytest.mark.slow
@pytest.mark.load
def test_18_memory_does_not_grow_with_requests(server: Running) -> None:
    """50,000 requests: less than 1 KiB each, after a warm-up."""

    def resident() -> int:
        with open("/proc/self/status") as file:
            sizes = [int(line.split()[1]) for line in file if line.startswith(("RssAnon", "VmSwap"))]
        return sum(sizes) * 1024

    async def calls(client: Client, count: int) -> None:
        for start in range(0, count, 100):
            bodies = [
                {"prompt": f"{start + i} times", "max_tokens": 2, "stream": i % 2 == 0} for i in range(100)
            ]
            await asyncio.gather(*map(client.post, bodies))

    client = Client(server)
    client.run(calls(client, 5_000))
    with nothing_lost(server):
        before = resident()
        client.run(calls(client, 50_000))
        assert resident() - before < 50_000 * 1024
