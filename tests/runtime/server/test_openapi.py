"""The OpenAPI document, and schemathesis over it: any request that it allows, and many that it does not.

Left out is the check that whatever the document allows is accepted: a schema cannot say that a prompt must have a
token, or that it must fit the context. By hand, with 20,000 cases: see examples/bench.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import sgl_like
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.app import ROUTES
from sgl_like.runtime.server.http.openapi import document
from tests.support.http_clients import call
from tests.support.servers import Running, running

CASES = os.environ.get("SGL_LIKE_SCHEMATHESIS_EXAMPLES", "15")


@pytest.fixture(scope="module")
def server() -> Any:
    """With short outputs, so that many fit into a test."""
    engine = sgl_like.Engine(dtype="float32", kv_cache_memory=16 * 1024 * 1024, context_length=64)
    with engine, running(ServerConfig(), LocalEngine(engine)) as started:
        yield started


def test_every_route_is_described_and_every_schema_is_one(server: Running) -> None:
    found = call(server, "/openapi.json").json
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert len(described) == len(ROUTES) + 1
    for name, schema in found["components"]["schemas"].items():
        assert schema.get("description") or name.endswith("_of_error"), name
        Draft202012Validator.check_schema(schema)


def test_with_keys_the_document_says_so() -> None:
    found = document(ROUTES, keyed=True)
    assert "security" not in found["paths"]["/livez"]["get"]
    assert found["paths"]["/v1/completions"]["post"]["security"] == [{"key": []}]
    assert "401" in found["paths"]["/v1/completions"]["post"]["responses"]


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Running, tmp_path: Path) -> None:
    found = subprocess.run(
        [
            Path(sys.executable).with_name("st"), "run", f"{server.url}/openapi.json", "--no-color",
            "--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", CASES,
            "--continue-on-failure", "--generation-database", "none",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-20_000:]
    assert call(server, "/v1/completions", {"prompt": "hi", "max_tokens": 1}).status == 200
