"""One block of keys and values as a file: a line of JSON that says what it is, then tokens, keys, values.

    {"format": ..., "model": ..., "dtype": ..., "shape": [...], "checksum": ...}
    tokens   [block] int32, little endian
    keys     [layers, block, kv_heads, head_dim]
    values   the same

A reader gives the line that it expects; whatever differs, is cut off or does not fit the checksum (CRC-32 of all that
follows the line) is no block. Files are written under another name first, so that nobody sees half of one.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgl_like.runtime.cache.radix_cache import Tokens

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT = "sgl_like kv block 1"


class BlockLayout(NamedTuple):
    """What all blocks of one model have in common."""

    model: str  # fingerprint of config and weights
    dtype: torch.dtype
    shape: tuple[int, int, int, int]  # layers, block, kv_heads, head_dim

    def header(self, checksum: int) -> bytes:
        """The first line of a block with this checksum."""
        fields = {
            "format": FORMAT,
            "model": self.model,
            "dtype": str(self.dtype),
            "shape": self.shape,
            "checksum": f"{checksum:08x}",
        }
        return json.dumps(fields).encode() + b"\n"

    @property
    def tensor_bytes(self) -> int:
        """Size of the keys, and of the values."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Size of a file."""
        return len(self.header(0)) + 4 * self.shape[1] + 2 * self.tensor_bytes


class Block(NamedTuple):
    """Keys and values of some tokens, each ``[layers, block, kv_heads, head_dim]``."""

    tokens: Tokens
    keys: Tensor
    values: Tensor


def write_block(path: Path, layout: BlockLayout, block: Block) -> None:
    """Write a file, replacing an old one.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    parts: list[Buffer] = [block.tokens.astype("<i4").tobytes(), _bytes(block.keys), _bytes(block.values)]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(layout.header(checksum))
            for part in parts:
                file.write(part)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_block(path: Path, layout: BlockLayout, tokens: Tokens) -> Block | None:
    """The block of `tokens` in a file, or ``None`` if that is not what it holds.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    data = bytearray(layout.file_bytes)
    with path.open("rb", buffering=0) as file:
        if file.readinto(data) != len(data) or file.read(1):
            return None
    start = len(layout.header(0))
    body = memoryview(data)[start:]
    expected = tokens.astype("<i4").tobytes()
    if data[:start] != layout.header(zlib.crc32(body)) or body[: len(expected)] != expected:
        return None
    both = torch.frombuffer(data, dtype=torch.uint8, offset=start + len(expected))
    keys, values = both.clone().view(layout.dtype).view(2, *layout.shape)  # the clone is aligned
    return Block(tokens, keys, values)


def _bytes(tensor: Tensor) -> Buffer:
    """A tensor's memory, as it lies there."""
    data: Buffer = tensor.contiguous().view(torch.uint8).numpy().data
    return data
