"""The backend of programs that name none: the one set by the user, or a `Runtime` on the embedded model."""

from __future__ import annotations

import threading
from typing import Any

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Backend, CacheStats

__all__ = [
    "cache_stats",
    "default_if_set",
    "flush_cache",
    "get_default_backend",
    "get_server_info",
    "resolve_backend",
    "set_default_backend",
    "swap_default_backend",
]

_lock = threading.Lock()
_default: Backend | None = None


def set_default_backend(backend: Backend | None) -> None:
    """Use `backend` for every later run that names none; ``None`` goes back to the embedded model.

    Raises:
        TypeError: it is not a backend.
    """
    global _default
    if backend is not None:
        _checked(backend)
    with _lock:
        _default = backend


def swap_default_backend(backend: Backend | None) -> Backend | None:
    """Make `backend` the default one; returns what was it, ``None`` if it was never set or used."""
    global _default
    with _lock:
        before, _default = _default, backend
    return before


def get_default_backend() -> Backend:
    """The default backend. The first call makes one on the embedded model if none was set.

    Raises:
        ConfigError, ModelLoadError: the embedded model cannot be loaded.
    """
    global _default
    with _lock:  # held while loading: a second thread waits for the same model instead of loading its own
        if _default is None:
            from sgl_like.frontend.backend.runtime import Runtime

            _default = Runtime()
        return _default


def default_if_set() -> Backend | None:
    """The default backend, unless it would have to be made first."""
    with _lock:
        return _default


def resolve_backend(backend: Backend | None) -> Backend:
    """`backend` itself, or the default one for ``None``.

    Raises:
        TypeError: it is not a backend.
    """
    return get_default_backend() if backend is None else _checked(backend)


def flush_cache(backend: Backend | None = None) -> bool:
    """Empty the prefix cache of `backend` (or of the default one); false if there is none or it is in use."""
    with _lock:
        target = backend if backend is not None else _default
    return False if target is None else _checked(target).flush_cache()


def get_server_info(backend: Backend | None = None) -> dict[str, Any] | None:
    """What `backend` (or the default one) says about its model and itself; ``None`` if there is none."""
    target = backend if backend is not None else default_if_set()
    return None if target is None else _checked(target).get_server_info()


def cache_stats(backend: Backend | None = None) -> CacheStats:
    """Hits, misses, evictions and pins of the prefix cache of `backend` (or of the default one).

    Raises:
        RequestError: there is no backend, or it has no cache of its own.
    """
    target = backend if backend is not None else default_if_set()
    if target is None:
        raise RequestError("there is no backend yet: nothing has run, and none was set")
    return _checked(target).cache_stats()


def _checked(backend: Backend) -> Backend:
    if not isinstance(backend, Backend):
        raise TypeError(
            f"a backend is needed, e.g. sgl.Runtime(...), not {type(backend).__name__}"
            " (an Engine becomes one by Runtime.from_engine(engine))"
        )
    return backend
