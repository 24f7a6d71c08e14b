"""OpenAI's client, connected to a server of a test."""

from __future__ import annotations

import weakref

import openai

from tests.support.servers import Running


def connect(server: Running) -> openai.OpenAI:
    """A client whose connections are closed when nobody has it any more.

    It would close them itself, but where it is part of a cycle its sockets may be found first, which is a warning.
    """
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    weakref.finalize(client, client._client.close)
    return client
