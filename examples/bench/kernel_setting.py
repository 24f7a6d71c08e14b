"""Where and how large kernels are measured: shapes of models, settings, and what a measurement consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

BF16 = torch.bfloat16
Choice = TypeVar("Choice")


class Shape(NamedTuple):
    """What of a model's shape matters here."""

    name: str
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    wide: int
    layers: int
    vocab: int

    def step_bytes(self, batch: int, context: int) -> float:
        """What a decode step reads at least, in bfloat16: weights, and the keys and values of each row."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        weights = self.layers * (attention + 3 * self.hidden * self.wide) + self.vocab * self.hidden
        return 2.0 * (weights + batch * context * self.layers * 2 * self.kv_heads * self.head_dim)


MODELS = (
    Shape("Llama-3.1-8B", 4096, 32, 8, 128, 14336, 32, 128256),
    Shape("Llama-3.2-1B", 2048, 32, 8, 64, 8192, 16, 128256),
    Shape("Qwen3-0.6B", 1024, 16, 8, 128, 3072, 28, 151936),
)

TINY = (Shape("tiny", 64, 4, 2, 16, 96, 1, 1000),)


@dataclass(frozen=True)
class Setting:
    """Where cases run, and how large they are.

    Args:
        device: "cuda", or "cpu" where kernels are interpreted or only compiled.
        size: "full" has all shapes, "quick" those that goals are set for, "tiny" some for the interpreter.
        filled: whether tensors have numbers; else their memory is not touched.
    """

    device: str
    size: Literal["full", "quick", "tiny"]
    filled: bool = True

    def pick(self, full: Choice, quick: Choice, tiny: Choice) -> Choice:
        """What belongs to the size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    @property
    def models(self) -> tuple[Shape, ...]:
        """Shapes of the models."""
        return self.pick(MODELS, MODELS[:1], TINY)

    def normal(self, *shape: int, dtype: torch.dtype = BF16) -> Tensor:
        """Normally distributed numbers."""
        if self.filled:
            return torch.randn(*shape, device=self.device, dtype=dtype)
        return torch.empty(*shape, device=self.device, dtype=dtype)


def as_it_is(result: Tensor) -> Tensor:
    """A peer's result that has our layout."""
    return result


@dataclass
class Case:
    """A measurement: what runs, what it moves and computes, and what torch offers for the same.

    Args:
        name: what is shown.
        run: the kernel.
        bytes: moved at least.
        operations: of the matmul kind.
        peers: what it is compared with.
        same: brings a peer's result into our layout, where both must give the same.
        step_bytes: what a decode step of which this is a part has to read, if that is of interest.
    """

    name: str
    run: Callable[[], Any]
    bytes: float = 0.0
    operations: float = 0.0
    peers: dict[str, Callable[[], Any]] = field(default_factory=dict)
    same: Callable[[Tensor], Tensor] | None = None
    step_bytes: float = 0.0
