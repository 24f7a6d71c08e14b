"""What streams of several APIs say."""

from __future__ import annotations

import json
from typing import Any

from tests.support.http_clients import Answer


def json_lines(answer: Answer) -> list[Any]:
    """Of a stream with one JSON object in each line."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def sse_events(answer: Answer) -> list[tuple[str | None, Any]]:
    """Names and data of server-sent events."""
    assert answer.status == 200, answer.body
    found = []
    for block in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value if value == "[DONE]" else json.loads(value)
        found.append((name, data))
    return found
