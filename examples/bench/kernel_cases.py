"""What `kernel_bench.py` measures: kernels and torch's own over the shapes of three models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

BF16 = torch.bfloat16


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


MODELS = (
    Shape("Llama-3.1-8B", 4096, 32, 8, 128, 14336, 32, 128256),
    Shape("Llama-3.2-1B", 2048, 32, 8, 64, 8192, 16, 128256),
    Shape("Qwen3-0.6B", 1024, 16, 8, 128, 3072, 28, 151936),
)


@dataclass
class Case:
    """A measurement: what runs, what it moves and computes, and what torch offers for the same."""

    name: str
    run: Callable[[], Any]
    bytes: float = 0.0
    operations: float = 0.0
    peers: dict[str, Callable[[], Any]] = field(default_factory=dict)


def make_rows(sizes: list[tuple[int, int]], slots: int, shared: int = 0) -> Any:
    """Rows of (new tokens, length) over scattered slots, the first `shared` the same."""
    from sgl_like.kernels.attention import AttentionRows

    order = np.random.default_rng(0).permutation(slots).astype(np.int32)
    lists, at = [], shared
    for _, length in sizes:
        lists.append(np.concatenate((order[:shared], order[at : at + length - shared])))
        at += length - shared
    counts = np.cumsum([0] + [new for new, _ in sizes]).astype(np.int32)
    starts = np.cumsum([0] + [length for _, length in sizes]).astype(np.int32)
    return AttentionRows(counts, starts, np.concatenate(lists))


def attention_inputs(shape: Shape, tokens: int, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and one layer's cache."""
    q = torch.randn(tokens, shape.heads, shape.head_dim, device="cuda", dtype=BF16)
    k, v = (torch.randn(slots, shape.kv_heads, shape.head_dim, device="cuda", dtype=BF16) for _ in range(2))
    return q, k, v


