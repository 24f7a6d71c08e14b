"""The layers that all families are made of.

Shapes: T new tokens of all rows, H heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.attention import paged_attention
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.gelu_mul import gelu_mul
from sgl_like.kernels.grouped import Stack, grouped_linear, make_tiles
from sgl_like.kernels.layer_norm import layer_norm
from sgl_like.kernels.linear import Linear
from sgl_like.kernels.rms_norm import add_rms_norm, rms_norm
from sgl_like.kernels.rotary import HeadNorms, store_heads
from sgl_like.kernels.silu_mul import silu_mul
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.model_config import ModelConfig

Layer = Callable[[Tensor], Tensor]
"""``[T, hidden]`` to the same."""
Angles = tuple[Tensor, Tensor]
"""Cosines and sines of the new tokens, ``[T, 1, turned]`` each."""

TOKENS_AT_ONCE = 512
"""Tokens that an MLP takes at a time on CPUs."""

GATED_ACTIVATIONS: dict[str, Layer] = {
    "silu": silu_mul,
    "gelu": partial(gelu_mul, tanh=False),
    "gelu_tanh": partial(gelu_mul, tanh=True),
}
ACTIVATIONS: dict[str, Layer] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


class Norm(Protocol):
    """A normalisation of the last axis."""

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., size]`` to the same."""
        ...

    def after_adding(self, x: Tensor, added: Tensor) -> Tensor:
        """Of ``x + added``, which x becomes."""
        ...


@dataclass(slots=True)
class RmsNorm:
    """Root-mean-square normalisation; `weight` is ``[size]``, in the model's dtype or float32."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., size]`` to the same."""
        return rms_norm(x, self.weight, self.eps)

    def after_adding(self, x: Tensor, added: Tensor) -> Tensor:
        """See `Norm`."""
        return add_rms_norm(x, added, self.weight, self.eps)


@dataclass(slots=True)
class LayerNorm:
    """Layer normalisation; `weight` and `bias` are ``[size]``."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., size]`` to the same."""
        return layer_norm(x, self.weight, self.bias, self.eps)

    def after_adding(self, x: Tensor, added: Tensor) -> Tensor:
        """See `Norm`."""
        return self(x.add_(added))


@dataclass(slots=True)
class Attention:
    """Attention of one layer over the KV pool.

    Args:
        config: heads, window, soft-capping.
        index: which layer it is.
        qkv: hidden to ``(H + 2K) * D``: queries, keys and values side by side.
        output: ``H * D`` to hidden.
        head_norms: of each head's queries and keys, where a family has them.
    """

    config: ModelConfig
    index: int
    qkv: Linear
    output: Linear
    head_norms: HeadNorms | None = None

    @property
    def window(self) -> int | None:
        """How many of the last tokens this layer sees, if not all."""
        return self.config.windows[self.index]

    def turn(self, angles: Sequence[Angles]) -> Angles | None:
        """The layer's angles: of several the last ones are those of layers with a window."""
        return angles[-1 if self.window is not None else 0] if angles else None

    def __call__(self, x: Tensor, batch: ForwardBatch, kv: KVPool, angles: Sequence[Angles]) -> Tensor:
        """``[T, hidden]`` to the same; the new keys and values go into the pool."""
        c = self.config
        qkv = self.qkv(x).view(len(x), c.heads + 2 * c.kv_heads, c.head_dim)
        keys, values = kv.layer(self.index)
        q = store_heads(qkv, self.turn(angles), batch.slots, keys, values, self.head_norms)
        out = paged_attention(
            q, keys, values, batch.rows, c.attention_scale, window=self.window, softcap=c.attention_softcap
        )
        return self.output(out.view(len(x), c.heads * c.head_dim))


@dataclass(slots=True)
class GatedMLP:
    """``down(activation(gate) * up)``; gate and up are one matrix."""

    gate_up: Linear
    down: Linear
    activation: Layer

    def __call__(self, x: Tensor) -> Tensor:
        """``[T, hidden]`` to the same."""
        return _in_pieces(lambda part: self.down(self.activation(self.gate_up(part))), x)


@dataclass(slots=True)
class MLP:
    """``down(activation(up))``."""

    up: Linear
    down: Linear
    activation: Layer

    def __call__(self, x: Tensor) -> Tensor:
        """``[T, hidden]`` to the same."""
        return _in_pieces(lambda part: self.down(self.activation(self.up(part))), x)


