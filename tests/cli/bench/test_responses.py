from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.cli.bench.events import EventReader
from sgl_like.cli.bench.responses import MAX_HEAD, ProtocolError, ResponseReader

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nab\r\nc\r\n1;note=x\r\nd\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
)
CHUNKED_BODY = b"ab\r\ncd0123456789"
WITH_LENGTH = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\ncontent-length: 4\r\nConnection: close\r\n\r\nbody"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + WITH_LENGTH


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(CUTS)
def test_a_chunked_response_in_any_pieces(cuts: list[int]) -> None:
    reader = ResponseReader()
    assert reader.untouched
    body = b"".join(map(reader.feed, pieces(CHUNKED, cuts)))
    assert (reader.status, body, reader.done, reader.keep_alive) == (200, CHUNKED_BODY, True, True)
    assert not reader.untouched


@given(CUTS, st.sampled_from([WITH_LENGTH, INTERIM]))
def test_a_response_with_a_length_in_any_pieces(cuts: list[int], data: bytes) -> None:
    reader = ResponseReader()
    body = b"".join(map(reader.feed, pieces(data, cuts)))
    assert (reader.status, body, reader.done, reader.keep_alive) == (503, b"body", True, False)
    assert reader.headers[b"retry-after"] == b"1"


def test_nothing_is_done_before_the_last_byte() -> None:
    for whole in (CHUNKED, WITH_LENGTH):
        reader = ResponseReader()
        for at in range(len(whole)):
            assert not reader.done
            reader.feed(whole[at : at + 1])
        assert reader.done


def test_one_response_after_another() -> None:
    reader = ResponseReader()
    for _ in range(2):
        reader.begin()
        assert reader.feed(CHUNKED) == CHUNKED_BODY
        assert reader.done


def test_without_length_the_connection_ends_it() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall of") == b"all of"
    assert reader.feed(b" this") == b" this"
    assert reader.ends_at_close
    assert not (reader.done or reader.keep_alive)


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    ],
)
def test_when_a_connection_is_kept(head: bytes, keep: bool) -> None:
    reader = ResponseReader()
    assert reader.feed(head) == b""
    assert (reader.done, reader.keep_alive) == (True, keep)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"x" * (MAX_HEAD + 1),
    ],
)
def test_what_is_no_http(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResponseReader().feed(data)


STREAM = b": hello\n\ndata: one\n\nevent: x\r\ndata: two\r\n\r\ndata:three\rdata:  four\r\rid: 1\n\ndata: [DONE]\n\n"


@given(CUTS)
def test_events_in_any_pieces(cuts: list[int]) -> None:
    reader = EventReader()
    found = [data for piece in pieces(STREAM, cuts) for data in reader.feed(piece)]
    assert found == [b"one", b"two", b"three\n four", b"[DONE]"]


def test_an_event_that_has_not_ended_is_held_back() -> None:
    reader = EventReader()
    assert reader.feed(b"data: one\n:") == []
    assert reader.feed(b"\n\ndata: two") == [b"one"]
