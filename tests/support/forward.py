"""A model run by hand over a KV pool with scattered slots, without an engine."""

from __future__ import annotations

import numpy as np
import torch

from sgl_like.kernels.attention import AttentionRows
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.load import Model


def run(model: Model, ids: list[int], chunks: list[int]) -> torch.Tensor:
    """Logits at every place, computed chunk by chunk: ``[tokens, vocab]``, on the CPU."""
    shape = model.config
    pool = KVPool(shape.layers, 300, shape.kv_heads, shape.head_dim, model.dtype, model.device)
    slots = np.random.default_rng(0).permutation(300)[: len(ids)].astype(np.int32)
    out, at = [], 0
    with torch.inference_mode():
        for size in chunks:
            end = at + size
            rows = AttentionRows(np.array([0, size], np.int32), np.array([0, end], np.int32), slots[:end])
            batch = ForwardBatch(
                torch.tensor(ids[at:end], device=model.device),
                torch.arange(at, end, device=model.device),
                torch.from_numpy(slots[at:end]).long().to(model.device),
                rows,
            )
            out.append(model.logits(model.forward(batch, pool)).cpu())
            at = end
    return torch.cat(out)
