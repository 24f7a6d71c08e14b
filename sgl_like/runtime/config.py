"""Options of the engine, checked when made and complete after one `resolve`."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sgl_like.errors import ConfigError

GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How an engine runs.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.
        dtype: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        kv_cache_dtype: ``"auto"``: the model's; ``"fp8"``: half of that of bfloat16, on GPUs.
        quantization: ``"int8"`` (a scale for each output) or ``"int4"`` (one for each 32 weights; the vocabulary's
            matrices have 8 bits) make weights smaller and CPUs faster, ``"fp8"`` likewise on GPUs; ``None`` keeps them.
        load_format: ``"auto"`` or ``"dummy"`` (seeded random weights).
        kv_cache_memory: bytes for keys and values; ``None`` takes what `resolve` finds sensible.
        max_running_requests: most rows in one batch.
        max_batch_tokens: most new tokens in one forward pass; longer prompts are computed in chunks.
        max_queued_requests: requests beyond this many waiting ones are refused.
        context_length: longest sequence; ``None`` means the model's own limit, which for models with LongRoPE (Phi-3,
            Phi-4-mini) is the context of pre-training: beyond it they compute all sequences in another way.
        enable_radix_cache: keep prefixes for reuse.
        page_size: KV slots that are handed out and shared together: 1, 16 or 64. Larger ones make less work per token;
            a prefix is shared in whole pages only.
        cache_dir: folder of the cache's second tier: prefixes that are evicted, or cached at shutdown, are kept there
            in files and reloaded by this or a later engine with the same model and dtype. ``None`` for no such tier.
        cache_dir_bytes: what the files in `cache_dir` may take together; the longest unused go first.
        namespace_quota: share of the KV slots, above 0 and at most 1, that the prefixes of one namespace may take while
            others are evicted: one that has more loses its own least recently used ones first. ``None``: the least
            recently used prefix goes, whose ever it is.
        schedule_policy: ``"lpm"`` (longest cached prefix first) or ``"fcfs"`` (first come, first served).
        speculation: ``"ngram"``: passes of few rows also compute tokens that are likely to come next because they
            followed the same tokens before; outputs stay the same. ``"off"``.
        speculation_tokens: most of them for one request.
        chat_template: instead of the model's own: a registered name (`sgl_like.register_chat_template`), the path of a
            Jinja file, or Jinja text.
        constraint_step_seconds: that a constraint may take to find what may come next; one that takes longer ends with
            an error, as all other outputs wait meanwhile. (A server's engine has 0.25.)
        threads: torch's threads in the engine; ``None`` means one for a small model, where a second gains
            a tenth on an idle machine and loses more on a busy one, else torch's choice.

    Raises:
        ConfigError: a value is out of range.
    """

    device: str = "auto"
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    load_format: str = "auto"
    kv_cache_memory: int | None = None
    max_running_requests: int = 64
    max_batch_tokens: int = 2048
    max_queued_requests: int = 100_000
    context_length: int | None = None
    enable_radix_cache: bool = True
    page_size: int = 1
    cache_dir: str | Path | None = None
    cache_dir_bytes: int = 8 * GIB
    namespace_quota: float | None = None
    schedule_policy: str = "lpm"
    speculation: str = "ngram"
    speculation_tokens: int = 5
    chat_template: str | Path | None = None
    constraint_step_seconds: float = 5.0
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.quantization not in (None, "int8", "int4", "fp8"):
            raise ConfigError(
                f"quantization must be 'int8', 'int4', 'fp8' or None, not {self.quantization!r}"
            )
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        _one_of("kv_cache_dtype", self.kv_cache_dtype, ("auto", "fp8"))
        for name in (
            "max_running_requests",
            "max_batch_tokens",
            "max_queued_requests",
            "cache_dir_bytes",
            "speculation_tokens",
        ):
            _positive(name, getattr(self, name))
        for name in ("kv_cache_memory", "context_length", "threads"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        quota = self.namespace_quota
        if quota is not None and (
            isinstance(quota, bool) or not isinstance(quota, int | float) or not 0 < quota <= 1
        ):
            raise ConfigError(
                f"namespace_quota must be a number above 0 and at most 1, or None, not {quota!r}"
            )
        if not 0 < self.constraint_step_seconds < math.inf:
            raise ConfigError(
                f"constraint_step_seconds must be more than 0, not {self.constraint_step_seconds!r}"
            )
        _one_of("speculation", self.speculation, ("off", "ngram"))
        _one_of("page_size", self.page_size, (1, 16, 64))
        _one_of("schedule_policy", self.schedule_policy, ("lpm", "fcfs"))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> EngineConfig:
        """From keyword arguments as a user writes them. ``chat_template_name`` is another name of ``chat_template``.

        Raises:
            ConfigError: an unknown name, with the nearest known one; or one template too many.
        """
        if "chat_template_name" in options:
            if "chat_template" in options:
                raise ConfigError("give chat_template or chat_template_name, not both")
            options = dict(options)
            options["chat_template"] = options.pop("chat_template_name")
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
                raise ConfigError(f"unknown engine option {name!r}; {hint}")
        return cls(**options)

    def resolve(
        self, model_context: int, bytes_per_slot: int, device_memory: int | None = None
    ) -> EngineConfig:
        """Fill in what depends on the model and the machine.

        Without a budget the KV cache gets a fifth of the free memory, but no more than would hold
        `max_running_requests` sequences of full length with as much again for prefixes, nor than 4 GiB; on a GPU it
        gets nine tenths of what is free.

        Args:
            model_context: longest sequence that the model was made for.
            bytes_per_slot: KV memory of one token.
            device_memory: bytes that are free on the GPU; ``None``: there is none.

        Raises:
            ConfigError: the budget does not hold even one token.
        """
        context = min(self.context_length or model_context, model_context)
        budget = self.kv_cache_memory
        if budget is None:
            wanted = 2 * self.max_running_requests * context * bytes_per_slot
            least = max(16, self.page_size) * bytes_per_slot
            most = min(_free_memory() // 5, 4 * GIB) if device_memory is None else device_memory * 9 // 10
            budget = max(min(wanted, most), least)
        page = self.page_size * bytes_per_slot
        if budget < page:
            what = "token" if self.page_size == 1 else f"page of {self.page_size} tokens"
            raise ConfigError(f"kv_cache_memory={budget} holds no {what}: each needs {page} bytes")
        return replace(self, context_length=context, kv_cache_memory=budget)


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be an integer of at least 1, not {value!r}")


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if isinstance(value, bool) or value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


def _free_memory() -> int:
    """Bytes of memory that are available now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
