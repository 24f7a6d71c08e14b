"""Streams of JSON: server-sent events (WHATWG HTML, section 9.2) and one JSON text a line.

Bytes arrive cut anywhere, also inside a character or between a carriage return and its line feed; they are put
together to lines before anything is decoded.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

__all__ = ["DONE", "json_lines", "server_sent_events"]

DONE = "[DONE]"


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Whole lines, without their ends; a last one without an end is one too."""
    rest, after_return = b"", False
    async for chunk in chunks:
        if after_return:
            chunk = chunk.removeprefix(b"\n")  # it belongs to the return that ended the chunk before
        after_return = chunk.endswith(b"\r")
        *whole, rest = (rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


async def server_sent_events(chunks: AsyncIterable[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON object of each event, up to ``[DONE]``. An ``error`` field becomes ``{"error": ...}``.

    Raises:
        ValueError: an event is not a JSON object.
    """
    data: list[str] = []
    async for line in lines(chunks):
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            elif name == "error":  # llama.cpp reports errors in a field of that name
                yield {"error": _object(value)}
            continue
        text, data = "\n".join(data), []
        if text == DONE:
            return
        if text:
            yield _object(text)
    if data and data != [DONE]:  # ended without its empty line
        yield _object("\n".join(data))


async def json_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON object of each line.

    Raises:
        ValueError: a line is not a JSON object.
    """
    async for line in lines(chunks):
        if line.strip():
            yield _object(line)


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"a JSON object is expected, not {text[:80]!r}")
    return found
