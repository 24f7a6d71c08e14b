"""`sgl-like serve` as a process of its own, for tests of what happens to processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "sgl_like", "serve")
PATIENCE = 120.0
"""Seconds after which something that a test waits for counts as never happening."""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition; what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds:g} s for {what}")


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Whether a process is there and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Served:
    """A server process.

    Args:
        process: the front.
        url: where it answers.
        log: file with its standard error.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path
    engine_pids: list[int] = field(default_factory=list)

    @property
    def engine_pid(self) -> int:
        """The engine's process, the newest one."""
        found = [pid for pid in children(self.process.pid) if is_alive(pid)]
        assert len(found) == 1, found
        return found[0]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET; (0, None) if there is no connection."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of a call."""
        import http.client

        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (ConnectionRefusedError, ConnectionResetError):  # reset: it still waited to be accepted
            return 0, None
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether it says so."""
        return self.get("/readyz")[0] == 200

    def stderr(self) -> str:
        """What it has written there so far."""
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def served(*options: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """A server that is ready; whatever happens, none of its processes is left at the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*COMMAND, "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env=os.environ | (environment or {}),
            )
        engines: list[int] = []
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"sgl-like: \S+ is ready at (http://\S+) \(.*\)\n", line)
            assert found is not None, (line, log.read_text())
            yield Served(process, found[1], log)
        finally:
            engines = children(process.pid)
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
            for pid in engines:
                until(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]


class Stream(threading.Thread):
    """A client that reads a stream of completions to its end, on a thread of its own.

    Args:
        url: of the server.
        body: of the request; ``stream`` is added.
        path: of the endpoint.
    """

    def __init__(self, url: str, body: dict[str, Any], path: str = "/v1/completions") -> None:
        super().__init__(daemon=True)
        self.status = 0
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.done = False
        self.error: str | None = None
        self.ended = 0.0
        self._where = urlsplit(url)
        data = json.dumps(body | {"stream": True}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self._request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        self.start()

    @property
    def text(self) -> str:
        """All that came."""
        return "".join(event["choices"][0]["text"] for event in self.events if event.get("choices"))

    @property
    def finish(self) -> str | None:
        """The last finish reason."""
        found = [c["finish_reason"] for e in self.events for c in e.get("choices", ())]
        return next((reason for reason in reversed(found) if reason), None)

    @property
    def failure(self) -> dict[str, Any] | None:
        """The error that came: as an event, or as the answer."""
        return next((event["error"] for event in self.events if "error" in event), None)

    def run(self) -> None:
        """See `threading.Thread`."""
        try:
            with socket.create_connection((self._where.hostname, self._where.port)) as connection:
                connection.sendall(self._request)
                self._read(connection)
        except OSError as error:
            self.error = str(error)
        self.ended = time.monotonic()

    def _read(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            self.status = int(file.readline().split()[1])
            for line in file:
                if line.startswith(b"data: [DONE]"):
                    self.done = True
                elif line.startswith(b"data: ") or line.startswith(b"{"):
                    self.events.append(json.loads(line.removeprefix(b"data: ")))
                    self.times.append(time.monotonic())


def all_stream(running: Sequence[Stream]) -> None:
    """Wait until something has come on every stream."""
    until(lambda: all(stream.done or len(stream.events) > 2 or stream.ended for stream in running), "events")
    odd = [(stream.status, stream.error, stream.events) for stream in running if stream.status != 200]
    assert not odd, odd[0]


def streams(url: str, count: int, body: dict[str, Any]) -> Sequence[Stream]:
    """So many at once."""
    return [Stream(url, body) for _ in range(count)]
