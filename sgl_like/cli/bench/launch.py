"""A server of our own for the time of a load."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from sgl_like.errors import EngineError

PATIENCE = 120.0
"""Seconds for a server to become ready."""
GRACE = 10.0
"""Seconds for it to end."""


@contextmanager
def launched(arguments: str) -> Iterator[str]:
    """Run ``sgl-like serve`` with these arguments until the end of the block; gives its URL.

    Raises:
        EngineError: it ended, or did not become ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sgl_like", "serve", "--port", str(port), *shlex.split(arguments)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            if not _becomes_ready(process, url):
                log.seek(0)
                raise EngineError(
                    "the server did not start: " + log.read()[-500:].decode(errors="replace").strip()
                )
            yield url
        finally:
            _end(process)


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=5):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
