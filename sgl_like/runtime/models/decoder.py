"""A decoder over the KV pool: embedding, blocks, norm, head. What is in the blocks is the families' affair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.linear import Linear
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.layers import Block, Norm, normed_sum
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.rope import RopeTable
from sgl_like.runtime.models.small_steps import MOST_TOKENS, SmallSteps

Embed = Callable[[Tensor], Tensor]


class Decoder:
    """The network of every family.

    Args:
        config: the model's shape.
        dtype: of hidden states.
        device: where it runs.
        embed: token ids to embeddings, ``[T]`` to ``[T, hidden]``.
        blocks: the layers.
        norm: after them.
        head: hidden to vocab.
        positions: learned positions, ``[max_position, hidden]``, to be added to the embeddings.
        embedding_scale: embeddings are multiplied by it, rounded to the model's dtype.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        device: torch.device,
        embed: Embed,
        blocks: Sequence[Block],
        norm: Norm,
        head: Linear,
        positions: Tensor | None = None,
        embedding_scale: float | None = None,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.device = device
        self._embed = embed
        self._blocks = blocks
        self._norm = norm
        self._head = head
        self._positions = positions
        self._scale = None if embedding_scale is None else torch.tensor(embedding_scale, dtype=self.dtype)
        self._small_steps = SmallSteps.of(config, blocks, dtype)
        ropes = [rope for rope in (config.rope, config.local_rope) if rope is not None]
        self._ropes = [RopeTable(rope, config.max_position, self.dtype, device) for rope in ropes]

    def forward(self, batch: ForwardBatch, kv: KVPool) -> Tensor:
        """Run all new tokens; their keys and values go into the pool. Returns ``[T, hidden]``, normalised."""
        x = self._embed(batch.input_ids)
        if self._scale is not None:
            x = x * self._scale
        if self._positions is not None:
            x = x + functional.embedding(batch.positions, self._positions)
        angles = [table.lookup(batch.positions, batch.rows.longest) for table in self._ropes]
        if self._small_steps is not None and len(x) <= MOST_TOKENS:
            return self._norm(self._small_steps.run(x, batch, kv, angles))
        added: Tensor | None = None
        for block in self._blocks:
            added = block(x, added, batch, kv, angles)
        return normed_sum(self._norm, x, added)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token: ``[n, hidden]`` to ``[n, vocab]`` float32."""
        scores = self._head(hidden.float())
        cap = self.config.final_softcap
        return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)
