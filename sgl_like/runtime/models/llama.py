"""Llama's decoder over the KV pool. Query, key and value are one matmul, gate and up another.

Shapes: T new tokens of all rows, H heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.attention import paged_attention
from sgl_like.kernels.linear import Linear, make_linear
from sgl_like.kernels.rms_norm import rms_norm
from sgl_like.kernels.rotary import rotary
from sgl_like.kernels.silu_mul import silu_mul
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.forward_batch import ForwardBatch
from sgl_like.runtime.models.model_config import ModelConfig
from sgl_like.runtime.models.rope import RopeTable
from sgl_like.runtime.models.weights import WeightSource


@dataclass(slots=True)
class LlamaLayer:
    """Weights of one block."""

    input_norm: Tensor
    qkv: Linear  # hidden to (H + 2K) * D
    output: Linear  # H * D to hidden
    post_norm: Tensor
    gate_up: Linear  # hidden to 2 * intermediate
    down: Linear  # intermediate to hidden


class Llama:
    """``LlamaForCausalLM``.

    Args:
        config: the model's shape.
        weights: where tensors come from, by their Hugging Face names.
    """

    def __init__(self, config: ModelConfig, weights: WeightSource) -> None:
        self.config = config
        self.dtype = weights.dtype
        hidden = config.hidden_size
        self._embedding = weights.get("model.embed_tokens.weight", (config.vocab_size, hidden))
        self._layers = [self._load_layer(weights, i) for i in range(config.layers)]
        self._norm = weights.get("model.norm.weight", (hidden,))
        self._head = (
            make_linear(self._embedding)
            if config.tied_embeddings
            else weights.linear({"lm_head": config.vocab_size}, hidden)
        )
        self._rope = RopeTable(config, self.dtype)

    def _load_layer(self, weights: WeightSource, index: int) -> LlamaLayer:
        c = self.config
        at = f"model.layers.{index}."
        q, kv, wide = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.intermediate_size
        heads = {f"{at}self_attn.{n}_proj": size for n, size in (("q", q), ("k", kv), ("v", kv))}
        output, down = {f"{at}self_attn.o_proj": c.hidden_size}, {f"{at}mlp.down_proj": c.hidden_size}
        return LlamaLayer(
            input_norm=weights.get(at + "input_layernorm.weight", (c.hidden_size,)),
            qkv=weights.linear(heads, c.hidden_size, c.attention_bias),
            output=weights.linear(output, q, c.attention_bias),
            post_norm=weights.get(at + "post_attention_layernorm.weight", (c.hidden_size,)),
            gate_up=weights.linear(
                {f"{at}mlp.{n}_proj": wide for n in ("gate", "up")}, c.hidden_size, c.mlp_bias
            ),
            down=weights.linear(down, wide, c.mlp_bias),
        )

    def forward(self, batch: ForwardBatch, kv: KVPool) -> Tensor:
        """Run all new tokens; their keys and values go into the pool. Returns ``[T, hidden]``, normalised."""
        x = functional.embedding(batch.input_ids, self._embedding)
        cos, sin = self._rope.lookup(batch.positions)
        eps = self.config.norm_eps
        for index, layer in enumerate(self._layers):
            x = x + self._attention(layer, index, rms_norm(x, layer.input_norm, eps), batch, kv, cos, sin)
            x = x + layer.down(silu_mul(layer.gate_up(rms_norm(x, layer.post_norm, eps))))
        return rms_norm(x, self._norm, eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token: ``[n, hidden]`` to ``[n, vocab]`` float32."""
        return self._head(hidden).float()

    def _attention(
        self,
        layer: LlamaLayer,
        index: int,
        x: Tensor,
        batch: ForwardBatch,
        kv: KVPool,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        c = self.config
        qkv = layer.qkv(x).view(len(x), c.heads + 2 * c.kv_heads, c.head_dim)
        turned = rotary(qkv[:, : c.heads + c.kv_heads], cos, sin)  # queries and keys: [T, H + K, D]
        q, k = turned[:, : c.heads], turned[:, c.heads :]
        v = qkv[:, c.heads + c.kv_heads :]
        kv.store(index, batch.slots, k, v)
        keys, values = kv.layer(index)
        out = paged_attention(q, keys, values, batch.rows, c.head_dim**-0.5)
        return layer.output(out.view(len(x), c.heads * c.head_dim))
