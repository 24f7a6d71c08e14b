"""Forward passes of few tokens as one sequence of kernel calls, without Python or torch between them.

Where many tokens are computed, the blocks of `Decoder` are run operation by operation. With few, what stands around the
kernels takes as long as they do, so their calls are listed once for each number of tokens, over memory that stays, and
then only made again:

    norm -> qkv -> turn, store -> attention -> output + x -> norm -> gate, up -> SwiGLU -> down + x

Results are those of the blocks, to the bit. Blocks that have something else between their matrices are not run so.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgl_like.kernels import attention, rms_norm, rotary, silu_mul
from sgl_like.kernels.linear import PackedLinear
from sgl_like.kernels.sequence import Sequence as CallSequence
from sgl_like.kernels.threads import Call
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.layers import Angles, Attention, Block, GatedMLP, RmsNorm
from sgl_like.runtime.models.model_config import ModelConfig

MOST_TOKENS = 64
"""Tokens up to which a pass is run so: with more, nearly all of the time is in the kernels anyway."""


class _Parts(NamedTuple):
    """What a block consists of that can be run so."""

    attention_norm: RmsNorm
    attention: Attention
    qkv: PackedLinear
    output: PackedLinear
    mlp_norm: RmsNorm
    gate_up: PackedLinear
    down: PackedLinear


def _parts(block: Block) -> _Parts | None:
    """The parts of a block, or ``None`` if it cannot be run so."""
    inside, mlp = block.attention, block.mlp
    if not isinstance(mlp, GatedMLP) or mlp.activation is not silu_mul.silu_mul:
        return None
    if any(each is not None for each in (block.attention_after, block.mlp_after, inside.head_norms)):
        return None
    first, second = block.attention_norm, block.mlp_norm
    matrices = inside.qkv, inside.output, mlp.gate_up, mlp.down
    if not isinstance(first, RmsNorm) or not isinstance(second, RmsNorm):
        return None
    packed = [each for each in matrices if isinstance(each, PackedLinear)]
    if len(packed) < len(matrices):
        return None
    return _Parts(first, inside, packed[0], packed[1], second, packed[2], packed[3])


class SmallSteps:
    """Passes of up to `MOST_TOKENS` tokens through all blocks; for one thread at a time.

    Args:
        config: the model's shape.
        parts: the parts of all blocks.
        dtype: of hidden states.
    """

    def __init__(self, config: ModelConfig, parts: Sequence[_Parts], dtype: torch.dtype) -> None:
        self._config = config
        self._parts = parts
        self._dtype = dtype
        self._kv: weakref.ref[KVPool] | None = None
        self._kept: dict[object, Tensor] = {}
        self._kv_slots = np.zeros(0, dtype=np.int32)
        self._tasks = np.zeros((MOST_TOKENS, 4), dtype=np.int32)
        self._sequences: dict[int, CallSequence] = {}

    @classmethod
    def of(cls, config: ModelConfig, blocks: Sequence[Block], dtype: torch.dtype) -> SmallSteps | None:
        """For these blocks, if all of them can be run so."""
        parts = [found for block in blocks if (found := _parts(block)) is not None]
        return cls(config, parts, dtype) if len(parts) == len(blocks) else None

    def run(self, x: Tensor, batch: ForwardBatch, kv: KVPool, angles: Sequence[Angles]) -> Tensor:
        """What the blocks make of ``[T, hidden]``; the new keys and values go into the pool."""
        slots, tasks = batch.rows.plan(self._config.heads // self._config.kv_heads)
        if self._kv is None or self._kv() is not kv or len(slots) > len(self._kv_slots):
            self._kv, self._sequences = weakref.ref(kv), {}
            self._kv_slots = np.zeros(max(2 * len(slots), MOST_TOKENS), dtype=np.int32)
        self._kv_slots[: len(slots)] = slots
        self._tasks[: len(tasks)] = tasks
        self._tasks[len(tasks) :] = 0  # nothing to do
        hidden, places = self._like("x", x), self._like("slots", batch.slots)
        turns = [
            (self._like(f"cos {i}", cos), self._like(f"sin {i}", sin)) for i, (cos, sin) in enumerate(angles)
        ]
        tokens = len(x)
        if tokens not in self._sequences:
            calls = [call for parts in self._parts for call in self._calls(parts, hidden, places, turns, kv)]
            self._sequences[tokens] = CallSequence(calls)
        self._sequences[tokens].run()
        return hidden.clone()

    def _calls(
        self, block: _Parts, x: Tensor, slots: Tensor, angles: Sequence[Angles], kv: KVPool
    ) -> Iterator[Call]:
        """A block's calls, which change x."""
        c, inside, tokens = self._config, block.attention, len(x)
        keys, values = kv.layer(inside.index)
        y = self._memory("y", x.shape, self._dtype)
        qkv = self._memory("qkv", (tokens, c.heads + 2 * c.kv_heads, c.head_dim), self._dtype)
        q, out = (self._memory(name, (tokens, c.heads, c.head_dim), self._dtype) for name in ("q", "out"))
        gate_up = self._memory("gate and up", (tokens, block.gate_up.rows), self._dtype)
        gated = self._memory("gated", (tokens, block.gate_up.rows // 2), self._dtype)
        scratch = partial(self._memory, "scratch")

        yield rms_norm.call(x, block.attention_norm.weight, block.attention_norm.eps, y)
        yield from block.qkv.calls(y, qkv, scratch)
        yield rotary.store_call(qkv, inside.turn(angles), slots, keys, values, q)
        yield attention.call(
            q, keys, values, self._kv_slots, self._tasks[:tokens], c.attention_scale, out, inside.window,
            c.attention_softcap,
        )  # fmt: skip
        yield from block.output.calls(out.view(tokens, -1), x, scratch, added=x)
        yield rms_norm.call(x, block.mlp_norm.weight, block.mlp_norm.eps, y)
        yield from block.gate_up.calls(y, gate_up, scratch)
        yield silu_mul.call(gate_up, gated)
        yield from block.down.calls(gated, x, scratch, added=x)

    def _like(self, name: str, given: Tensor) -> Tensor:
        """A copy of what a pass is given, where its sequence looks for it."""
        return self._memory(name, given.shape, given.dtype).copy_(given)

    def _memory(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory that stays, for up to `MOST_TOKENS` tokens: the same for the same name, sizes and dtype."""
        key = name, tuple(shape[1:]), dtype
        if key not in self._kept:
            self._kept[key] = torch.empty(MOST_TOKENS, *shape[1:], dtype=dtype)
        return self._kept[key][: shape[0]]
