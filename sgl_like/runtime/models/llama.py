"""Llama's decoder over the KV pool. Query, key and value are one matmul, gate and up another.

Shapes: T new tokens of all rows, H heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.attention import paged_attention
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
    qkv: Tensor  # [(H + 2K) * D, hidden]
    qkv_bias: Tensor | None
    output: Tensor  # [hidden, H * D]
    output_bias: Tensor | None
    post_norm: Tensor
    gate_up: Tensor  # [2 * intermediate, hidden]
    gate_up_bias: Tensor | None
    down: Tensor  # [hidden, intermediate]
    down_bias: Tensor | None


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
            self._embedding
            if config.tied_embeddings
            else weights.get("lm_head.weight", (config.vocab_size, hidden))
        )
        self._rope = RopeTable(config, self.dtype)

    def _load_layer(self, weights: WeightSource, index: int) -> LlamaLayer:
        c = self.config
        at = f"model.layers.{index}."
        q, kv, wide = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.intermediate_size
        qkv = {f"{at}self_attn.{n}_proj": size for n, size in (("q", q), ("k", kv), ("v", kv))}
        gate_up = {f"{at}mlp.{n}_proj": wide for n in ("gate", "up")}
        output, down = {f"{at}self_attn.o_proj": c.hidden_size}, {f"{at}mlp.down_proj": c.hidden_size}
        return LlamaLayer(
            input_norm=weights.get(at + "input_layernorm.weight", (c.hidden_size,)),
            qkv=weights.stack(qkv, c.hidden_size),
            qkv_bias=weights.stack_bias(qkv, c.attention_bias),
            output=weights.stack(output, q),
            output_bias=weights.stack_bias(output, c.attention_bias),
            post_norm=weights.get(at + "post_attention_layernorm.weight", (c.hidden_size,)),
            gate_up=weights.stack(gate_up, c.hidden_size),
            gate_up_bias=weights.stack_bias(gate_up, c.mlp_bias),
            down=weights.stack(down, wide),
            down_bias=weights.stack_bias(down, c.mlp_bias),
        )

    def forward(self, batch: ForwardBatch, kv: KVPool) -> Tensor:
        """Run all new tokens; their keys and values go into the pool. Returns ``[T, hidden]``, normalised."""
        x = functional.embedding(batch.input_ids, self._embedding)
        cos, sin = self._rope.lookup(batch.positions)
        eps = self.config.norm_eps
        for index, layer in enumerate(self._layers):
            x = x + self._attention(layer, index, rms_norm(x, layer.input_norm, eps), batch, kv, cos, sin)
            gate_up = functional.linear(rms_norm(x, layer.post_norm, eps), layer.gate_up, layer.gate_up_bias)
            x = x + functional.linear(silu_mul(gate_up), layer.down, layer.down_bias)
        return rms_norm(x, self._norm, eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token: ``[n, hidden]`` to ``[n, vocab]`` float32."""
        return functional.linear(hidden, self._head).float()

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
        qkv = functional.linear(x, layer.qkv, layer.qkv_bias).view(
            len(x), c.heads + 2 * c.kv_heads, c.head_dim
        )
        turned = rotary(qkv[:, : c.heads + c.kv_heads], cos, sin)  # queries and keys: [T, H + K, D]
        q, k = turned[:, : c.heads], turned[:, c.heads :]
        v = qkv[:, c.heads + c.kv_heads :]
        kv.store(index, batch.slots, k, v)
        keys, values = kv.layer(index)
        out = paged_attention(q, keys, values, batch.rows, c.head_dim**-0.5)
        return functional.linear(out.view(len(x), c.heads * c.head_dim), layer.output, layer.output_bias)
