"""Images in messages: any number of them, each with its own type (b#30, c#24)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.remote_replies import chat_reply, message_reply, ollama_reply
from tests.support.remote_server import FakeServer

PNG, GIF = b"\x89PNG\r\n\x1a\n-1", b"GIF89a-2"
PNG64, GIF64 = base64.b64encode(PNG).decode(), base64.b64encode(GIF).decode()


@sgl.function
def two_images(s: Any) -> None:
    s += sgl.user("Is this " + sgl.image(PNG) + " like " + sgl.image(GIF) + sgl.image(PNG) + "?")
    s += sgl.assistant(sgl.gen("x"))


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def test_images_of_openai() -> None:
    def image(mime: str, data: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}

    with FakeServer([chat_reply("yes")]) as server:
        state = two_images.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="vllm"))
        assert state["x"] == "yes", state.error()
        png, gif = image("image/png", PNG64), image("image/gif", GIF64)
        content = [text("Is this "), png, text(" like "), gif, png, text("?")]
        assert server.asked[0].body["messages"] == [{"role": "user", "content": content}]


def test_images_of_anthropic() -> None:
    def image(mime: str, data: str) -> dict[str, Any]:
        return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}

    with FakeServer([message_reply("yes")]) as server:
        state = two_images.run(backend=sgl.Anthropic("claude-opus-5", "k", base_url=server.url))
        assert state["x"] == "yes", state.error()
        png, gif = image("image/png", PNG64), image("image/gif", GIF64)
        content = [text("Is this "), png, text(" like "), gif, png, text("?")]
        assert server.asked[0].body["messages"] == [{"role": "user", "content": content}]


def test_images_of_ollama() -> None:
    with FakeServer([ollama_reply("yes", "message")]) as server:
        state = two_images.run(backend=sgl.OpenAICompatible(server.url, "m", dialect="ollama"))
        assert state["x"] == "yes", state.error()
        message = {"role": "user", "content": "Is this  like ?", "images": [PNG64, GIF64, PNG64]}
        assert server.asked[0].body["messages"] == [message]


@sgl.function
def outside(s: Any) -> None:
    s += "See " + sgl.image(PNG) + sgl.gen("x")


@sgl.function
def in_the_answer(s: Any) -> None:
    s += sgl.user("Hi") + sgl.assistant("See " + sgl.image(PNG) + sgl.gen("x"))


@pytest.mark.parametrize(
    ("program", "dialect", "message"),
    [
        (outside, "vllm", "an image can only be sent in a message"),
        (in_the_answer, "vllm", "cannot be in the message that the model writes"),
        (two_images, "triton", "image"),
    ],
)
def test_images_where_none_can_be(program: Any, dialect: str, message: str) -> None:
    with FakeServer([]) as server:
        state = program.run(backend=sgl.OpenAICompatible(server.url, "m", dialect=dialect))
        assert message in str(state.error()) and not server.asked
