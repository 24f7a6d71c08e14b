"""Where a model's tensors come from: safetensors files, one or several, or seeded random numbers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sgl_like.errors import ModelLoadError
from sgl_like.kernels.linear import CPU, Linear, make_linear, make_packed_linear
from sgl_like.kernels.packed_linear import BLOCK
from sgl_like.kernels.quantized import Int4Numbers
from sgl_like.kernels.trim import trim
from sgl_like.runtime.models.packing import Packing
from sgl_like.runtime.models.tensor_reader import Rows, TensorReader

INDEX_FILE = "model.safetensors.index.json"
MAPPED_AT_ONCE = 16 * 2**20
"""Bytes of the files that are in memory, beside what has been copied, while a model is loaded."""


class WeightSource:
    """Checked, converted and stacked tensors for the models, all in memory of their own.

    Args:
        reader: where raw tensors come from.
        dtype: what they become.
        quantization: format of linear layers, see `make_linear`.
        device: where they go.
        packing: of linear layers that have no ``weight``.
    """

    def __init__(
        self,
        reader: TensorReader,
        dtype: torch.dtype,
        quantization: str | None = None,
        device: torch.device = CPU,
        packing: Packing | None = None,
    ) -> None:
        self._reader = reader
        self.dtype = dtype
        self.device = device
        self._quantization = quantization
        self._packing = packing

    def first_root(self, roots: Sequence[str], name: str) -> str:
        """The first of some prefixes under which there is a tensor `name`; else the first of all."""
        return next((root for root in roots if self._reader.has(root + name)), roots[0])

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, in `dtype` or the model's.

        Raises:
            ModelLoadError: it is missing or has another shape.
        """
        out = torch.empty(shape, dtype=dtype or self.dtype)
        self._reader.read_into(name, out)
        return out.to(self.device)

    def linear(
        self,
        parts: Mapping[str, int],
        columns: int,
        bias: bool = False,
        transposed: bool = False,
        sensitive: bool = False,
    ) -> Linear:
        """Several linear layers over the same input as one, their outputs side by side; all of them packed, or none.

        Args:
            parts: name of each layer and number of its outputs.
            columns: number of inputs.
            bias: whether they have biases.
            transposed: whether the file has ``[columns, rows]``.
            sensitive: keep 8 bits where other layers have 4.
        """
        format_ = "int8" if sensitive and self._quantization == "int4" else self._quantization
        biases = self._biases(parts) if bias else None
        packed = self._packed(parts, columns)
        if packed is not None:
            made = make_packed_linear(packed, biases, self.dtype, format_, self.device)
        elif (
            len(parts) == 1 and not transposed
        ):  # may be the vocabulary's, larger than all that is packed before it
            (name,) = parts
            lazily = _LazyWeight(self._reader, name, torch.Size((parts[name], columns)), self.dtype)
            made = make_linear(lazily, biases, format_, self.device)
        else:
            made = make_linear(self._stacked(parts, columns, transposed), biases, format_, self.device)
        trim()  # else holes where weights were before they were packed add up to more than the packed ones
        return made

    def _packed(self, parts: Mapping[str, int], columns: int) -> Int4Numbers | None:
        if self._packing is None or not any(self._reader.has(f"{name}.qweight") for name in parts):
            return None
        found = [self._packing.read(self._reader, name, rows, columns) for name, rows in parts.items()]
        values, scales, zeros = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return Int4Numbers(values, scales, zeros)

    def _stacked(self, parts: Mapping[str, int], columns: int, transposed: bool) -> Tensor:
        weight, at = torch.empty(sum(parts.values()), columns, dtype=self.dtype), 0
        for name, size in parts.items():
            part = weight[at : at + size]
            self._reader.read_into(f"{name}.weight", part.T if transposed else part)
            at += size
        return weight

    def _biases(self, parts: Mapping[str, int]) -> Tensor:
        return torch.cat([self.get(f"{name}.bias", (size,)) for name, size in parts.items()])


