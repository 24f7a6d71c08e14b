"""How the parts of an engine are put together for a model and its options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from sgl_like.errors import ConfigError
from sgl_like.kernels.dispatch import by_triton
from sgl_like.runtime.cache.host_tier import HostTier
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.config import EngineConfig
from sgl_like.runtime.engine.core import EngineCore
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.output import OutputProcessor
from sgl_like.runtime.engine.runner import ModelRunner
from sgl_like.runtime.engine.scheduler import Scheduler
from sgl_like.runtime.engine.speculation import Speculation
from sgl_like.runtime.models.load import Model

T = TypeVar("T")
FP8_CAPABILITY = (8, 9)


def make_core(
    config: EngineConfig, model: Model, slots: int, fingerprint: str, eos_token_ids: Iterable[int]
) -> EngineCore:
    """An engine without its thread.

    Args:
        config: resolved options.
        model: the network.
        slots: tokens that the KV pool holds.
        fingerprint: what the cache's second tier knows the model by.
        eos_token_ids: of the model.

    Raises:
        ConfigError: `cache_dir` cannot be used.
    """
    shape = model.config
    dtype = kv_dtype(config, model)
    pool = KVPool(shape.layers, slots, shape.kv_heads, shape.head_dim, dtype, model.device)
    host = None
    if config.cache_dir is not None and config.enable_radix_cache:
        try:
            host = HostTier(Path(config.cache_dir).expanduser(), pool, fingerprint, config.cache_dir_bytes)
        except OSError as error:
            raise ConfigError(f"cache_dir={str(config.cache_dir)!r} cannot be used: {error}") from error
    memory = KVMemory(slots, config.enable_radix_cache, config.page_size, host, config.namespace_quota)
    scheduler = Scheduler(
        memory, config.max_running_requests, config.max_batch_tokens, config.schedule_policy
    )
    drafts = Speculation(memory, config.speculation_tokens) if config.speculation == "ngram" else None
    return EngineCore(ModelRunner(model, pool), memory, scheduler, OutputProcessor(eos_token_ids), drafts)


def choose_device(config: EngineConfig) -> torch.device:
    """Where an engine runs.

    Raises:
        ConfigError: there is no GPU, or an option needs one.
    """
    found = torch.cuda.is_available()
    if config.device == "cuda" and not found:
        raise ConfigError("device='cuda': torch finds no GPU")
    device = torch.device("cuda" if found and config.device != "cpu" else "cpu")
    if not by_triton(device):
        if config.quantization == "fp8":
            raise ConfigError("quantization='fp8' needs a GPU; 'int8' is the format for CPUs")
        if config.kv_cache_dtype == "fp8":
            raise ConfigError("kv_cache_dtype='fp8' needs a GPU")
    elif device.type == "cuda" and "fp8" in (config.quantization, config.kv_cache_dtype):
        check_fp8(torch.cuda.get_device_capability())
    return device


def check_fp8(capability: tuple[int, int]) -> None:
    """Raises:
    ConfigError: a GPU of this compute capability has no numbers of 8 bits.
    """
    if capability < FP8_CAPABILITY:
        major, minor = capability
        raise ConfigError(
            f"fp8 needs a GPU of compute capability 8.9 (Ada, Hopper) or later; this one has {major}.{minor}"
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, with what torch keeps there and does not use; ``None`` for a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def kv_dtype(config: EngineConfig, model: Model) -> torch.dtype:
    """How keys and values are kept."""
    return torch.float8_e4m3fn if config.kv_cache_dtype == "fp8" else model.dtype


def aside(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on a thread that ends then.

    OpenMP counts the threads that torch starts for a caller, and while there are more than processors, it lets those of
    the engine sleep between any two kernels. Those of a thread that has ended are gone.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()
