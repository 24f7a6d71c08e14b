"""Where answers are kept: some in memory, more in a folder. Both forget what was not used for the longest time.

A file is named by the digest of its key, and begins with the digest of what follows. Whatever is wrong with one makes
it a miss. It appears with all its content at once (a rename), so any number of processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

__all__ = ["DiskStore", "MemoryStore"]

_DIGEST = hashlib.sha256().digest_size


class MemoryStore:
    """At most `max_entries` values."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> bytes | None:
        """The value of a key, if it is there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Keep a value."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._max_entries:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


class DiskStore:
    """Files of at most `max_bytes` together in `folder`, which is made if need be.

    Raises:
        OSError: the folder cannot be made or listed.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())

    def get(self, key: str) -> bytes | None:
        """The value of a key, if it is there and undamaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return data[_DIGEST:]

    def put(self, key: str, value: bytes) -> None:
        """Keep a value. A disk that takes no more is no error: the value is not kept then."""
        path = self._path(key)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            part.write_bytes(hashlib.sha256(value).digest() + value)
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            return
        with self._lock:
            self._bytes += _DIGEST + len(value)
            if self._bytes > self._max_bytes:
                self._shrink()

    def clear(self) -> None:
        """Remove all files."""
        with self._lock:
            for _, _, path in self._files():
                path.unlink(missing_ok=True)
            self._bytes = 0

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key[2:]

    def _shrink(self) -> None:
        """Remove what was not used for the longest time, and a tenth more, so that this is not done for every value."""
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= self._max_bytes * 0.9:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        """Time of last use, size and path of each file; others may remove some meanwhile."""
        found = []
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found