@dataclass(frozen=True, slots=True)
class _LazyWeight:
    """The weight of a layer that is read piece by piece while it is packed, so that it is never all there twice."""

    reader: TensorReader
    name: str
    shape: torch.Size
    dtype: torch.dtype

    def __getitem__(self, rows: slice, /) -> Tensor:
        first, end, _ = rows.indices(self.shape[0])
        out = torch.empty(end - first, self.shape[1], dtype=self.dtype)
        self.reader.read_into(f"{self.name}.weight", out, Rows(first, self.shape[0]))
        return out


class SafetensorsReader:
    """Reads ``model.safetensors`` or the shards that ``model.safetensors.index.json`` lists, lazily.

    The files are mapped into memory, and mapped anew whenever `MAPPED_AT_ONCE` bytes of them have been read: the
    pages read so far would count as this process's memory until then. Use as a context manager.

    Raises:
        ModelLoadError: no weights, a shard is missing or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._mapped = 0
        self._where = self._index()

    def __enter__(self) -> SafetensorsReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def has(self, name: str) -> bool:
        """Whether a file has a tensor of this name."""
        return name in self._where

    def read_into(self, name: str, out: Tensor, rows: Rows | None = None) -> None:
        """Copy a tensor or some of its rows, a few at a time.

        Raises:
            ModelLoadError: it is missing, has another shape, or cannot be read.
        """
        where = self._where.get(name)
        if where is None:
            raise ModelLoadError(f"{self._folder}: the weights have no tensor {name!r}")
        try:
            found = self._open(where).get_slice(name).get_shape()
            first, total = rows or Rows(0, len(out))
            if found != [total, *out.shape[1:]]:
                raise ModelLoadError(
                    f"weight {name} has shape {found}, the config says {[total, *out.shape[1:]]}"
                )
            row_bytes = 4 * out[0].numel()
            step = max(1, MAPPED_AT_ONCE // row_bytes)
            for at in range(0, len(out), step):
                part = out[at : at + step]
                part[:] = self._open(where).get_slice(name)[first + at : first + at + len(part)]
                self._mapped += row_bytes * len(part)
                if self._mapped >= MAPPED_AT_ONCE:
                    self._close()
        except SafetensorError as error:
            raise ModelLoadError(f"{self._folder / where}: cannot read {name!r}: {error}") from error

    def _close(self) -> None:
        self._stack.close()
        self._files.clear()
        self._mapped = 0

    def _index(self) -> dict[str, str]:
        path = self._folder / INDEX_FILE
        if path.is_file():
            try:
                weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
                return {str(name): str(file) for name, file in weight_map.items()}
            except (ValueError, KeyError, AttributeError) as error:
                raise ModelLoadError(f"{path}: not a safetensors index: {error!r}") from error
        if not (self._folder / "model.safetensors").is_file():
            others = sorted(file.name for file in self._folder.glob("*.bin"))
            hint = f"; convert {others} to safetensors first" if others else ""
            raise ModelLoadError(f"{self._folder}: no model.safetensors and no {INDEX_FILE}{hint}")
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

    def has(self, name: str) -> bool:
        """There is a tensor of any name."""
        return True

    def read_into(self, name: str, out: Tensor, rows: Rows | None = None) -> None:
        """Normal numbers with deviation ``1 / sqrt(columns)``; norms are ones and biases zeros."""
        if out.ndim == 1:
            out.fill_(0.0 if name.endswith("bias") else 1.0)
            return
        first = rows.first if rows else 0
        for at in range(
            0, len(out), BLOCK
        ):  # rows are the same if they are read in pieces, which begin at blocks
            seed = zlib.crc32(f"{name} {first + at}".encode())
            generator = torch.Generator().manual_seed(self._seed + seed)
            out[at : at + BLOCK].normal_(std=out.shape[-1] ** -0.5, generator=generator)
