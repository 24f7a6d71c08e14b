"""`global_config`: settings of the whole process, under SGLang's names. What has no effect here says so."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.backend.default import default_if_set, set_default_backend

__all__ = ["GlobalConfig", "global_config"]

_DEFAULTS: dict[str, Any] = {
    "verbosity": 0,
    "skip_special_tokens_in_output": True,
    "spaces_between_special_tokens_in_out": True,
    "enable_precache_with_tracing": True,
    "enable_parallel_encoding": True,
}
_WITHOUT_EFFECT = {
    "spaces_between_special_tokens_in_out": "texts are what the tokens stand for, and nothing is put between them",
    "enable_parallel_encoding": 'texts joined by "concate_and_append" are computed after one another',
}


class GlobalConfig:
    """The settings. An unknown name is an AttributeError with the nearest known one.

    * ``verbosity``: with 2 or more the text of every run is printed at its end.
    * ``default_backend``: what runs programs that name no backend; see `sgl_like.set_default_backend`.
    * ``skip_special_tokens_in_output``: whether special tokens are left out of texts, where a gen does not say.
    * ``enable_precache_with_tracing``: whether a batch keeps what its prompts begin with in the cache while it runs.
    * ``spaces_between_special_tokens_in_out``, ``enable_parallel_encoding``: have no effect; to set them is a warning.
    """

    verbosity: int
    skip_special_tokens_in_output: bool
    spaces_between_special_tokens_in_out: bool
    enable_precache_with_tracing: bool
    enable_parallel_encoding: bool

    def __init__(self) -> None:
        self.__dict__.update(_DEFAULTS)

    @property
    def default_backend(self) -> Backend | None:
        """The default backend; ``None`` if none was set and nothing has run yet."""
        return default_if_set()

    @default_backend.setter
    def default_backend(self, backend: Backend | None) -> None:
        set_default_backend(backend)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "default_backend":
            super().__setattr__(name, value)
            return
        if name not in _DEFAULTS:
            close = difflib.get_close_matches(name, [*_DEFAULTS, "default_backend"], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_DEFAULTS)}"
            raise AttributeError(f"global_config has no {name!r}; {hint}")
        kind = type(_DEFAULTS[name])
        if type(value) is not kind:
            raise TypeError(f"global_config.{name} must be of type {kind.__name__}, not {value!r}")
        if name in _WITHOUT_EFFECT and value != _DEFAULTS[name]:
            reason = _WITHOUT_EFFECT[name]
            warnings.warn(f"global_config.{name}={value} has no effect: {reason}", stacklevel=2)
        super().__setattr__(name, value)


global_config = GlobalConfig()
