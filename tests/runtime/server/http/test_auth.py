from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Any

import pytest

from sgl_like.errors import ConfigError
from sgl_like.runtime.protocol import GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.http.app import ROUTES
from sgl_like.runtime.server.http.auth import Auth, read_keys
from tests.support.http_clients import call
from tests.support.servers import Running, running, shared_engine

OPEN = {"/livez", "/readyz"}
CONFIG = ServerConfig(api_keys=("sk-one", "sk-two"), admin_key="sk-admin")
PROMPT = {"prompt": "what is the weather like in the little town by the sea", "max_tokens": 1}


@pytest.fixture(scope="module")
def server() -> Any:
    with running(CONFIG) as started:
        yield started


@pytest.fixture(scope="module")
def keyless() -> Any:
    with running() as started:
        yield started


def test_without_a_key_nothing_is_open_but_health(server: Running) -> None:
    for route in ROUTES:
        path = re.sub(r"\{[^}]*\}", "x", route.path)
        answer = call(server, path, b"{}" if route.method == "POST" else None, method=route.method)
        if path in OPEN:
            assert answer.status != 401, path
        else:
            assert answer.status == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/../v1/models/", "/V1/models", "//v1/models", "/v1/models%2f"]
)
def test_paths_that_do_not_exist_are_not_open_either(server: Running, path: str) -> None:
    assert call(server, path).status == 401
    assert call(server, path, key="sk-wrong").status == 401


@pytest.mark.parametrize("header", ["Bearer sk-two", "bearer  sk-two", "BEARER sk-two"])
def test_a_key_opens_the_api_however_it_is_spelled(server: Running, header: str) -> None:
    assert call(server, "/v1/models", headers={"Authorization": header}).status == 200


def test_a_key_may_come_in_anthropics_header(server: Running) -> None:
    assert call(server, "/v1/models", headers={"x-api-key": "sk-one"}).status == 200
    assert call(server, "/v1/models", headers={"x-api-key": "sk-on"}).status == 401


def test_admin_routes_need_the_admin_key(server: Running) -> None:
    admin = [route for route in ROUTES if route.access == "admin" and route.method == "GET"]
    assert admin
    for route in admin:
        assert call(server, route.path).status == 401
        assert call(server, route.path, key="sk-one").status == 403
        assert call(server, route.path, key="sk-admin").status not in (401, 403)


def test_the_admin_key_opens_the_api_too(server: Running) -> None:
    assert call(server, "/v1/models", key="sk-admin").status == 200


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def watch(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watch)
    auth = Auth(CONFIG, read_keys(CONFIG))
    for key in ("sk-one", "sk-admin", "unknown", "", "\udcff"):
        compared.clear()
        auth.find(key)
        assert len(compared) == len(set(compared)) == 3


def test_tenants_tell_nothing_about_their_keys_and_share_no_namespace() -> None:
    auth = Auth(CONFIG, read_keys(CONFIG))
    tenants = [auth.find(key) for key in ("sk-one", "sk-two", "sk-admin")]
    assert all(tenant is not None for tenant in tenants)
    assert len({tenant.namespace for tenant in tenants if tenant}) == 3
    assert not any("sk-" in repr(tenant) for tenant in tenants)
    again = Auth(CONFIG, read_keys(CONFIG)).find("sk-one")
    assert again == tenants[0], "a key finds its prefixes again"


class Watched(LocalEngine):
    """Remembers how much of the last prompt was cached."""

    cached = -1

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        def watch(output: Output) -> None:
            if output.is_terminal:
                self.cached = output.usage.cached_tokens
            receive(output)

        super().submit(request, watch)


def test_a_prefix_of_one_key_is_not_cached_for_another() -> None:
    engine = Watched(shared_engine())
    with running(CONFIG, engine) as server:
        for key, hit in (("sk-one", False), ("sk-two", False), ("sk-one", True), ("sk-two", True)):
            assert call(server, "/v1/completions", PROMPT, key=key).status == 200
            assert (engine.cached > 0) is hit, key


def test_without_keys_everybody_on_this_machine_may(keyless: Running) -> None:
    assert call(keyless, "/v1/models").status == 200
    assert call(keyless, "/debug/tree").status not in (401, 403)


def test_without_keys_admin_routes_are_not_open_through_a_proxy(keyless: Running) -> None:
    answer = call(keyless, "/debug/tree", headers={"X-Forwarded-For": "203.0.113.9"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden")


def test_without_keys_pages_of_other_origins_may_not_call(keyless: Running) -> None:
    evil = call(keyless, "/v1/completions", PROMPT, headers={"Origin": "https://evil.example"})
    assert (evil.status, evil.json["error"]["code"]) == (403, "bad_origin")
    assert call(keyless, "/v1/completions", PROMPT, headers={"Origin": keyless.url}).status == 200


def test_without_keys_names_that_were_made_to_point_here_are_refused(keyless: Running) -> None:
    answer = call(keyless, "/v1/models", headers={"Host": "rebound.example:80"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "bad_host")
    assert call(keyless, "/v1/models", headers={"Host": "localhost:1"}).status == 200
    assert call(keyless, "/v1/models", headers={"Host": "[::1]:1"}).status == 200


def test_an_admin_key_alone_leaves_the_api_open() -> None:
    with running(ServerConfig(admin_key="sk-admin")) as server:
        assert call(server, "/v1/models").status == 200
        assert call(server, "/debug/tree").status == 401
        assert call(server, "/debug/tree", key="sk-admin").status not in (401, 403)


def test_keys_without_an_admin_key_open_no_admin_route() -> None:
    with running(ServerConfig(api_keys=("sk-one",))) as server:
        assert call(server, "/debug/tree").status == 401
        assert call(server, "/debug/tree", key="sk-one").status == 403


def test_a_file_has_keys_with_names_and_quotas(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-a name=alice max_requests=3 tokens_per_minute=1000\n\nsk-b\n")
    one, two = read_keys(ServerConfig(api_key_file=file, key_requests_per_minute=7))
    assert (one.secret, one.name, *one.quota) == ("sk-a", "alice", 3, 7, 1000)
    assert (two.secret, two.name, *two.quota) == ("sk-b", "line4", None, 7, None)


def test_the_admin_key_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text("sk-admin\n")
    with running(ServerConfig(api_keys=("sk-one",), admin_key_file=file)) as server:
        assert call(server, "/debug/invariants", key="sk-one").status == 403
        assert call(server, "/debug/invariants", key="sk-admin").status == 200


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (None, None, "cannot be read"),
        (" \n", None, "is empty"),
        ("sk-secret", "sk-secret", "one of them is enough"),
    ],
)
def test_an_admin_key_that_cannot_be_used_is_not_repeated(
    tmp_path: Path, text: str | None, key: str | None, said: str
) -> None:
    file = tmp_path / "admin"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        Auth(ServerConfig(admin_key=key, admin_key_file=file), [])
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["sk-secret max=3", "sk-secret max_requests=-1", "sk-secret name=", "sk-secret name=admin"]
)
def test_a_bad_line_is_an_error_that_does_not_repeat_the_key(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(line)
    with pytest.raises(ConfigError) as caught:
        read_keys(ServerConfig(api_key_file=file))
    assert "sk-secret" not in str(caught.value)
