from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from sgl_like.runtime.server.config import ServerConfig
from tests.support.browser import CHROMIUM, Page, browser
from tests.support.servers import Running, running

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as started:
        yield started


def in_browser(
    server: Running, profile: Path, use: Callable[[Page], Awaitable[None]], view: str = ""
) -> None:
    async def run() -> None:
        async with browser(profile) as page:
            await page.open(f"{server.url}/{view}")
            await use(page)
            assert page.console == []

    asyncio.run(run())


def test_files_of_the_page_and_nothing_else(server: Running) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession(server.url) as session:
            async with session.get("/") as answer:
                assert answer.status == 200
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "http" not in (await answer.text()).replace("http-equiv", "")
            for name in ("main.js", "style.css"):
                async with session.get(f"/static/{name}") as answer:
                    assert answer.status == 200
            for name in ("nothing.js", "..%2Froutes.py", "%2e%2e/routes.py"):
                async with session.get(f"/static/{name}") as answer:
                    assert answer.status == 404

    asyncio.run(run())


@pytest.mark.parametrize(
    "body, problem",
    [
        ({"regex": "[0-9]+"}, None),
        ({"regex": "("}, "regex"),
        ({"json_schema": {"type": "object"}}, None),
        ({"json_schema": {"type": "nothing"}}, "type"),
        ({"json_schema": '{"type": '}, "JSON"),
        ({"ebnf": 'root ::= "a"'}, None),
        ({"ebnf": "root ::= other"}, "other"),
    ],
)
def test_constraints_are_checked(server: Running, body: dict[str, object], problem: str | None) -> None:
    async def run() -> None:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.post("/constraints/check", json=body) as answer,
        ):
            found = (await answer.json())["problem"]
            assert (found is None) if problem is None else problem in found

    asyncio.run(run())


def test_a_browser_may_send_the_key_as_a_password() -> None:
    async def run(url: str) -> None:
        async with aiohttp.ClientSession(url) as session:
            for accept, scheme in (("text/html", "Basic"), ("application/json", "Bearer")):
                async with session.get("/", headers={"Accept": accept}) as answer:
                    assert answer.status == 401
                    assert answer.headers["WWW-Authenticate"].startswith(scheme)
            for key, origin, status in (
                ("secret", None, 200), ("secret", url, 200), ("secret", "http://elsewhere", 403), ("other", None, 401)
            ):  # fmt: skip
                headers = {"Authorization": "Basic " + b64encode(f"anybody:{key}".encode()).decode()}
                headers |= {} if origin is None else {"Origin": origin}
                async with session.get("/v1/models", headers=headers) as answer:
                    assert answer.status == status
            async with session.get("/", headers={"Authorization": "Basic ="}) as answer:
                assert answer.status == 401

    with running(ServerConfig(api_keys=("secret",))) as server:
        asyncio.run(run(server.url))


@needs_browser
def test_tabs_by_keyboard(server: Running, tmp_path: Path) -> None:
    async def use(page: Page) -> None:
        await page.until("document.getElementById('state').textContent === 'ready'")
        await page.value("document.getElementById('tab-chat').focus()")
        shown = "[...document.querySelectorAll('[role=tabpanel]')].filter((p) => !p.hidden).map((p) => p.id).join()"
        for key, panel in (
            ("ArrowRight", "program"),
            ("ArrowRight", "json"),
            ("End", "live"),
            ("Home", "chat"),
        ):
            await page.press(key)
            assert await page.value(shown) == panel
        fields = "[...document.querySelectorAll('input,textarea')]"
        assert await page.value(f"{fields}.filter((e) => !e.labels.length).map((e) => e.id).join()") == ""

    in_browser(server, tmp_path, use)


@needs_browser
def test_schema_is_checked_while_it_is_typed(server: Running, tmp_path: Path) -> None:
    async def use(page: Page) -> None:
        verdict = "document.getElementById('json-verdict').textContent"
        await page.until(f"{verdict}.includes('can be enforced')")
        box = "document.getElementById('json-schema')"
        await page.value(f"{box}.focus(), {box}.select()")
        await page.type('{"type": "string", "pattern": "("}')
        await page.until(f"{verdict}.includes('cannot')")
        assert "pattern" in await page.value("document.getElementById('json-problem').textContent")

    in_browser(server, tmp_path, use, "#json")


def tokens(of: str, kind: str) -> str:
    """JavaScript: how many tokens of a kind are shown."""
    return f"document.querySelectorAll('#{of} .token.{kind}').length"


@needs_browser
def test_chat_shows_every_token(server: Running, tmp_path: Path) -> None:
    async def use(page: Page) -> None:
        await page.value("document.getElementById('chat-max').value = 12")
        for turn in (1, 2):
            await page.value("document.getElementById('chat-input').select()")
            await page.type("Reach 17 with 3, 5, 2." if turn == 1 else "And 18?")
            await page.press("Enter", ctrl=True)
            await page.until(f"document.querySelectorAll('#chat-log .turn').length === {2 * turn}")
            await page.until("document.getElementById('counts').textContent.includes('output')")
        assert await page.value(tokens("chat-log", "sampled")) > 4
        assert await page.value(tokens("chat-log", "cached")) > 10
        counts = await page.value("document.getElementById('counts').textContent")
        assert " 0 cached" not in counts  # the second turn goes on from the first

    in_browser(server, tmp_path, use)


@needs_browser
def test_a_program_runs_call_by_call(server: Running, tmp_path: Path) -> None:
    async def use(page: Page) -> None:
        await page.value("document.getElementById('program-text').focus()")
        await page.press("Enter", ctrl=True)
        rows = "document.querySelectorAll('#program-values tbody tr')"
        await page.until(f"{rows}.length === 2")
        await page.until("document.getElementById('counts').textContent.includes('output')")
        cells = await page.value(f"[...{rows}].map((r) => [...r.cells].map((c) => c.textContent))")
        assert [row[0] for row in cells] == ["intent", "city"]
        assert cells[0][1] in ("PlayMusic", "GetWeather", "BookRestaurant")
        cached, prompt = map(int, cells[1][2].split(" / "))
        assert cached > 10 and prompt - cached <= 8  # only the text after the first call is computed
        assert await page.value(tokens("program-output", "sampled")) > 1
        assert await page.value(tokens("program-output", "computed")) > 0
        await page.value("document.getElementById('program-text').value = '{{gen x stop=\"\\\\d\"}}'")
        await page.value("document.getElementById('program-form').requestSubmit()")
        await page.until("document.getElementById('counts').textContent.includes('backslash')")

    in_browser(server, tmp_path, use, "#program")


@needs_browser
def test_json_and_the_live_view(server: Running, tmp_path: Path) -> None:
    async def use(page: Page) -> None:
        await page.until("document.getElementById('json-verdict').textContent.includes('can be')")
        await page.value("document.getElementById('json-form').requestSubmit()")
        value = await page.until("document.getElementById('json-value').textContent", seconds=60)
        assert json.loads(value)["intent"] in ("PlayMusic", "GetWeather")
        assert await page.value(tokens("json-output", "forced")) > 0
        await page.value("document.getElementById('tab-live').click()")
        await page.until("document.querySelectorAll('#tree .node').length > 0")
        assert "Turn the utterance" in await page.value("document.getElementById('tree').textContent")
        assert await page.value("document.querySelectorAll('#live-cards .card').length") == 6
        assert "reusable" in await page.value("document.getElementById('live-kv').textContent")

    in_browser(server, tmp_path, use, "#json")
