"""Lint the chart, render it in several ways, check what comes out, and compare it with the plain manifests in ../k8s.

python3 examples/deploy/helm/render.py      needs helm-python-sdk (Helm's own code), PyYAML and kubernetes-validate
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart
from helm_python.chart import lint

HERE = Path(__file__).parent
CHART, PLAIN = HERE / "sgl-like", HERE.parent / "k8s"
OTHERS = ("ScaledObject", "ServiceMonitor")
"""Kinds that are not Kubernetes' own: there are no schemas of them here."""

EVERYTHING: dict[str, Any] = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "model": "/models/m",
    "servedModelName": "m",
    "extraArgs": ["--kv-cache-memory=8G"],
    "extraEnv": [{"name": "OMP_NUM_THREADS", "value": "8"}],
    "volumes": [{"name": "models", "emptyDir": {}}],
    "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    "podAnnotations": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "imagePullSecrets": [{"name": "registry"}],
    "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}]},
}
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": EVERYTHING,
    "keda": {"keda": {"enabled": True}, "serviceMonitor": {"enabled": True}},
    "hpa": {"autoscaling": {"enabled": True}},
}
REFUSED: list[dict[str, Any]] = [
    {"autoscaling": {"enabled": True}, "keda": {"enabled": True}},
    {"grace": -1},
    {"nonsense": 1},
    {"extraArgs": ["rm"]},
]


def objects(chart: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What the chart makes of some values."""
    found: list[dict[str, Any]] = []
    for name, text in chart.render(values=values, name="sgl-like").items():
        if name.endswith(".yaml"):
            found += [made for made in yaml.safe_load_all(text) if made]
    return found


def validate(made: dict[str, Any]) -> None:
    """Against Kubernetes' schemas."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(made, file)
        file.flush()
        command = ["kubernetes-validate", "--quiet", "-k", "1.33", "--strict", file.name]
        assert subprocess.run(command).returncode == 0, f"{made['kind']} is not valid"


def plain_part(made: dict[str, Any]) -> Any:
    """Without what a chart adds, and without arguments, of which the chart gives more."""
    text = json.dumps({**made, "metadata": made["metadata"]["name"]}, sort_keys=True)
    value = json.loads(text.replace('"app.kubernetes.io/instance": "sgl-like", ', ""))
    if made["kind"] == "Deployment":
        del value["spec"]["template"]["spec"]["containers"][0]["args"]
        value["spec"].pop("replicas", None)
    return value


def main() -> None:
    """Exit with an assertion if anything is wrong."""
    report = lint(str(CHART))
    assert not report["errors"] and all(m["severity"] <= 1 for m in report["messages"]), report
    rendered: dict[str, dict[str, Any]] = {}
    with Chart.load(str(CHART)) as chart:
        for way, values in WAYS.items():
            made = objects(chart, values)
            for each in made:
                if each["kind"] not in OTHERS:
                    validate(each)
                if way != "everything":
                    rendered[each["kind"]] = each
            print(f"{way}: {', '.join(each['kind'] for each in made)}")
        for values in REFUSED:
            try:
                chart.render(values=values, name="sgl-like")
            except Exception:
                continue
            sys.exit(f"these values should have been refused: {values}")
    for path in sorted(PLAIN.glob("*.yaml")):
        plain = yaml.safe_load(path.read_text("utf-8"))
        if plain["kind"] not in ("Kustomization", "Secret"):
            assert plain_part(plain) == plain_part(rendered[plain["kind"]]), f"{path.name} is not the chart's"
    print("the same as the plain manifests")


if __name__ == "__main__":
    main()
