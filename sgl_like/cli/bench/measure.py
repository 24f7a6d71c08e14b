"""One request of a load, from when it is due to when it is over."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass

from sgl_like.cli.bench.client import Exchange
from sgl_like.cli.bench.dialects import Endpoint, News, read
from sgl_like.cli.bench.events import EventReader
from sgl_like.cli.bench.responses import ResponseReader

MAX_ERROR = 300
"""Characters of a message that are kept."""


@dataclass(slots=True)
class Record:
    """What came of a request. Times are those of the load's clock, in seconds.

    Args:
        sent: when it was sent, a connection made for it included.
        ended: when it was over.
        first: when its first output came; ``None`` also if it was no stream.
        last: when its last output came.
        outcome: ``"ok"``, ``"aborted"`` (by us), or what went wrong: ``"refused"``, ``"connect"``, ``"no_response"``,
            ``"broken"`` (amid a response), ``"unfinished"`` (a stream ended before its outputs), ``"timeout"``,
            ``"protocol"``, ``"error_event"``, ``"http_503"`` and so on.
        message: of the error.
        retry_after: whether an error said when to come back.
        events: that brought output.
        output_tokens: of all its outputs, as the server counts, or else `events`.
    """

    sent: float = 0.0
    ended: float = 0.0
    first: float | None = None
    last: float = 0.0
    outcome: str = "ok"
    message: str = ""
    retry_after: bool = False
    events: int = 0
    output_tokens: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def ttft(self) -> float | None:
        """Seconds to the first output."""
        return None if self.first is None else self.first - self.sent

    @property
    def e2e(self) -> float:
        """Seconds to the end."""
        return self.ended - self.sent

    @property
    def tpot(self) -> float | None:
        """Seconds from one token to the next, on average, after the first."""
        if self.first is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)


class Call(Exchange):
    """Sends a request and keeps a `Record` of it. `over` is done when that is complete.

    Args:
        request: as it is sent.
        endpoint: whose answer it gets.
        outputs: how many it asks for.
        gaps: where the seconds between outputs of streams are appended.
        abort_after: leave when so many events have brought output; ``None``: stay.
    """

    def __init__(
        self,
        request: bytes,
        endpoint: Endpoint,
        outputs: int,
        gaps: array[float],
        abort_after: int | None = None,
    ) -> None:
        super().__init__(request)
        self.record = Record()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._endpoint = endpoint
        self._outputs = outputs  # that have not ended
        self._gaps = gaps
        self._abort_after = abort_after
        self._events: EventReader | None = None  # if the answer is a stream
        self._whole: list[bytes] = []  # if it is not

    def receive(self, response: ResponseReader, body: bytes, now: float) -> bool:
        """See `Exchange`."""
        if self._events is None:
            if response.status != 200 or not self._streams(response):
                self._whole.append(body)
                return True
            self._events = EventReader()
        for data in self._events.feed(body):
            if data == b"[DONE]":
                continue
            try:
                news = read(self._endpoint, data)
            except ValueError as error:
                self._close("protocol", now, str(error))
                return False
            # An output may have no text at all; then it comes with its end.
            if news.wrote or (news.finished and self.record.first is None):
                self._wrote(now)
            self._take(news)
            if news.error is not None:
                self._close("error_event", now, news.error)
                return False
            if self._abort_after is not None and self.record.events >= self._abort_after and self._outputs:
                self._close("aborted", now)
                return False
        return True

    def end(self, response: ResponseReader, now: float) -> None:
        """See `Exchange`."""
        if response.status != 200:
            self.record.retry_after = b"retry-after" in response.headers
            text = b"".join(self._whole)[:MAX_ERROR].decode(errors="replace")
            self._close(f"http_{response.status}", now, text)
            return
        if self._events is None:
            try:
                news = read(self._endpoint, b"".join(self._whole))
            except ValueError as error:
                self._close("protocol", now, str(error))
                return
            self._take(news)
        self._close("unfinished" if self._outputs > 0 else "ok", now)

    def fail(self, kind: str, now: float) -> None:
        """See `Exchange`."""
        self._close(kind, now)

    def stop(self, outcome: str, now: float) -> None:
        """Leave from outside, unless it is over."""
        if not self.over.done():
            self.leave()
            self._close(outcome, now)

    @staticmethod
    def _streams(response: ResponseReader) -> bool:
        return response.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    def _wrote(self, now: float) -> None:
        record = self.record
        if record.first is None:
            record.first = now
        else:
            self._gaps.append(now - record.last)
        record.last = now
        record.events += 1

    def _take(self, news: News) -> None:
        record = self.record
        self._outputs -= news.finished
        if news.prompt_tokens is not None:
            record.prompt_tokens = news.prompt_tokens
        if news.output_tokens is not None:
            record.output_tokens = news.output_tokens
        if news.cached_tokens is not None:
            record.cached_tokens = news.cached_tokens

    def _close(self, outcome: str, now: float, message: str = "") -> None:
        record = self.record
        record.outcome, record.ended, record.message = outcome, now, message[:MAX_ERROR]
        record.output_tokens = max(record.output_tokens, record.events)
        if not self.over.done():
            self.over.set_result(None)
