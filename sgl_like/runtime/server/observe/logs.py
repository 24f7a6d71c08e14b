"""One line for each call, and what else the server has to say: as text or as JSON, written by a thread of its own.

What a client sent and what a model answered never get here; nor do keys.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from logging.handlers import QueueHandler
from typing import IO, TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from sgl_like.runtime.server.observe.records import CallRecord

log = logging.getLogger("sgl_like.calls")

QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Routes that are asked every few seconds; their lines are only worth something if they fail."""

WAITING_LINES = 10_000
"""Lines that wait for whoever reads them, at most; then they are counted instead of kept."""

END_SECONDS = 2.0
"""That the last lines get to be written in when the server ends."""


def log_call(call: CallRecord, now: float) -> None:
    """The line of a call that has ended."""
    level = _level(call)
    if log.isEnabledFor(level):
        log.log(level, "call", extra={"fields": _fields(call, now)})


def _level(call: CallRecord) -> int:
    if call.status >= 500 and call.status != 503:
        return logging.ERROR
    failed = any(
        record.finish == "error" for record in call.requests
    )  # also in a stream that had begun with 200
    if failed or (call.status == 503 and call.route not in QUIET):
        return logging.WARNING
    return logging.DEBUG if call.route in QUIET else logging.INFO


def _fields(call: CallRecord, now: float) -> dict[str, Any]:
    """Times are in seconds. What does not apply is left out."""
    fields: dict[str, Any] = {
        "request_id": call.id,
        "method": call.method,
        "route": call.route,
        "status": call.status,
        "tenant": call.tenant,
        "duration": round(now - call.received, 6),
    }
    if call.requests:
        usages = [record.usage for record in call.requests]
        fields["requests"] = len(call.requests)
        fields["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
        fields["cached_tokens"] = sum(usage.cached_tokens for usage in usages)
        fields["completion_tokens"] = sum(record.tokens for record in call.requests)
        fields["finish"] = [record.finish or "abort" for record in call.requests]
        queued = [record.timing.queued_s for record in call.requests if record.timing is not None]
        if queued:
            fields["queued"] = round(max(queued), 6)
    if call.first is not None and call.requests[0].request.stream:
        fields["ttft"] = round(call.first - call.received, 6)
    if call.cause is not None:
        fields["cause"] = call.cause
    if call.error_code is not None:
        fields["error"] = call.error_code
    return fields


class TextFormatter(logging.Formatter):
    """``2026-11-29T12:00:00.123Z INFO call status=200 ...``: a time, a level, a message, and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """A line; and the lines of a traceback, if there is one."""
        fields = "".join(f" {name}={_plain(value)}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname} {record.name} {record.getMessage()}{fields}"
        return line if not record.exc_text else f"{line}\n{record.exc_text}"


class JsonFormatter(logging.Formatter):
    """A JSON object for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        value = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_text:
            value["traceback"] = record.exc_text
        return orjson.dumps(value, default=str).decode()


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return text if text and not any(c in text for c in ' "=\n') else orjson.dumps(text).decode()


class _Queue(QueueHandler):
    """Hands records over to the writing thread, and counts those for which there is no room."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Everything that may change later, or that only this thread knows, is made text here."""
        record.msg, record.args = record.getMessage(), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never waits: a pipe that nobody reads must not stop the server."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def dropped_lines() -> int:
    """Lines that are not written because too many waited."""
    handlers = logging.getLogger("sgl_like").handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, _Queue))


def _write(lines: queue.Queue[logging.LogRecord | None], writer: logging.Handler) -> None:
    while (record := lines.get()) is not None:
        writer.handle(record)


def start_logging(
    level: str = "info", format: Literal["text", "json"] = "text", stream: IO[str] | None = None
) -> Callable[[], int]:
    """Write what the package logs; returns a function that ends this and says how many lines were dropped.

    Args:
        level: of the least important lines that are written.
        format: see `ServerConfig.log_format`.
        stream: by default standard error.
    """
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING_LINES)
    handler = _Queue(lines)
    thread = threading.Thread(target=_write, args=(lines, writer), name="logs", daemon=True)
    logger = logging.getLogger("sgl_like")
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    thread.start()

    def stop() -> int:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        with contextlib.suppress(queue.Full):
            lines.put(None, timeout=END_SECONDS)
            thread.join(END_SECONDS)
        return handler.dropped

    return stop
