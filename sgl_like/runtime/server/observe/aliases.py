"""The names that vLLM and SGLang have for what we count, so that dashboards, autoscalers and routers work with us.

An alias is one of our metrics under another name, with its labels renamed, summed up, or completed; what we have no
number for has no alias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sgl_like.runtime.server.observe.families import Family, Snapshot, Value


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of another engine's.

    Args:
        name: without prefix.
        of: our name.
        rename: labels of ours to labels of theirs; the others are summed up.
        more: labels that only they have.
        values: our values of the one renamed label to theirs; others are left out. Empty: all, as they are.
    """

    name: str
    of: str
    rename: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


_ENDED = {reason: reason for reason in ("stop", "length", "abort", "error")}

VLLM = (
    *(Alias(name, of)
    for name, of in (
        ("num_requests_running", "running_requests"),
        ("num_requests_waiting", "waiting_requests"),
        ("kv_cache_usage_perc", "kv_usage"),
        ("gpu_cache_usage_perc", "kv_usage"),  # what it was called before; scorers still ask for it
        ("prefix_cache_queries", "prompt_tokens"),
        ("prefix_cache_hits", "prompt_tokens_cached"),
        ("num_preemptions", "retractions"),
        ("prompt_tokens", "prompt_tokens"),
        ("prompt_tokens_cached", "prompt_tokens_cached"),
        ("generation_tokens", "generation_tokens"),
        ("spec_decode_num_draft_tokens", "draft_tokens"),
        ("spec_decode_num_accepted_tokens", "draft_tokens_accepted"),
        ("time_to_first_token_seconds", "time_to_first_token_seconds"),
        ("inter_token_latency_seconds", "inter_token_latency_seconds"),
        ("time_per_output_token_seconds", "inter_token_latency_seconds"),  # what it was called before
        ("request_time_per_output_token_seconds", "time_per_output_token_seconds"),
        ("e2e_request_latency_seconds", "e2e_request_latency_seconds"),
        ("request_queue_time_seconds", "request_queue_time_seconds"),
        ("request_inference_time_seconds", "request_inference_time_seconds"),
        ("request_prefill_time_seconds", "request_prefill_time_seconds"),
        ("request_decode_time_seconds", "request_decode_time_seconds"),
        ("request_prompt_tokens", "request_prompt_tokens"),
        ("request_generation_tokens", "request_generation_tokens"),
        ("request_params_n", "request_outputs"),
        ("iteration_tokens_total", "step_tokens"),
        ("request_params_max_tokens", "request_max_tokens"),
    )),
    Alias("num_requests_waiting_by_reason", "waiting_requests", more={"reason": "capacity"}),
    Alias("request_success", "requests_ended", {"reason": "finished_reason"}, values=_ENDED),
    Alias(
        "admission_rejections", "calls_refused", {"reason": "reason"},
        values={"queue_requests": "max_num_queued_reqs", "queue_tokens": "max_num_queued_tokens"},
    ),
)  # fmt: skip

_RANK = {"engine_type": "unified", "tp_rank": "0", "pp_rank": "0", "moe_ep_rank": "0"}
_STREAMING = {"streaming": "is_streaming"}
_HTTP = {"route": "endpoint", "method": "method"}

