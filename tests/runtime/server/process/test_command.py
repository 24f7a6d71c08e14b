"""Starting: options, and what goes wrong as one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, PATIENCE, ROOT, served


def refused(*options: str) -> str:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 2, done
    assert done.stdout == ""
    return " ".join(done.stderr.split())


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused("--port", str(port))
    assert said == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use"


def test_a_model_that_is_not_there_ends_the_server(tmp_path: Path) -> None:
    said = refused("--port", "0", "--model", str(tmp_path / "none"))
    assert said.startswith("error: ") and "no such folder" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "host '0.0.0.0' can be reached by others, and there is no API key"),
        (("--host", "::"), "host '::' can be reached by others"),
        (("--page-size", "3"), "page_size must be one of 1, 16, 64, not 3"),
        (("--port", "70000"), "port must be between 0 and 65535, not 70000"),
        (("--kv-cache-memory", "some"), "kv_cache_memory must be a number of bytes, such as 512M or 4G"),
        (("--kv-cache-memory", "1"), "kv_cache_memory=1 holds no token"),
        (("--api-key", ""), "an API key must not be empty"),
        (("--metrics-compat", "vllm,tgi"), "metrics_compat may have vllm and sglang, not 'tgi'"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(options: tuple[str, ...], said: str) -> None:
    assert refused("--port", "0", *options).startswith(f"error: {said}")


def test_help_loads_neither_torch_nor_a_server() -> None:
    code = (
        "import sys\nfrom sgl_like.cli.main import app\n"
        "try: app(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'aiohttp', 'tokenizers', 'uvloop'} & set(sys.modules)))"
    )
    env = os.environ | {"COLUMNS": "200"}

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=env
    )
    shown, _, loaded = done.stdout.strip().rpartition("\n")
    assert loaded == "[]"
    for flag in ("--api-key", "--grace", "--max-queue", "--limit-body-bytes", "--kv-cache-memory", "--dtype"):
        assert flag in shown


def test_a_server_serves_until_a_signal_and_leaves_nothing() -> None:
    with served("--engine-kind", "stub", "--served-model-name", "other") as server:
        assert server.is_ready()
        status, models = server.get("/v1/models")
        assert status == 200 and models["data"][0]["id"] == "other"
        engine = server.engine_pid
        assert server.end(signal.SIGINT) == 0
        assert not Path(f"/proc/{engine}").exists()
        assert "Traceback" not in server.stderr()
