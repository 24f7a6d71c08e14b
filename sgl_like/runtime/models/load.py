"""From a model path or hub id to a network ready to run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sgl_like.errors import ConfigError, ModelLoadError
from sgl_like.runtime.cache.kv_pool import CPU, KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models import (
    gemma2,
    gemma3,
    gpt2,
    llama,
    mistral,
    mixtral,
    phi3,
    qwen2,
    qwen3,
    qwen_moe,
)
from sgl_like.runtime.models.config_fields import ConfigFields
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.packing import read_packing
from sgl_like.runtime.models.weights import DummyReader, SafetensorsReader, WeightSource
from sgl_like.runtime.tokenizer.tokenizer import read_json

EMBEDDED_MODEL = Path(__file__).parents[2] / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL_MODEL = 50_000_000
"""Parameters below which a CPU computes in float32, where greedy output does not depend on the batch, and on one
thread. bfloat16 is faster even then (examples/bench/README.md); ask for it with ``dtype``."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.jinja"]
_WEIGHTS = ["*.safetensors"]
_OTHER_WEIGHTS = ["*/*", "consolidated*"]  # the same weights in other formats


class Model(Protocol):
    """What the engine needs of a network."""

    config: ModelConfig
    dtype: torch.dtype
    device: torch.device

    def forward(self, batch: ForwardBatch, kv: KVPool) -> Tensor:
        """Hidden states of all new tokens, ``[tokens, hidden]``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """``[n, hidden]`` to ``[n, vocab]`` float32."""
        ...


class Family(NamedTuple):
    """How to read a config of an architecture, and how to build its network."""

    read: Callable[[ConfigFields], ModelConfig]
    build: Callable[[ModelConfig, WeightSource], Model]


ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": Family(llama.read, llama.build),
    "MistralForCausalLM": Family(mistral.read, mistral.build),
    "Qwen2ForCausalLM": Family(qwen2.read, qwen2.build),
    "Qwen3ForCausalLM": Family(qwen3.read, qwen3.build),
    "Gemma2ForCausalLM": Family(gemma2.read, gemma2.build),
    "Gemma3ForCausalLM": Family(gemma3.read, gemma3.build),
    "Gemma3ForConditionalGeneration": Family(gemma3.read, gemma3.build),
    "Phi3ForCausalLM": Family(phi3.read, phi3.build),
    "GPT2LMHeadModel": Family(gpt2.read, gpt2.build),
    "MixtralForCausalLM": Family(mixtral.read, mixtral.build),
    "Qwen2MoeForCausalLM": Family(qwen_moe.read_qwen2, qwen_moe.build),
    "Qwen3MoeForCausalLM": Family(qwen_moe.read_qwen3, qwen_moe.build),
}


def find_model(model_path: str | Path | None, with_weights: bool = True) -> Path:
    """The folder of a model: the embedded one for ``None``, a local folder, or a hub id (downloaded and cached).

    Args:
        model_path: where it is.
        with_weights: whether the weights of a hub id are wanted too.

    Raises:
        ModelLoadError: there is no such folder, and it is no hub id or the hub cannot give it.
    """
    if model_path is None:
        return EMBEDDED_MODEL
    folder = Path(model_path).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(str(model_path)):
        raise ModelLoadError(
            f"{model_path}: no such folder, and not a Hugging Face id of the form owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        wanted = [*_FILES, *_WEIGHTS] if with_weights else _FILES
        return Path(snapshot_download(str(model_path), allow_patterns=wanted, ignore_patterns=_OTHER_WEIGHTS))
    except Exception as error:  # network, authorisation, unknown id: the hub's own words say which
        raise ModelLoadError(f"{model_path}: no such folder, and the hub did not give it: {error}") from error


def load_model(
    folder: Path,
    dtype: str = "auto",
    load_format: str = "auto",
    context_length: int | None = None,
    quantization: str | None = None,
    device: torch.device = CPU,
) -> Model:
    """Read config and weights.

    Args:
        folder: a Hugging Face model folder.
        dtype: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        load_format: ``"auto"`` (safetensors) or ``"dummy"`` (seeded random weights of the config's shape).
        context_length: see `read_model_config`.
        quantization: ``None``, ``"int8"``, ``"int4"`` or ``"fp8"``: how the weights of linear layers are kept. On
            GPUs, layers that AWQ or GPTQ packed stay so.
        device: where the model runs.

    Raises:
        ModelLoadError: the folder cannot be loaded.
        ConfigError: an argument is unknown.
    """
    config = read_model_config(folder, context_length)
    target = _choose_dtype(dtype, config, device)
    build = ARCHITECTURES[config.architecture].build
    if load_format == "dummy":
        return build(config, WeightSource(DummyReader(), target, quantization, device))
    if load_format not in ("auto", "safetensors"):
        raise ConfigError(f"load_format must be 'auto', 'safetensors' or 'dummy', not {load_format!r}")
    with SafetensorsReader(folder) as reader:
        return build(config, WeightSource(reader, target, quantization, device, config.packing))


def read_model_config(folder: Path, context_length: int | None = None) -> ModelConfig:
    """The shape of the model in a folder.

    Args:
        folder: a Hugging Face model folder.
        context_length: longest sequence that is wanted. It matters to models with LongRoPE (Phi-3, Phi-4-mini), which
            are held to the context of pre-training unless more is asked for.

    Raises:
        ModelLoadError: no or bad ``config.json``, or something that is not supported.
    """
    raw = read_json(folder / "config.json")
    if not raw:
        raise ModelLoadError(f"{folder}: no config.json, so this is not a Hugging Face model folder")
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else names
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelLoadError(
            f"{folder / 'config.json'}: architecture {name!r} is not supported; known: {', '.join(ARCHITECTURES)}"
        )
    fields = ConfigFields(raw)
    config = replace(ARCHITECTURES[name].read(fields), architecture=name, packing=read_packing(fields))
    return config.for_context(context_length)


def parameter_count(config: ModelConfig) -> int:
    """Number of weights in the matrices."""
    return config.parameter_count()


def _choose_dtype(dtype: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    if dtype == "float16":
        raise ConfigError(
            "dtype 'float16' is not supported: its range is too small for some models, and CPUs are slow at it; "
            "take 'bfloat16' or 'float32' (files in float16 are converted)"
        )
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be 'auto', {' or '.join(map(repr, DTYPES))}, not {dtype!r}")
        return DTYPES[dtype]
    if device.type != "cpu":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    halved = config.dtype in ("bfloat16", "float16")
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if halved and fast and parameter_count(config) > SMALL_MODEL else torch.float32
