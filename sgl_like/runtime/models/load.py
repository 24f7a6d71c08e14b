"""From a model path or hub id to a network ready to run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sgl_like.errors import ConfigError, ModelLoadError
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.llama import Llama
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.weights import DummyReader, SafetensorsReader, WeightSource
from sgl_like.runtime.tokenizer.tokenizer import read_json

EMBEDDED_MODEL = Path(__file__).parents[2] / "assets" / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL_MODEL = 50_000_000
"""Parameters below which a CPU computes in float32, where greedy output does not depend on the batch, and on one
thread. bfloat16 is faster even then (examples/bench/README.md); ask for it with ``dtype``."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.jinja"]


class Model(Protocol):
    """What the engine needs of a network."""

    config: ModelConfig
    dtype: torch.dtype

    def forward(self, batch: ForwardBatch, kv: KVPool) -> Tensor:
        """Hidden states of all new tokens, ``[tokens, hidden]``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """``[n, hidden]`` to ``[n, vocab]`` float32."""
        ...


ARCHITECTURES: dict[str, type[Llama]] = {"LlamaForCausalLM": Llama}


def find_model(model_path: str | Path | None) -> Path:
    """The folder of a model: the embedded one for ``None``, a local folder, or a hub id (downloaded and cached).

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
        return Path(snapshot_download(str(model_path), allow_patterns=_FILES))
    except Exception as error:  # network, authorisation, unknown id: the hub's own words say which
        raise ModelLoadError(f"{model_path}: no such folder, and the hub did not give it: {error}") from error


def load_model(folder: Path, dtype: str = "auto", load_format: str = "auto") -> Model:
    """Read config and weights.

    Args:
        folder: a Hugging Face model folder.
        dtype: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        load_format: ``"auto"`` (safetensors) or ``"dummy"`` (seeded random weights of the config's shape).

    Raises:
        ModelLoadError: the folder cannot be loaded.
        ConfigError: an argument is unknown.
    """
    config = read_model_config(folder)
    target = _choose_dtype(dtype, config)
    build = ARCHITECTURES[config.architecture]
    if load_format == "dummy":
        return build(config, WeightSource(DummyReader(), target))
    if load_format not in ("auto", "safetensors"):
        raise ConfigError(f"load_format must be 'auto', 'safetensors' or 'dummy', not {load_format!r}")
    with SafetensorsReader(folder) as reader:
        return build(config, WeightSource(reader, target))


def read_model_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder.

    Raises:
        ModelLoadError: no or bad ``config.json``, or an architecture that is not supported.
    """
    raw = read_json(folder / "config.json")
    if not raw:
        raise ModelLoadError(f"{folder}: no config.json, so this is not a Hugging Face model folder")
    name = (raw.get("architectures") or ["?"])[0]
    if name not in ARCHITECTURES:
        raise ModelLoadError(
            f"{folder / 'config.json'}: architecture {name!r} is not supported; known: {', '.join(ARCHITECTURES)}"
        )
    return ModelConfig.from_dict(raw)


def parameter_count(config: ModelConfig) -> int:
    """Number of weights in the matrices."""
    attention = config.hidden_size * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied_embeddings else 2)
    return config.layers * layer + embeddings


def _choose_dtype(dtype: str, config: ModelConfig) -> torch.dtype:
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be 'auto', {' or '.join(map(repr, DTYPES))}, not {dtype!r}")
        return DTYPES[dtype]
    halved = config.dtype in ("bfloat16", "float16")
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if halved and fast and parameter_count(config) > SMALL_MODEL else torch.float32
