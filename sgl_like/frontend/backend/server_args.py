"""SGLang's server arguments as options of an engine in this process.

``sgl.Runtime(...)`` takes them, so that SGLang's scripts run unchanged. Each is one of four kinds: an option of the
engine, maybe under another name; without meaning here (kernels, ports, logs of a server), which one warning says; able
to have only some values here, any other being an error; or unknown, an error with the nearest name.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sgl_like.errors import ConfigError
from sgl_like.runtime.config import EngineConfig

__all__ = ["engine_options"]

_OPTIONS = frozenset(field.name for field in fields(EngineConfig))

_RENAMED: Mapping[str, str] = {
    "chat_template_name": "chat_template",
    "chunked_prefill_size": "max_batch_tokens",
    "speculative_num_draft_tokens": "speculation_tokens",
}

_LIMITED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tp_size": ((1,), "the engine runs in one process"),
    "tensor_parallel_size": ((1,), "the engine runs in one process"),
    "pp_size": ((1,), "the engine runs in one process"),
    "pipeline_parallel_size": ((1,), "the engine runs in one process"),
    "dp_size": ((1,), "the engine runs in one process"),
    "data_parallel_size": ((1,), "the engine runs in one process"),
    "ep_size": ((1,), "the engine runs in one process"),
    "nnodes": ((1,), "the engine runs in one process"),
    "node_rank": ((0,), "the engine runs in one process"),
    "dist_init_addr": ((None,), "the engine runs in one process"),
    "device": ((None, "auto", "cpu"), "the engine runs on the CPU"),
    "kv_cache_dtype": (("auto",), "keys and values have the model's dtype"),
    "radix_eviction_policy": (("lru",), "the longest unused prefix goes first"),
    "max_total_tokens": ((None,), "give kv_cache_memory, in bytes"),
    "tokenizer_path": ((None,), "the tokenizer is read from the model's folder"),
    "skip_tokenizer_init": ((False,), "programs are text"),
    "is_embedding": ((False,), "there are no embedding models"),
    "enable_multimodal": ((None, False), "models read text only"),
    "enable_lora": ((None, False), "there are no adapters"),
    "lora_paths": ((None, [], {}), "there are no adapters"),
    "revision": ((None,), "give the folder of the wanted revision as model_path"),
    "download_dir": ((None,), "set HF_HOME for another folder"),
    "json_model_override_args": ((None, "{}"), "config.json is taken as it is"),
    "speculative_draft_model_path": ((None,), "drafts come from the text itself"),
    "cpu_offload_gb": ((0,), "all weights are in memory"),
}
"""Arguments of which only these values can be honoured, and why."""

_WITHOUT_MEANING = frozenset(
    {
        "api_key", "attention_backend", "base_gpu_id", "completion_template", "constrained_json_whitespace_pattern",
        "crash_dump_folder", "cuda_graph_bs", "cuda_graph_max_bs", "decode_attention_backend",
        "decode_log_interval", "disable_cuda_graph", "disable_cuda_graph_padding", "disable_custom_all_reduce",
        "disable_fast_image_processor", "disable_hybrid_swa_memory", "disable_outlines_disk_cache",
        "disable_overlap_schedule", "dist_timeout", "enable_cache_report", "enable_deterministic_inference",
        "enable_memory_saver", "enable_metrics", "enable_mixed_chunk", "enable_nan_detection", "enable_p2p_check",
        "enable_return_hidden_states", "enable_torch_compile", "file_storage_path", "flashinfer_mla_disable_ragged",
        "gpu_id_step", "grammar_backend", "host", "incremental_streaming_output", "launch_timeout",
        "log_level_http", "log_requests", "log_requests_level", "max_micro_batch_size", "max_prefill_tokens",
        "mem_fraction_static", "mm_attention_backend", "num_continuous_decode_steps", "port",
        "preferred_sampling_params", "prefill_attention_backend", "reasoning_parser", "sampling_backend",
        "schedule_conservativeness", "served_model_name", "show_time_cost", "skip_server_warmup", "sleep_on_idle",
        "soft_watchdog_timeout", "stream_interval", "stream_output", "swa_full_tokens_ratio", "tokenizer_mode",
        "tokenizer_worker_num", "tool_call_parser", "torch_compile_max_bs", "triton_attention_num_kv_splits",
        "triton_attention_reduce_in_fp32", "trust_remote_code", "warmups", "watchdog_timeout", "weight_version",
    }
)  # fmt: skip


def engine_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `sgl_like.Engine` from its own names and SGLang's.

    Raises:
        ConfigError: an argument is unknown (with the nearest one that is known), given twice under two names, or has a
            value that cannot be honoured here.
    """
    options: dict[str, Any] = {}
    ignored = [name for name in given if name in _WITHOUT_MEANING]
    for name, value in given.items():
        if name in _WITHOUT_MEANING:
            continue
        if name in _LIMITED:
            allowed, reason = _LIMITED[name]
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} cannot be honoured: {reason}")
            continue
        for own, converted in _converted(name, value).items():
            if own in options:
                raise ConfigError(f"{own} is given twice, also as {name}")
            options[own] = converted
    if ignored:
        names = ", ".join(ignored)
        warnings.warn(f"Runtime: without meaning here, and ignored: {names}", stacklevel=3)
    return options


def _converted(name: str, value: Any) -> dict[str, Any]:
    """One argument as an option of the engine; empty where the value changes nothing."""
    if name in _OPTIONS:
        as_default = name == "load_format" and value == "safetensors"
        return {name: "auto" if as_default else value}
    if name in _RENAMED:
        unset = value is None or (name == "chunked_prefill_size" and value == -1)
        return {} if unset else {_RENAMED[name]: value}
    if name == "disable_radix_cache":
        return {"enable_radix_cache": not value}
    if name == "speculative_algorithm":
        if value is None:
            return {}
        if str(value).upper() == "NGRAM":
            return {"speculation": "ngram"}
        raise ConfigError(f"speculative_algorithm={value!r} cannot be honoured: there is 'NGRAM' only")
    known = sorted({*_OPTIONS, *_RENAMED, *_LIMITED, *_WITHOUT_MEANING, "disable_radix_cache", "model_path"})
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the engine's own are {', '.join(sorted(_OPTIONS))}"
    raise ConfigError(f"unknown argument {name!r} of Runtime; {hint}")
