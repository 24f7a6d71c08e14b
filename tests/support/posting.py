"""JSON to a server and its answer, as it is."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def opened(url: str, body: Any) -> Iterator[http.client.HTTPResponse]:
    """The answer to a body, to be read; the connection is closed at the end of the block."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(
            "POST", parts.path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
    finally:
        connection.close()


def post(url: str, body: Any) -> tuple[int, str]:
    """Status and text of the answer to a body."""
    with opened(url, body) as response:
        return response.status, response.read().decode()
