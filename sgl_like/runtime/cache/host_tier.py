"""The cache's second tier: keys and values in files, for prefixes that were evicted or saved at shutdown.

A sequence is cut in blocks, by default of 64 tokens. A block's file is named after the hash of the model, the namespace
and all tokens up to the block's end, so equal prefixes meet in one file, and a prefix is found block by block:

    "w0 w1 w2 ... w63 | w64 ... w127 | w128 ..."
      hash 0 ──────────── hash 1 = H(hash 0, w64 ... w127) ──── ...

Reading happens where the step loop admits a request, writing on a thread of its own. Several processes may use one
folder. A file that is damaged, or from another version, is a miss and gets removed; a full disk only means that less
is kept. The files hold prompts as token ids and are readable by their owner only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import numpy as np
import torch

from sgl_like.runtime.cache.block_file import Block, BlockLayout, read_block, write_block
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.cache.pages import Slots
from sgl_like.runtime.cache.radix_cache import Tokens

log = logging.getLogger(__name__)

BLOCK = 64
"""Tokens in a file: 0.8 MB of a 0.5B model in bfloat16, 8 MB of an 8B model."""
PENDING_BYTES = 256 * 2**20
"""What may wait to be written; when evictions outrun the disk, blocks beyond it are not kept."""
RECOUNT = 256
"""Files written until the folder is looked at again: others write there too."""


class HostTier:
    """Blocks in a folder.

    Args:
        folder: made if it does not exist.
        pool: keys and values that blocks are copied from and to.
        model: fingerprint of the model; see `model_fingerprint`.
        limit: bytes that files in the folder may take together, of all models; the longest unused go first.
        block: tokens in a file; a multiple of the page size.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, pool: KVPool, model: str, limit: int, block: int = BLOCK) -> None:
        layers, _, kv_heads, head_dim = pool.keys.shape
        self.layout = BlockLayout(model, pool.keys.dtype, (layers, block, kv_heads, head_dim))
        self.loaded_tokens = 0
        self._folder = folder
        self._pool = pool
        self._limit = limit
        self._block = block
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known = {entry.name for entry in _files(folder)}  # not to be written again
        self._to_write: Queue[tuple[str, Block] | None] = Queue()
        self._room = threading.Semaphore(max(2, PENDING_BYTES // self.layout.file_bytes))
        self._written = RECOUNT  # counts down from the last look at the folder
        self._bytes = 0
        self._writer = threading.Thread(target=self._write, name="sgl-kv-writer", daemon=True)
        self._writer.start()

    def find(self, tokens: Tokens, start: int, namespace: str) -> int:
        """Where the blocks end that go on from ``tokens[:start]``; `start` if there are none."""
        end = start
        for at, name in self._names(tokens, namespace):
            if at + self._block > start:
                if not (self._folder / name).exists():
                    self._known.discard(name)  # another process may have removed it
                    break
                end = at + self._block
        return end

    def load(self, tokens: Tokens, start: int, slots: Slots, namespace: str) -> int:
        """Fill slots from files.

        Args:
            tokens: the sequence.
            start: its first token to load.
            slots: where the tokens from `start` on go.
            namespace: whose prefix it is.

        Returns:
            How many of the tokens could be loaded; fewer than `slots` if files are missing or damaged.
        """
        done, end = start, start + len(slots)
        for at, name in self._names(tokens, namespace):
            if at >= end:
                break
            if at + self._block <= start:
                continue
            block = self._read(name, tokens[at : at + self._block])
            if block is None:
                break
            stop = min(at + self._block, end)
            into = torch.from_numpy(slots[done - start : stop - start].astype(np.int64)).to(self._pool.device)
            for pool, kept in ((self._pool.keys, block.keys), (self._pool.values, block.values)):
                part = kept[:, done - at : stop - at].to(self._pool.device)
                as_bytes(pool).index_copy_(1, into, as_bytes(part))
            done = stop
        self.loaded_tokens += done - start
        return done - start

    def save(self, tokens: Tokens, slots: Slots, start: int, namespace: str, wait: bool = False) -> None:
        """Keep the blocks of a computed sequence that end after ``tokens[:start]``.

        Args:
            tokens: the sequence.
            slots: where its keys and values are; copied before this returns.
            start: blocks up to here are not looked at.
            namespace: whose prefix it is.
            wait: until there is room to write; else what the disk is too slow for is left out.
        """
        for at, name in self._names(tokens, namespace):
            if at + self._block <= start or name in self._known:
                continue
            if not self._room.acquire(blocking=wait):
                return
            which = torch.from_numpy(slots[at : at + self._block].astype(np.int64)).to(self._pool.device)
            keys, values = (
                each.index_select(1, which).cpu() for each in (self._pool.keys, self._pool.values)
            )
            self._known.add(name)
            self._to_write.put((name, Block(tokens[at : at + self._block].copy(), keys, values)))

    def clear(self) -> None:
        """Remove all blocks of this model."""
        self._to_write.join()
        for entry in _files(self._folder):
            if entry.name.startswith(self._prefix):
                Path(entry.path).unlink(missing_ok=True)
        self._known.clear()

    def close(self) -> None:
        """Write what is left and stop."""
        self._to_write.put(None)
        self._writer.join()

    @property
    def _prefix(self) -> str:
        return self.layout.model[:16] + "-"

    def _names(self, tokens: Tokens, namespace: str) -> Iterator[tuple[int, str]]:
        """Start and file name of every whole block."""
        digest = hashlib.blake2b(f"{self.layout.model} {namespace}".encode(), digest_size=20).digest()
        for at in range(0, len(tokens) - self._block + 1, self._block):
            data = digest + tokens[at : at + self._block].astype("<i4").tobytes()
            digest = hashlib.blake2b(data, digest_size=20).digest()
            yield at, f"{self._prefix}{digest.hex()}.kv"

    def _read(self, name: str, tokens: Tokens) -> Block | None:
        path = self._folder / name
        try:
            block = read_block(path, self.layout, tokens)
            if block is None:
                log.warning("%s is damaged or of another version; removed", path)
                path.unlink(missing_ok=True)
            else:
                os.utime(path)  # used just now
        except OSError as error:
            log.info("%s cannot be read: %s", path, error)
            block = None
        if block is None:
            self._known.discard(name)
        return block

    def _write(self) -> None:
        while (item := self._to_write.get()) is not None:
            name, block = item
            try:
                write_block(self._folder / name, self.layout, block)
                self._bytes += self.layout.file_bytes
                self._written += 1
                if self._bytes > self._limit or self._written >= RECOUNT:
                    self._make_room()
            except Exception as error:  # the thread must not end: others wait for it
                log.warning("a KV block was not kept: %s", error)
                self._known.discard(name)
            finally:
                self._room.release()
                self._to_write.task_done()
            del item, block
        self._to_write.task_done()

    def _make_room(self) -> None:
        """Count what is in the folder, and remove the longest unused files if it is too much."""
        self._written = 0
        files = []
        for entry in _files(self._folder):
            try:
                status = entry.stat()
            except FileNotFoundError:  # another process was faster
                continue
            files.append((status.st_mtime, status.st_size, entry))
        self._bytes = sum(size for _, size, _ in files)
        if self._bytes <= self._limit:
            return
        for _, size, entry in sorted(files, key=lambda file: file[0]):
            Path(entry.path).unlink(missing_ok=True)
            self._known.discard(entry.name)
            self._bytes -= size
            if self._bytes <= 0.9 * self._limit:
                return


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Blocks in a folder; what a killed process has left half written is removed on the way."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".kv"):
                yield entry
            elif entry.name.startswith(".") and ".kv." in entry.name:
                path = Path(entry.path)
                if path.exists() and path.stat().st_mtime < time.time() - 3600:
                    path.unlink(missing_ok=True)


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """fp8 numbers as bytes, which torch can copy into places; others as they are."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


def model_fingerprint(folder: Path, *options: object) -> str:
    """A name for what a model computes: its config, its weight files by size and time, and how they are loaded."""
    digest = hashlib.blake2b(repr(options).encode(), digest_size=16)
    digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