def _in_pieces(layer: Layer, x: Tensor) -> Tensor:
    """Apply a layer to `TOKENS_AT_ONCE` tokens after the other: what is between its matrices stays in a CPU's cache."""
    if len(x) <= TOKENS_AT_ONCE or by_triton(x):
        return layer(x)
    return torch.cat([layer(part) for part in x.split(TOKENS_AT_ONCE)])  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class StackedExperts:
    """Gated MLPs as two stacks of matrices, for devices where one product takes the tokens of all experts.

    Args:
        gate_up: ``[experts, 2 * width, hidden]``, in any format of `kernels.grouped`.
        down: ``[experts, hidden, width]``.
        count: experts.
        activation: of the gates.
    """

    gate_up: Stack
    down: Stack
    count: int
    activation: Layer

    def __call__(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Each token through its chosen experts: ``[T, hidden]`` and ``[T, active]`` to ``[T, active, hidden]``."""
        groups = chosen.flatten()
        tiles = make_tiles(groups, self.count)
        wide = self.activation(grouped_linear(x, self.gate_up, groups, tiles))
        return grouped_linear(wide, self.down, groups, tiles).view(*chosen.shape, -1)


@dataclass(slots=True)
class MixtureOfExperts:
    """Each token goes to the experts that the router likes best, and what they say is added up by its scores.

    Args:
        router: ``[experts, hidden]``.
        experts: MLPs, one by one or stacked.
        active: experts of one token.
        normalize: whether a token's scores are made to sum to 1.
        shared: an MLP for all tokens.
        shared_gate: ``[1, hidden]``: how much the shared one counts.
    """

    router: Tensor
    experts: Sequence[Layer] | StackedExperts
    active: int
    normalize: bool
    shared: Layer | None = None
    shared_gate: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """``[T, hidden]`` to the same."""
        scores = torch.softmax(functional.linear(x, self.router).float(), dim=-1)
        scores, chosen = scores.topk(self.active, dim=-1)  # [T, active]
        if self.normalize:
            scores = scores / scores.sum(dim=-1, keepdim=True)
        out = self._weighted(x, chosen, scores)
        if self.shared is not None and self.shared_gate is not None:
            out += torch.sigmoid(functional.linear(x, self.shared_gate)) * self.shared(x)
        return out.to(x.dtype)

    def _weighted(self, x: Tensor, chosen: Tensor, scores: Tensor) -> Tensor:
        """What the chosen experts say, added up by their scores: ``[T, hidden]`` float32."""
        if isinstance(self.experts, StackedExperts):
            return (self.experts(x, chosen) * scores.unsqueeze(-1)).sum(dim=1)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)  # places in `flat`, expert by expert
        counts = flat.bincount(minlength=len(self.experts)).tolist()
        out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for expert, places in zip(self.experts, torch.split(order, counts), strict=True):
            if len(places):
                tokens = places // self.active
                out.index_add_(0, tokens, expert(x[tokens]) * scores.flatten()[places, None])
        return out


@dataclass(slots=True)
class Block:
    """One layer: attention and MLP, each to be added to what went in.

    Args:
        attention_norm, mlp_norm: before them.
        attention_after, mlp_after: norms of what they give, where a family has them.
    """

    attention_norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: Layer
    attention_after: Norm | None = None
    mlp_after: Norm | None = None

    def __call__(
        self, x: Tensor, added: Tensor | None, batch: ForwardBatch, kv: KVPool, angles: Sequence[Angles]
    ) -> Tensor:
        """Each addition is made where the next norm reads its sum, which is one pass on a GPU.

        Args:
            x: ``[T, hidden]``, changed.
            added: what the layer before gives, to be added to x first.
            batch: the new tokens.
            kv: where their keys and values go.
            angles: of the new tokens.

        Returns:
            What this layer gives, to be added to x.
        """
        y = self.attention(normed_sum(self.attention_norm, x, added), batch, kv, angles)
        y = y if self.attention_after is None else self.attention_after(y)
        y = self.mlp(self.mlp_norm.after_adding(x, y))
        return y if self.mlp_after is None else self.mlp_after(y)


def normed_sum(norm: Norm, x: Tensor, added: Tensor | None) -> Tensor:
    """The norm of x, to which `added` is added first."""
    return norm(x) if added is None else norm.after_adding(x, added)
