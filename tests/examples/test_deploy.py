"""What `examples/deploy` names exists: flags, routes, ports and metrics. Linters are run by `examples/deploy/check`."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from sgl_like.cli.main import app
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http.app import ROUTES
from tests.support.servers import running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
TEXTS = {
    path.relative_to(DEPLOY).as_posix(): path.read_text("utf-8")
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
}
YAML = [name for name in TEXTS if name.endswith(".yaml") and "templates" not in name]
BOARD: dict[str, Any] = json.loads(TEXTS["grafana/sgl-like.json"])
DEPLOYMENTS = ("k8s/deployment.yaml", "helm/sgl-like/templates/deployment.yaml")
CONFIG = ServerConfig(port=30000)


@cache
def flags() -> frozenset[str]:
    """All of `sgl-like serve`."""
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return frozenset(flag for option in serve.params for flag in (*option.opts, *option.secondary_opts))


@cache
def variables() -> frozenset[str]:
    """Environment variables of options."""
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return frozenset(option.envvar for option in serve.params if option.envvar)


@cache
def samples() -> frozenset[str]:
    """Names of all samples of ``/metrics``; a completion was asked for before, so that none is missing."""
    with running() as server:
        body = json.dumps({"prompt": "play", "max_tokens": 2}).encode()
        urllib.request.urlopen(urllib.request.Request(server.url + "/v1/completions", body)).read()
        with urllib.request.urlopen(server.url + "/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    names = {sample.name for family in families for sample in family.samples}
    counters = {f"{family.name}_total" for family in families if family.type == "counter"}
    return frozenset(names | counters | {family.name for family in families if family.type != "counter"})


def serve_lines(name: str) -> list[str]:
    """Where a file has arguments of `sgl-like serve`."""
    text = TEXTS[name]
    if name in DEPLOYMENTS:
        return re.findall(r"^ +(?:# )?- \"?(?:\{\{ printf \")?(--[^\n]*)", text, re.MULTILINE)
    joined = text.replace("\\\n", " ")
    return re.findall(
        r"(?:^ExecStart=.*|.*sgl-like)(?: serve| CMD).*|^CMD.*|.*serve --.*", joined, re.MULTILINE
    )


@pytest.mark.parametrize("name", YAML)
def test_yaml_parses(name: str) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(TEXTS[name]))


@pytest.mark.parametrize("name", [*DEPLOYMENTS, "Dockerfile", "systemd/sgl-like.service", "README.md"])
def test_every_flag_is_one_of_serve(name: str) -> None:
    lines = serve_lines(name)
    assert lines
    used = {
        flag
        for line in lines
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.partition("serve")[2] or line)
    }
    assert used and used <= flags(), used - flags()


def test_flags_that_are_only_mentioned_exist() -> None:
    text = TEXTS["README.md"]
    mentioned = set(re.findall(r"`(--[a-z][a-z-]*)(?: [^`]*)?`", text)) - {
        "--build-arg",
        "--entrypoint",
    }
    values = re.findall(r"(--[a-z][a-z-]*)=", TEXTS["helm/sgl-like/values.yaml"])
    assert mentioned and mentioned | set(values) <= flags()


def test_variables_are_read() -> None:
    used = {name for text in TEXTS.values() for name in re.findall(r"SGL_LIKE_[A-Z_]+", text)}
    assert used == variables()


@pytest.mark.parametrize("name", [*DEPLOYMENTS, "Dockerfile", "README.md", "k8s/servicemonitor.yaml",
                                  "helm/sgl-like/templates/servicemonitor.yaml", "prometheus/scrape.yaml",
                                  "prometheus/alerts.yaml"])  # fmt: skip
def test_paths_are_routes(name: str) -> None:
    paths = {route.path for route in ROUTES}
    found = re.findall(r"(?:path: |:30000|GET |`(?:GET )?)(/[a-z0-9_/]+)(?![\w.])", TEXTS[name])
    used = {path for path in found if path not in ("/models", "/tmp", "/var/cache/sgl_like")}
    assert used and used <= paths, used - paths


def test_probes_and_what_they_ask() -> None:
    container = yaml.safe_load(TEXTS["k8s/deployment.yaml"])["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    opened = {route.path for route in ROUTES if route.access == "open"}
    assert {"/livez", "/readyz"} <= opened, "probes have no key"


def test_a_pod_has_longer_than_its_requests() -> None:
    spec = yaml.safe_load(TEXTS["k8s/deployment.yaml"])["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    grace = next(int(arg.partition("=")[2]) for arg in container["args"] if arg.startswith("--grace="))
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] >= slept + grace + 10
    unit = TEXTS["systemd/sgl-like.service"]
    stop, given = re.search(r"TimeoutStopSec=(\d+)", unit), re.search(r"--grace (\d+)", unit)
    assert stop and given and int(stop[1]) >= int(given[1]) + 10


@pytest.mark.parametrize("name", [*DEPLOYMENTS, "Dockerfile", "systemd/sgl-like.service", "k8s/networkpolicy.yaml",
                                  "helm/sgl-like/templates/networkpolicy.yaml", "prometheus/scrape.yaml"])  # fmt: skip
def test_the_port_is_the_servers(name: str) -> None:
    used = set(re.findall(r"(?:[Pp]ort[ =:]+|EXPOSE |127\.0\.0\.1:|--port\", \")(\d{2,5})", TEXTS[name]))
    assert used == {str(ServerConfig().port)}


def metrics_of(text: str) -> set[str]:
    return set(re.findall(r"\b(?:sgl_like:|process_)[a-z_0-9]+", text)) - {"process_"}


@pytest.mark.parametrize("name", [name for name in TEXTS if metrics_of(TEXTS[name])])
def test_every_metric_is_exposed(name: str) -> None:
    used = metrics_of(TEXTS[name])
    if name == "prometheus/adapter.yaml":
        used = {"sgl_like:waiting_requests", "sgl_like:kv_usage"}
        assert "sgl_like:(waiting_requests|kv_usage)" in TEXTS[name]
    assert used <= samples(), used - samples()


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    rule = yaml.safe_load(TEXTS["prometheus/adapter.yaml"])["rules"]["custom"][0]
    pattern, name = rule["name"]["matches"], rule["name"]["as"].replace("$", "\\")
    made = {re.sub(pattern, name, metric) for metric in ("sgl_like:waiting_requests", "sgl_like:kv_usage")}
    for file in ("k8s/hpa.yaml", "helm/sgl-like/templates/hpa.yaml"):
        assert set(re.findall(r"name: (sgl_like_\w+)", TEXTS[file])) == made


def test_panels_of_the_board_do_not_overlap_and_have_queries() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]


def test_the_image_has_what_the_package_needs_and_little_else() -> None:
    torch = re.search(r'"(torch[^"]*)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert torch and TEXTS["Dockerfile"].count(f"'{torch[1]}'") == 2
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", TEXTS["Dockerfile"], re.MULTILINE)
        for word in line.split()
    }
    allowed = set(re.findall(r"^!(.*)$", TEXTS["Dockerfile.dockerignore"], re.MULTILINE))
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    assert "USER 10001:10001" in TEXTS["Dockerfile"]
    assert "HEALTHCHECK" in TEXTS["Dockerfile"] and "/livez" in TEXTS["Dockerfile"]


def test_no_key_is_committed_and_the_script_can_be_run() -> None:
    for key in re.findall(r"(?:admin-key|metrics-key): (\S+)", TEXTS["k8s/secret.example.yaml"]):
        assert key.startswith("REPLACE-ME")
    assert "secret.example.yaml" not in TEXTS["k8s/kustomization.yaml"]
    assert os.access(DEPLOY / "check", os.X_OK)
