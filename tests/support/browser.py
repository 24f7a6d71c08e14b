"""Debian's chromium, headless, driven over its debugging protocol: enough for tests of the page."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")


class Page:
    """One tab.

    Args:
        socket: to its debugger.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.console: list[str] = []  # errors that the page reported

    async def command(self, method: str, **params: Any) -> Any:
        """Send a command and wait for its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async for message in self._socket:
            found = json.loads(message.data)
            if found.get("method") == "Runtime.exceptionThrown":
                self.console.append(json.dumps(found["params"]["exceptionDetails"])[:500])
            if found.get("method") == "Log.entryAdded" and found["params"]["entry"]["level"] == "error":
                self.console.append(found["params"]["entry"]["text"])
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
        raise AssertionError("the browser is gone")

    async def open(self, url: str) -> None:
        """Go to an address."""
        for domain in ("Runtime", "Log", "Page"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        result = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not (found := await self.value(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {expression}; the page says {await self.text()!r}")
            await asyncio.sleep(0.02)
        return found

    async def text(self) -> str:
        """All text that is shown."""
        shown: str = await self.value("document.body.innerText")
        return shown

    async def press(self, key: str, ctrl: bool = False) -> None:
        """Press a key that stands for no character, such as ``"Tab"``."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            "ArrowRight": 39,
            "ArrowLeft": 37,
            "Home": 36,
            "End": 35,
            "Escape": 27,
        }
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                modifiers=2 if ctrl else 0,
            )  # fmt: skip

    async def type(self, text: str) -> None:
        """Type text where the focus is."""
        await self.command("Input.insertText", text=text)

    async def screenshot(self, path: Path) -> None:
        """Save what is shown as PNG."""
        shot = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser(profile: Path, width: int = 1200, height: int = 900) -> AsyncIterator[Page]:
    """A headless browser with one empty tab."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={width},{height}",
        "--no-first-run", "--disable-background-networking", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            assert process.returncode is None and time.monotonic() < deadline, "chromium does not start"
            await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                target = next(each for each in await answer.json() if each["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
