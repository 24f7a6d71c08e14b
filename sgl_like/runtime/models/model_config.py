"""A model's shape, of any family: what its ``config.json`` says, checked and in one spelling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgl_like.errors import ModelLoadError
from sgl_like.runtime.models.packing import Packing
from sgl_like.runtime.models.rope import RopeConfig


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Mixtures of experts in place of MLPs.

    Args:
        layers: the layers that have one.
        count: experts of each.
        active: experts that a token goes to.
        intermediate_size: width of one expert.
        normalize: whether the weights of a token's experts are made to sum to 1.
        shared_size: width of the expert that every token goes to; 0 for none.
    """

    layers: frozenset[int]
    count: int
    active: int
    intermediate_size: int
    normalize: bool
    shared_size: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder.

    Args:
        vocab_size: rows of the embedding.
        hidden_size, layers, heads, kv_heads, head_dim, intermediate_size: as usual.
        norm_eps: of all norms.
        activation: ``"silu"``, ``"gelu"`` or ``"gelu_tanh"``.
        max_position: longest sequence.
        windows: for each layer how many positions a token sees, itself included; ``None`` for all.
        attention_scale: queries are multiplied by it.
        rope: rotary embedding; ``None`` where positions are learned.
        local_rope: that of layers with a window, where it is another.
        tied_embeddings: the head's weights are the embedding's.
        gated_mlp: MLPs have a gate beside their first matrix.
        qkv_bias, output_bias, mlp_bias: linear layers that have one.
        qk_norm: queries and keys are normalised per head.
        attention_softcap, final_softcap: limits of attention scores and of logits.
        experts: mixtures of experts.
        dtype: of the weights in the file.
        architecture: the name in ``config.json``.
        packing: how AWQ or GPTQ packed the linear layers.

    Raises:
        ModelLoadError: numbers that do not fit together.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    activation: str
    max_position: int
    windows: tuple[int | None, ...]
    attention_scale: float
    rope: RopeConfig | None
    local_rope: RopeConfig | None = None
    tied_embeddings: bool = False
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    attention_softcap: float | None = None
    final_softcap: float | None = None
    experts: ExpertsConfig | None = None
    dtype: str = "float32"
    architecture: str = "?"
    packing: Packing | None = None

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ModelLoadError(
                f"config.json: {self.heads} heads cannot be shared by {self.kv_heads} key-value heads"
            )
        if self.head_dim < 1:
            raise ModelLoadError(
                f"config.json: hidden_size {self.hidden_size} is less than the number of heads"
            )
        if self.experts is not None and self.experts.active > self.experts.count:
            raise ModelLoadError(
                f"config.json: num_experts_per_tok is {self.experts.active}, of {self.experts.count} experts"
            )

    def for_context(self, length: int | None) -> ModelConfig:
        """The config for sequences of up to `length` tokens, where that makes a difference (`RopeConfig`)."""
        if self.rope is None:
            return self
        rope = self.rope.for_context(length)
        return replace(self, rope=rope, max_position=min(self.max_position, rope.limit or self.max_position))

    def parameter_count(self) -> int:
        """Number of weights in the matrices."""
        hidden, kinds = self.hidden_size, 3 if self.gated_mlp else 2
        attention = hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        total = self.vocab_size * hidden * (1 if self.tied_embeddings else 2) + self.layers * attention
        if self.rope is None:
            total += self.max_position * hidden
        experts = self.experts
        sparse = 0 if experts is None else len(experts.layers)
        total += (self.layers - sparse) * kinds * hidden * self.intermediate_size
        if experts is not None:
            width = experts.count * experts.intermediate_size + experts.shared_size
            gates = experts.count + (1 if experts.shared_size else 0)
            total += sparse * hidden * (kinds * width + gates)
        return total