SGLANG = (
    *(Alias(name, of, more=_RANK)
    for name, of in (
        ("num_running_reqs", "running_requests"),
        ("num_queue_reqs", "waiting_requests"),
        ("gen_throughput", "generation_throughput"),
        ("cache_hit_rate", "cache_hit_rate"),
        ("token_usage", "kv_usage"),
        ("num_used_tokens", "kv_tokens_used"),
        ("kv_available_tokens", "kv_tokens_free"),
        ("kv_evictable_tokens", "kv_tokens_evictable"),
        ("kv_used_tokens", "kv_tokens_used"),
        ("max_total_num_tokens", "kv_tokens"),
        ("context_len", "context_length"),
        ("evicted_tokens", "kv_tokens_evicted"),
        ("num_retracted_requests", "retractions"),
        ("num_retracted_input_tokens", "retracted_prompt_tokens"),
        ("num_retracted_output_tokens", "retracted_generation_tokens"),
        ("decode_sum_seq_lens", "running_tokens"),
        ("grammar_compilation_time_seconds", "constraint_compile_seconds"),
        ("num_grammar_cache_hit", "constraints_found"),
        ("queue_time_seconds", "request_queue_time_seconds"),
    )),
    Alias("prompt_tokens", "prompt_tokens", _STREAMING),
    Alias("generation_tokens", "generation_tokens", _STREAMING),
    Alias("cached_tokens", "prompt_tokens_cached", more={"cache_source": "total"}),
    Alias("num_requests", "requests", _STREAMING),
    Alias("num_so_requests", "constrained_requests"),
    Alias("num_aborted_requests", "requests_aborted"),
    Alias("time_to_first_token_seconds", "time_to_first_token_seconds", _STREAMING),
    Alias("inter_token_latency_seconds", "inter_token_latency_seconds"),
    Alias("e2e_request_latency_seconds", "e2e_request_latency_seconds", _STREAMING),
    Alias("prompt_tokens_histogram", "request_prompt_tokens"),
    Alias("generation_tokens_histogram", "request_generation_tokens"),
    Alias("http_requests", "http_requests", _HTTP),
    Alias("http_responses", "http_responses", {**_HTTP, "status": "status_code"}),
    Alias("http_requests_active", "http_requests_active", _HTTP),
)  # fmt: skip

ENGINES: Mapping[str, tuple[str, tuple[Alias, ...], Mapping[str, str]]] = {
    "vllm": ("vllm:", VLLM, {"engine": "0"}),
    "sglang": ("sglang:", SGLANG, {}),
}
"""By what `ServerConfig.metrics_compat` calls them: prefix, names, and labels that all of them have."""


def aliases(engine: str, ours: Mapping[str, Family]) -> Iterator[Family]:
    """Our metrics under another engine's names."""
    prefix, names, everywhere = ENGINES[engine]
    for alias in names:
        if alias.of in ours:
            yield renamed(alias, ours[alias.of], prefix, everywhere)


def renamed(alias: Alias, family: Family, prefix: str, everywhere: Mapping[str, str]) -> Family:
    """One of them."""
    kept = [i for i, label in enumerate(family.labels) if label in alias.rename]
    more = {**everywhere, **alias.more}
    samples: dict[tuple[str, ...], Value] = {}
    if not kept and family.kind == "counter":
        samples[tuple(more.values())] = 0.0
    for values, value in family.samples.items():
        mine = tuple(values[i] for i in kept)
        if alias.values:
            if mine[0] not in alias.values:
                continue
            mine = (alias.values[mine[0]],)
        key = (*mine, *more.values())
        samples[key] = samples[key] + value if key in samples else value  # type: ignore[operator]
    labels = (*(alias.rename[family.labels[i]] for i in kept), *more)
    return Family(prefix + alias.name, family.kind, family.help, samples, labels)


def cache_config(snapshot: Snapshot) -> Family:
    """The gauge of vLLM whose labels are the size of the KV cache; routers read it."""
    page = int(snapshot.stats.get("page_size", 1))
    slots = snapshot.info.kv_slots if snapshot.info is not None else 0
    labels = {
        "engine": "0",
        "block_size": str(page),
        "num_gpu_blocks": str(slots // page),
        "kv_cache_size_tokens": str(slots),
        "enable_prefix_caching": str(bool(snapshot.stats.get("enable_radix_cache", True))),
    }
    help = "1; the size of the KV cache is in the labels."
    return Family("vllm:cache_config_info", "gauge", help, {tuple(labels.values()): 1.0}, tuple(labels))
