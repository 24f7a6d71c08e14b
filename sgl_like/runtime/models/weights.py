"""Where a model's tensors come from: safetensors files, one or several, or seeded random numbers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sgl_like.errors import ModelLoadError
from sgl_like.kernels.linear import Linear, make_linear

INDEX_FILE = "model.safetensors.index.json"


class TensorReader(Protocol):
    """Gives tensors by their Hugging Face names."""

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of this name; `shape` is what it should be."""
        ...


class WeightSource:
    """Checked, converted and stacked tensors for the models.

    Args:
        reader: where raw tensors come from.
        dtype: what they become.
    """

    def __init__(self, reader: TensorReader, dtype: torch.dtype) -> None:
        self._reader = reader
        self.dtype = dtype

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor.

        Raises:
            ModelLoadError: it is missing or has another shape.
        """
        tensor = self._reader.read(name, shape)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"weight {name} has shape {list(tensor.shape)}, the config says {list(shape)}"
            )
        return tensor.to(self.dtype).contiguous()

    def linear(self, parts: Mapping[str, int], columns: int, bias: bool = False) -> Linear:
        """Several linear layers over the same input as one, their outputs side by side.

        Args:
            parts: name of each layer and number of its outputs.
            columns: number of inputs.
            bias: whether they have biases.
        """
        weight = torch.empty(sum(parts.values()), columns, dtype=self.dtype)
        at = 0
        for name, rows in parts.items():
            weight[at : at + rows] = self.get(f"{name}.weight", (rows, columns))
            at += rows
        biases = [self.get(f"{name}.bias", (rows,)) for name, rows in parts.items()] if bias else None
        return make_linear(weight, torch.cat(biases) if biases else None)


class SafetensorsReader:
    """Reads ``model.safetensors`` or the shards that ``model.safetensors.index.json`` lists, lazily.

    Use as a context manager.

    Raises:
        ModelLoadError: no weights, a shard is missing or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._where = self._index()

    def __enter__(self) -> SafetensorsReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor of this name, in the file's dtype."""
        where = self._where.get(name)
        if where is None:
            raise ModelLoadError(f"{self._folder}: the weights have no tensor {name!r}")
        try:
            tensor: Tensor = self._open(where).get_tensor(name)
        except SafetensorError as error:
            raise ModelLoadError(f"{self._folder / where}: cannot read {name!r}: {error}") from error
        return tensor

    def _index(self) -> dict[str, str]:
        path = self._folder / INDEX_FILE
        if path.is_file():
            try:
                weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
                return {str(name): str(file) for name, file in weight_map.items()}
            except (ValueError, KeyError, AttributeError) as error:
                raise ModelLoadError(f"{path}: not a safetensors index: {error!r}") from error
        if not (self._folder / "model.safetensors").is_file():
            raise ModelLoadError(f"{self._folder}: no model.safetensors and no {INDEX_FILE}")
        return dict.fromkeys(self._open("model.safetensors").keys(), "model.safetensors")

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path = self._folder / file
            if Path(file).name != file or not path.is_file():
                raise ModelLoadError(f"{path}: this shard of the weights is missing")
            try:
                self._files[file] = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise ModelLoadError(f"{path}: not a readable safetensors file: {error}") from error
        return self._files[file]


class DummyReader:
    """Random weights of the right shapes, the same in every process (``load_format="dummy"``)."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Normal numbers with deviation ``1 / sqrt(columns)``; norms are ones and biases zeros."""
        if len(shape) == 1:
            return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
        generator = torch.Generator().manual_seed(self._seed + zlib.crc32(name.encode()))
        return torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5)
