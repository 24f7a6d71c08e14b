"""A compact Llama for training: Hugging Face parameter names, dropout, loss at chosen positions.

Sequences are right-padded, so causal attention needs no mask. A key/value cache (a list of tensors per layer)
serves the batched greedy decoding of the dev set.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shape(NamedTuple):
    """Sizes of the model; the defaults are the shipped one (5.8 million parameters)."""

    vocab: int = 4096
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 768
    rope_theta: float = 10000.0
    eps: float = 1e-5


Cache = list[tuple[Tensor, Tensor]]


def rope_table(
    shape: Shape, start: int, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions start..start+length, in `dtype`.  # [length, head_dim]"""
    inverse = shape.rope_theta ** (
        -torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    )
    angles = torch.arange(start, start + length, device=device).float()[:, None] * inverse
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the half-split layout.  # x: [batch, heads, length, head_dim]"""
    one, two = x.chunk(2, -1)
    return x * cos + torch.cat((-two, one), -1) * sin


class Dropout(nn.Module):
    """Dropout whose mask is a random stretch of a fixed random tape: drawing bits is slow on a CPU.

    (6,500 x 256 values on two cores: torch's own dropout 10 ms, a multiplication 0.3 ms.)
    """

    TAPE = 1 << 24

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.tape = rate, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """X with a share `rate` of its values zeroed, while training."""
        if not self.training or not self.rate:
            return x
        if x.numel() > self.TAPE // 2 or x.is_cuda:
            return F.dropout(x, self.rate)
        if not len(self.tape) or self.tape.dtype != x.dtype:
            self.tape = (torch.rand(self.TAPE) >= self.rate).to(x.dtype) / (1 - self.rate)
        start = int(torch.randint(self.TAPE - x.numel(), ()))
        return x * self.tape[start : start + x.numel()].view(x.shape)


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query causal self-attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output and the keys and values so far.  # x: [batch, length, hidden]"""
        batch, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, -1, self.shape.head_dim).transpose(1, 2)

        q, k, v = (
            rotate(split(self.q_proj(x)), *rope),
            rotate(split(self.k_proj(x)), *rope),
            split(self.v_proj(x)),
        )
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        group = self.shape.heads // self.shape.kv_heads
        k_all, v_all = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        if q.is_cuda or not self.training:
            out = F.scaled_dot_product_attention(q, k_all, v_all, is_causal=past is None)
        else:  # written out: rows are short, and SDPA's backward pass is slow on a CPU
            scores = q @ k_all.mT * self.shape.head_dim**-0.5
            if past is None:
                scores = scores + torch.full((length, length), -1e9, dtype=q.dtype).triu(1)
            out = scores.softmax(-1) @ v_all
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class MLP(nn.Module):
    """SwiGLU with dropout on the inner activations."""

    def __init__(self, shape: Shape, drop: Dropout) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        out: Tensor = self.down_proj(self.drop(F.silu(self.gate_proj(x)) * self.up_proj(x)))
        return out


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, shape: Shape, drop: Dropout) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.mlp = MLP(shape, drop)
        self.drop = drop

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Residual stream after the layer, and its keys and values."""
        out, kept = self.self_attn(self.input_layernorm(x), rope, past)
        x = x + self.drop(out)
        return x + self.drop(self.mlp(self.post_attention_layernorm(x))), kept


class Body(nn.Module):
    """Embedding, layers and final norm (the `model.` of the Hugging Face names)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.drop = Dropout(dropout)  # one for all places: one tape
        self.layers = nn.ModuleList(Layer(shape, self.drop) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.eps)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Final hidden states and the cache.  # ids: [batch, length]"""
        start = cache[0][0].shape[2] if cache else 0
        x, kept = self.drop(self.embed_tokens(ids)), []
        rope = rope_table(self.shape, start, ids.shape[1], ids.device, x.dtype)
        for k, layer in enumerate(self.layers):
            x, pair = layer(x, rope, cache[k] if cache else None)
            kept.append(pair)
        return self.norm(x), kept


class Llama(nn.Module):
    """Llama with tied embeddings; the names in its state dict are those of LlamaForCausalLM."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape, dropout)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * shape.layers) if deep else 1.0))

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits of every position and the cache.  # [batch, length, vocab]"""
        hidden, kept = self.model(ids, cache)
        return F.linear(hidden, self.model.embed_tokens.weight).float(), kept

    def loss(self, ids: Tensor, where: Tensor) -> Tensor:
        """Mean cross entropy at the flat positions `where` of ids[:, 1:].  # ids: [batch, length]"""
        hidden, _ = self.model(ids[:, :-1])
        chosen = hidden.flatten(0, 1)[where]
        logits = F.linear(chosen, self.model.embed_tokens.weight)
        return F.cross_entropy(logits, ids[:, 1:].flatten()[where])


@torch.no_grad()
def generate(
    model: Llama,
    prompts: Tensor,
    end: int,
    limit: int,
    temperature: float = 0.0,
    seed: torch.Generator | None = None,
) -> list[list[int]]:
    """Continue prompts until `end` or `limit` tokens; greedy at temperature 0.  # [batch, length]"""
    logits, cache = model(prompts)
    answers: list[list[int]] = [[] for _ in range(len(prompts))]
    open_ = torch.ones(len(prompts), dtype=torch.bool, device=prompts.device)
    for _ in range(limit):
        last = logits[:, -1]
        if temperature:
            token = torch.multinomial(torch.softmax(last / temperature, -1), 1, generator=seed)[:, 0]
        else:
            token = last.argmax(-1)
        open_ &= token != end
        if not open_.any():
            break
        for row in open_.nonzero()[:, 0].tolist():
            answers[row].append(int(token[row]))
        logits, cache = model(token[:, None], cache)
    return answers