def sdpa(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Callable[[], Tensor]:
    """Attention of torch over contiguous ``[batch, heads, tokens, head_dim]``."""
    return lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


def decode_cases(quick: bool) -> Iterator[Case]:
    """One token for each row, over a paged cache."""
    from sgl_like.kernels.attention import paged_attention

    grid = (
        [(64, 4096)]
        if quick
        else [(1, 512), (1, 4096), (1, 32768), (16, 4096), (64, 512), (64, 4096), (256, 4096)]
    )
    for shape in MODELS[:1] if quick else MODELS:
        for batch, context in grid:
            q, k, v = attention_inputs(shape, batch, batch * context)
            rows = make_rows([(1, context)] * batch, batch * context)
            scale = shape.head_dim**-0.5
            peers = {}
            if batch * context <= 300_000:
                shaped = [
                    each.view(batch, context, shape.kv_heads, shape.head_dim).transpose(1, 2).contiguous()
                    for each in (k, v)
                ]
                peers["SDPA, contiguous"] = sdpa(q.unsqueeze(2), *shaped, causal=False)
            yield Case(
                f"decode {shape.name} batch {batch} context {context}",
                lambda q=q, k=k, v=v, rows=rows, scale=scale: paged_attention(q, k, v, rows, scale),
                bytes=2 * k.nbytes,
                operations=4.0 * batch * context * shape.heads * shape.head_dim,
                peers=peers,
            )


def extend_cases(quick: bool) -> Iterator[Case]:
    """Many new tokens, alone or after a cached prefix."""
    from sgl_like.kernels.attention import paged_attention

    grid = [[(8192, 8192)]] if quick else [[(8192, 8192)], [(2048, 2048)] * 4, [(2048, 8192)], [(512, 32768)]]
    for shape in MODELS[:1] if quick else MODELS:
        for sizes in grid:
            new, length = sizes[0]
            tokens, slots = new * len(sizes), length * len(sizes)
            q, k, v = attention_inputs(shape, tokens, slots)
            rows = make_rows(sizes, slots)
            scale = shape.head_dim**-0.5
            pairs = len(sizes) * (new * (length - new) + new * (new + 1) / 2)
            peers = {}
            if new == length:
                shaped = [
                    each.view(len(sizes), new, -1, shape.head_dim).transpose(1, 2).contiguous()
                    for each in (q, k, v)
                ]
                peers["SDPA, contiguous"] = sdpa(*shaped, causal=True)
                if len(sizes) == 1:
                    peers["flex_attention, compiled"] = flex(*shaped)
            yield Case(
                f"extend {shape.name} {len(sizes)} x {new} new of {length}",
                lambda q=q, k=k, v=v, rows=rows, scale=scale: paged_attention(q, k, v, rows, scale),
                bytes=2.0 * k.nbytes + 2 * q.nbytes,
                operations=4 * pairs * shape.heads * shape.head_dim,
                peers=peers,
            )


def flex(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Any]:
    """flex_attention with a causal mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, q.shape[2], k.shape[2], device="cuda")
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def cascade_cases(quick: bool) -> Iterator[Case]:
    """Rows that share a prefix, with and without looking at that."""
    from sgl_like.kernels.triton.attention import paged_attention
    from sgl_like.kernels.triton.attention_plan import plan, shared_keys

    for shape in MODELS[:1] if quick else MODELS[:2]:
        for batch, shared, own in (
            [(64, 8192, 128)] if quick else [(64, 8192, 128), (16, 2048, 256), (256, 1024, 64)]
        ):
            slots = shared + batch * own
            q, k, v = attention_inputs(shape, batch, slots)
            rows = make_rows([(1, shared + own)] * batch, slots, shared)
            group = shape.heads // shape.kv_heads
            plans = [plan(rows, group, "cuda", each) for each in (shared_keys(rows), ())]
            scale = shape.head_dim**-0.5

            def run(made: Any, q: Tensor = q, k: Tensor = k, v: Tensor = v, scale: float = scale) -> Tensor:
                return paged_attention(q, k, v, made, scale)

            yield Case(
                f"cascade {shape.name} {batch} rows, {shared} shared + {own}",
                lambda run=run, made=plans[0]: run(made),
                bytes=2.0 * k.nbytes,
                peers={"the same without cascade": lambda run=run, made=plans[1]: run(made)},
            )


def pointwise_cases(quick: bool) -> Iterator[Case]:
    """Norms, gates, rotary and store."""
    from sgl_like.kernels.rms_norm import rms_norm
    from sgl_like.kernels.rotary import store_heads
    from sgl_like.kernels.silu_mul import reference as silu_reference
    from sgl_like.kernels.silu_mul import silu_mul

    shape = MODELS[0]
    for tokens in (64, 8192):
        x = torch.randn(tokens, shape.hidden, device="cuda", dtype=BF16)
        weight = torch.ones(shape.hidden, device="cuda", dtype=BF16)
        norm = torch.compile(lambda x, w: functional.rms_norm(x, (x.shape[-1],), w))
        yield Case(
            f"rms_norm {tokens} x {shape.hidden}",
            lambda x=x, weight=weight: rms_norm(x, weight, 1e-5),
            bytes=2.0 * x.nbytes,
            peers={
                "torch.compile": lambda x=x, weight=weight, norm=norm: norm(x, weight),
                "eager": lambda x=x, weight=weight: functional.rms_norm(x, (x.shape[-1],), weight),
            },
        )
        gate_up = torch.randn(tokens, 2 * shape.wide, device="cuda", dtype=BF16)
        gate = torch.compile(silu_reference)
        yield Case(
            f"silu_mul {tokens} x {shape.wide}",
            lambda gate_up=gate_up: silu_mul(gate_up),
            bytes=1.5 * gate_up.nbytes,
            peers={
                "torch.compile": lambda gate_up=gate_up, gate=gate: gate(gate_up),
                "eager": lambda gate_up=gate_up: silu_reference(gate_up),
            },
        )
        qkv = torch.randn(tokens, shape.heads + 2 * shape.kv_heads, shape.head_dim, device="cuda", dtype=BF16)
        angles = (torch.rand(tokens, 1, shape.head_dim, device="cuda", dtype=BF16),) * 2
        cache = [
            torch.empty(tokens, shape.kv_heads, shape.head_dim, device="cuda", dtype=BF16) for _ in range(2)
        ]
        slots = torch.randperm(tokens, device="cuda")
        yield Case(
            f"store_heads {tokens}",
            lambda qkv=qkv, angles=angles, slots=slots, cache=cache: store_heads(qkv, angles, slots, *cache),
            bytes=2.0 * qkv.nbytes,
        )


def sampling_cases(quick: bool) -> Iterator[Case]:
    """Temperature, top-k, top-p and min-p of a batch, with masks."""
    from sgl_like.kernels.sample import SampleRows
    from sgl_like.kernels.triton.sample import sample

    vocab = MODELS[0].vocab
    for batch in (64,) if quick else (1, 64, 256):
        logits = 3 * torch.randn(batch, vocab, device="cuda")
        ones = torch.ones(batch, device="cuda")
        masks = torch.full((batch, (vocab + 31) // 32), -1, dtype=torch.int32, device="cuda")
        for what, k, p in (("temperature", 0, 1.0), ("top-p 0.9", 0, 0.9), ("top-k 50, top-p 0.9", 50, 0.9)):
            rows = SampleRows(
                0.8 * ones, (k * ones).int(), p * ones, 0 * ones, torch.rand(batch, device="cuda")
            )
            yield Case(
                f"sample batch {batch}, {what}",
                lambda logits=logits, rows=rows, masks=masks: sample(logits, rows, masks),
                bytes=float(logits.nbytes),
                peers={"torch: sort": lambda logits=logits, k=k, p=p: torch_sample(logits, k, p)},
            )


def torch_sample(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """The same with torch's sort."""
    probabilities = (logits / 0.8).softmax(dim=-1)
    if not top_k and top_p == 1:
        return probabilities.multinomial(1)
    ordered, ids = probabilities.sort(dim=-1, descending=True)
    if top_k:
        ordered[:, top_k:] = 0
    ordered[(ordered.cumsum(dim=-1) - ordered) >= top_p * ordered.sum(dim=-1, keepdim=True)] = 0
    return ids.gather(1, ordered.multinomial(1))


def product_cases(quick: bool) -> Iterator[Case]:
    """Small weights, against bfloat16 ones in torch."""
    from sgl_like.kernels.device_linear import round_int4
    from sgl_like.kernels.quantized import round_rows
    from sgl_like.kernels.triton.quantized import fp8_linear, int4_linear, int8_linear

    shape = MODELS[0]
    sizes = [("gate, up", 2 * shape.wide, shape.hidden)]
    if not quick:
        sizes += [("output", shape.hidden, shape.hidden), ("down", shape.hidden, shape.wide)]
    for what, rows, columns in sizes:
        weight = torch.randn(rows, columns, device="cuda", dtype=BF16) / 64
        eight, scale8 = round_rows(weight, torch.int8)
        fp8, scale_fp8 = round_rows(weight, torch.float8_e4m3fn)
        four = round_int4(weight, 128)
        four_bytes = four.words.nbytes + four.scales.nbytes + four.zeros.nbytes
        for tokens in (1, 16) if quick else (1, 4, 16, 64, 256):
            x = torch.randn(tokens, columns, device="cuda", dtype=BF16)
            peers: dict[str, Callable[[], Any]] = {"bfloat16, torch": lambda x=x, weight=weight: x @ weight.T}
            work = 2.0 * tokens * rows * columns
            ops: tuple[tuple[str, Callable[[], Any], int], ...] = (
                ("int8", lambda x=x, w=eight, s=scale8: int8_linear(x, w, s), eight.nbytes),
                ("fp8", lambda x=x, w=fp8, s=scale_fp8: fp8_linear(x, w, s), fp8.nbytes),
                ("int4", lambda x=x, w=four: int4_linear(x, w), four_bytes),
            )
            for format_, run, size in ops:
                yield Case(
                    f"{format_} {what} ({rows} x {columns}), {tokens} tokens", run, float(size), work, peers
                )


def grouped_cases(quick: bool) -> Iterator[Case]:
    """Experts of a mixture, and adapters of a batch."""
    from sgl_like.kernels.triton.grouped import grouped_linear, lora_add

    experts, active, hidden, wide = 128, 8, 2048, 768
    weight = torch.randn(experts, 2 * wide, hidden, device="cuda", dtype=BF16) / 64
    for tokens in (16, 1024):
        x = torch.randn(tokens, hidden, device="cuda", dtype=BF16)
        groups = torch.rand(tokens, experts, device="cuda").topk(active).indices.flatten()
        used = len(groups.unique())
        yield Case(
            f"experts {experts}, {active} active, {tokens} tokens",
            lambda x=x, groups=groups: grouped_linear(x, weight, groups),
            bytes=float(used * weight[0].nbytes),
            operations=2.0 * len(groups) * 2 * wide * hidden,
            peers={"a loop over experts": lambda x=x, groups=groups: loop_experts(x, weight, groups, active)},
        )
    shape, adapters, rank = MODELS[0], 16, 16
    a = torch.randn(adapters, rank, shape.hidden, device="cuda", dtype=BF16)
    b = torch.randn(adapters, shape.hidden, rank, device="cuda", dtype=BF16)
    x = torch.randn(64, shape.hidden, device="cuda", dtype=BF16)
    scales, which = torch.ones(adapters, device="cuda"), torch.randint(adapters, (64,), device="cuda")
    yield Case(
        f"LoRA rank {rank}, {adapters} adapters, 64 tokens",
        lambda: lora_add(torch.zeros_like(x), x, a, b, scales, which),
        bytes=float(a.nbytes + b.nbytes),
    )


def loop_experts(x: Tensor, weight: Tensor, groups: Tensor, active: int) -> Tensor:
    """One matmul for each expert."""
    out = torch.empty(len(groups), weight.shape[1], device=x.device, dtype=x.dtype)
    for expert in groups.unique().tolist():
        places = (groups == expert).nonzero()[:, 0]
        out[places] = x[places // active] @ weight[expert].T
    return out


GROUPS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "decode": decode_cases,
    "extend": extend_cases,
    "cascade": cascade_cases,
    "pointwise": pointwise_cases,
    "sampling": sampling_cases,
    "products": product_cases,
    "grouped": grouped_cases,
}
