"""``/metrics`` as Prometheus, and dashboards made for other engines, read it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sgl_like.cli.serve import config_of
from sgl_like.errors import EngineUnavailable
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.local import LocalEngine
from sgl_like.runtime.server.engine.wire import Question
from sgl_like.runtime.server.observe import exposition
from sgl_like.runtime.server.observe.aliases import SGLANG, VLLM
from sgl_like.runtime.server.observe.exposition import Throughput
from sgl_like.runtime.server.observe.histogram import Histogram
from tests.support.servers import Running, running, shared_engine, wait_until

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0"
)
Labels = frozenset[tuple[str, str]]


def get(server: Running, path: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(server.url + path, headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        found: str = answer.read().decode()
        return found


def send(server: Running, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    request = urllib.request.Request(
        server.url + "/v1/completions", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()
    wait_until(lambda: not server.server.observer.calls)


def samples(server: Running) -> dict[tuple[str, Labels], float]:
    """Values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(get(server, "/metrics"))
        for sample in family.samples
    }


def total(found: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    values = [value for (n, have), value in found.items() if n == name and wanted <= have]
    assert values, f"{name} with {labels} is not there"
    return sum(values)


@pytest.fixture(scope="module")
def used() -> Iterator[Running]:
    """A server that has answered two streams and a whole completion."""
    with running() as server:
        for stream in (True, True, False):
            send(server, {"prompt": "play some", "max_tokens": 5, "temperature": 0, "stream": stream})
        yield server


@pytest.mark.parametrize("accept", ["*/*", "text/plain", PROMETHEUS_2, PROMETHEUS_3])
def test_every_name_parses_and_says_what_it_is(used: Running, accept: str) -> None:
    found = list(parse_text(get(used, "/metrics", accept)))
    names = [family.name for family in found]
    assert len(names) == len(set(names)) > 100
    for family in found:
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert family.documentation.endswith("."), f"{family.name} says what it is"
        assert re.fullmatch(r"(sgl_like:|vllm:|sglang:|process_)[a-z_0-9]+", family.name)


def test_counts_are_those_of_the_workload(used: Running) -> None:
    found = samples(used)
    assert total(found, "sgl_like:requests_total") == 3
    assert total(found, "sgl_like:requests_total", streaming="true") == 2
    assert total(found, "sgl_like:requests_ended_total", reason="length") == 3
    assert total(found, "sgl_like:generation_tokens_total") == 15
    assert total(found, "sgl_like:inter_token_latency_seconds_count") == 8
    assert total(found, "sgl_like:inter_token_latency_seconds_bucket", le="+Inf") == 8
    assert total(found, "sgl_like:http_responses_total", route="/v1/completions", status="200") == 3
    assert total(found, "sgl_like:http_requests_active", route="/metrics") == 1, "this very call"
    for name in ("queue", "prefill", "decode", "inference"):
        assert total(found, f"sgl_like:request_{name}_time_seconds_count") == 3
    assert total(found, "sgl_like:time_to_first_token_seconds_count", streaming="false") == 1
    steps = total(found, "sgl_like:steps_total")
    assert total(found, "sgl_like:step_time_seconds_count") == steps >= 15
    assert total(found, "sgl_like:step_tokens_sum") == total(found, "sgl_like:computed_tokens_total")
    assert total(found, "sgl_like:engine_up") == 1
    assert total(found, "sgl_like:kv_tokens") == shared_engine().stats()["kv_slots"]
    free, evictable = total(found, "sgl_like:kv_tokens_free"), total(found, "sgl_like:kv_tokens_evictable")
    assert free + evictable == total(found, "sgl_like:kv_tokens")


@pytest.mark.parametrize(
    ("prefix", "alias"), [("vllm:", a) for a in VLLM] + [("sglang:", a) for a in SGLANG], ids=lambda a: str(a)[:60]
)  # fmt: skip
def test_an_alias_has_our_values(used: Running, prefix: str, alias: Any) -> None:
    if alias.name == "admission_rejections":
        used.server.admission.rejected["queue_requests"] = 7
    found = {family.name: family for family in parse_text(get(used, "/metrics"))}
    ours, theirs = found["sgl_like:" + alias.of], found[prefix + alias.name]
    assert ours.type == theirs.type
    varies = alias.of in ("http_requests", "http_responses", "generation_throughput")
    for suffix in ("", "_total", "_sum", "_count", "_bucket"):
        mine = [s for s in ours.samples if s.name == ours.name + suffix]
        if alias.values:
            mine = [s for s in mine if s.labels[next(iter(alias.rename))] in alias.values]
        given = [s for s in theirs.samples if s.name == theirs.name + suffix]
        assert varies or math.isclose(sum(s.value for s in mine), sum(s.value for s in given)), suffix
        for sample in given:
            names = {"model_name", *alias.rename.values(), *alias.more}
            assert sample.labels.keys() - {"le"} == names | ({"engine"} if prefix == "vllm:" else set())


def test_the_names_that_autoscalers_and_routers_ask_for_are_there(used: Running) -> None:
    found = samples(used)
    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
        assert total(found, name, model_name="tiny", engine="0") == 0
    assert total(found, "vllm:request_success_total", finished_reason="length", model_name="tiny") == 3
    assert total(found, "vllm:e2e_request_latency_seconds_bucket", le="0.3", model_name="tiny") <= 3
    assert total(found, "vllm:time_to_first_token_seconds_bucket", le="0.001", model_name="tiny") <= 3
    slots = str(shared_engine().stats()["kv_slots"])
    assert total(found, "vllm:cache_config_info", block_size="1", num_gpu_blocks=slots) == 1
    assert total(found, "sglang:num_queue_reqs", engine_type="unified", tp_rank="0") == 0
    assert total(found, "sglang:token_usage") == 0


def test_only_the_names_that_are_wanted(used: Running) -> None:
    with running(ServerConfig(metrics_compat=("vllm",))) as server:
        names = {name.split(":")[0] for name, _ in samples(server)}
        assert "vllm" in names and "sglang" not in names


def test_no_names_of_others_if_none_are_wanted() -> None:
    assert config_of({"server__metrics_compat": [""]}).metrics_compat == ()
    with running(ServerConfig(metrics_compat=())) as server:
        assert {name.partition(":")[0].partition("_")[0] for name, _ in samples(server)} == {"sgl", "process"}


def test_labels_are_not_what_clients_send(used: Running) -> None:
    before = samples(used).keys()
    for i in range(20):
        for path in (f"/v1/models/name-{i}", f"/nowhere/{i}"):
            with pytest.raises(urllib.error.HTTPError):
                get(used, path)
    after = samples(used).keys()
    new = {(name, labels) for name, labels in after - before if name.startswith("sgl_like:")}
    routes = {dict(labels).get("route") for _, labels in new}
    assert routes <= {"/v1/models/{model:.+}", "/metrics", "/{path:.*}"}, routes
    assert len(new) <= 8
    assert "name-1" not in get(used, "/metrics") and "nowhere" not in get(used, "/metrics")


class Failing(LocalEngine):
    """Answers once, and then no more."""

    asked = 0
    silent = False

    async def ask(self, what: Question, **arguments: Any) -> Any:
        self.asked += 1
        if self.asked > 1:
            self.state = "unresponsive"
            if self.silent:
                await asyncio.Event().wait()
            raise EngineUnavailable("gone")
        return await super().ask(what, **arguments)


@pytest.mark.parametrize("silent", [False, True])
def test_without_an_engine_its_last_numbers_are_shown(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "ENGINE_SECONDS", 0.05)
    engine = Failing(shared_engine())
    engine.silent = silent
    with running(engine=engine) as server:
        before, after = samples(server), samples(server)
    assert total(before, "sgl_like:engine_up") == 1 and total(after, "sgl_like:engine_up") == 0
    assert total(before, "sgl_like:kv_tokens_free") == total(after, "sgl_like:kv_tokens_free") > 0


def test_loads_are_what_routers_for_sglang_expect(used: Running) -> None:
    answer = json.loads(get(used, "/v1/loads"))
    load = answer["loads"][0]
    assert load["num_running_reqs"] == load["num_waiting_reqs"] == load["num_used_tokens"] == 0
    assert load["max_total_num_tokens"] == shared_engine().stats()["kv_slots"]
    assert load["max_running_requests"] == shared_engine().config.max_running_requests
    assert 0 <= load["cache_hit_rate"] <= 1


def test_server_info_has_no_paths(used: Running) -> None:
    text = get(used, "/server_info")
    info = json.loads(text)
    assert info["status"] == "ready" and info["kv_slots"] == info["max_total_num_tokens"]
    assert shared_engine().model_path not in text and "/" not in text


def test_a_histogram_counts_values_where_prometheus_does() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in (0.05, 0.1, 0.5, 10.0, 11.0):
        histogram.add(value)
    histogram.add(2.0, 3)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 3), ("10.0", 7), ("+Inf", 8)]
    assert histogram.count == 8 and math.isclose(histogram.sum, 27.65)
    twice = histogram + histogram
    assert twice.count == 16 and math.isclose(twice.sum, 55.3) and histogram.count == 8


def test_throughput_is_that_of_the_last_seconds() -> None:
    throughput = Throughput()
    assert throughput.rate(0.0, 0) == 0.0
    assert throughput.rate(2.0, 100) == 50.0
    assert throughput.rate(10.0, 100) == 10.0
    assert throughput.rate(30.0, 300) == 10.0, "since 10.0, the last look that is long enough ago"
