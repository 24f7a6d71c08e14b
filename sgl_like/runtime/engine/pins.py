"""Prefixes that stay cached until they are let go: computed like a request, then locked before anything can go."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from sgl_like.errors import RequestError
from sgl_like.runtime.engine.core import EngineCore
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned prefix, for `Engine.unpin`.

    Args:
        number: which one.
        tokens: length of the prefix; what does not fill a page of the cache is not pinned.
    """

    number: int
    tokens: int


class PinRequest:
    """Computes a prefix and pins it; the receiver of its own request.

    Args:
        tokens: the prefix.
        namespace: whose it is.
    """

    def __init__(self, tokens: list[int], namespace: str) -> None:
        params = SamplingParams(max_new_tokens=0, temperature=0.0)
        self.request = GenerateRequest(tokens, params, namespace=namespace)
        self.done: Future[Pin] = Future()
        self.core: EngineCore | None = None  # set before the request is added

    def __call__(self, output: Output) -> None:
        """An event of the request; at the last one its tokens are in the tree."""
        if not output.is_terminal:
            return
        core, self.core = self.core, None  # its tensors must not be freed by whoever waits for the pin
        try:
            if output.error is not None:
                raise output.error
            assert core is not None
            memory = core.memory
            if not memory.reuse:
                raise RequestError("nothing can be pinned with enable_radix_cache=False")
            ids = np.array(self.request.input_ids, dtype=np.int32)
            self.done.set_result(Pin(memory.pin(ids, self.request.namespace), len(ids)))
        except Exception as error:
            self.done.set_exception(error)
