"""What `kernel_bench.py` measures: kernels and torch's own over the shapes of three models.

A `Setting` says where and how large, so that the same cases are measured on a GPU, compiled for one that is not there
(`kernel_compile.py`), and run at tiny sizes in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from kernel_setting import BF16, Case, Setting, Shape, as_it_is
from torch import Tensor
from torch.nn import functional


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


def attention_inputs(
    setting: Setting, shape: Shape, tokens: int, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and one layer's cache."""
    q = setting.normal(tokens, shape.heads, shape.head_dim)
    k, v = (setting.normal(slots, shape.kv_heads, shape.head_dim) for _ in range(2))
    return q, k, v


def in_order(cache: Tensor, rows: Any, batch: int) -> Tensor:
    """A cache as ``[batch, kv_heads, context, head_dim]``, for rows of one length."""
    slots = torch.from_numpy(rows.kv_slots).long().to(cache.device)
    return cache[slots].unflatten(0, (batch, -1)).transpose(1, 2).contiguous()


def sdpa(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Callable[[], Tensor]:
    """Attention of torch over contiguous ``[batch, heads, tokens, head_dim]``."""
    return lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


def decode_cases(setting: Setting) -> Iterator[Case]:
    """One token for each row, over a paged cache."""
    from sgl_like.kernels.attention import paged_attention

    grid = setting.pick(
        [(1, 512), (1, 4096), (1, 32768), (16, 4096), (64, 512), (64, 4096), (256, 4096)],
        [(64, 4096)],
        [(3, 40)],
    )
    for shape in setting.models:
        for batch, context in grid:
            q, k, v = attention_inputs(setting, shape, batch, batch * context)
            rows = make_rows([(1, context)] * batch, batch * context)
            scale = shape.head_dim**-0.5
            peers = {}
            if batch * context <= 300_000 and setting.filled:
                shaped = [in_order(each, rows, batch) for each in (k, v)]
                peers["SDPA, contiguous"] = sdpa(q.unsqueeze(2), *shaped, causal=False)
            yield Case(
                f"decode {shape.name} batch {batch} context {context}",
                lambda q=q, k=k, v=v, rows=rows, scale=scale: paged_attention(q, k, v, rows, scale),
                bytes=2 * k.nbytes,
                operations=4.0 * batch * context * shape.heads * shape.head_dim,
                peers=peers,
                same=lambda result: result[:, :, 0],
            )


def extend_cases(setting: Setting) -> Iterator[Case]:
    """Many new tokens, alone or after a cached prefix."""
    from sgl_like.kernels.attention import paged_attention

    grid = setting.pick(
        [[(8192, 8192)], [(2048, 2048)] * 4, [(2048, 8192)], [(512, 32768)]], [[(8192, 8192)]], [[(50, 50)]]
    )
    for shape in setting.models:
        for sizes in grid:
            new, length = sizes[0]
            tokens, slots = new * len(sizes), length * len(sizes)
            q, k, v = attention_inputs(setting, shape, tokens, slots)
            rows = make_rows(sizes, slots)
            scale = shape.head_dim**-0.5
            pairs = len(sizes) * (new * (length - new) + new * (new + 1) / 2)
            peers = {}
            if new == length and setting.filled:
                shaped = [
                    q.view(len(sizes), new, -1, shape.head_dim).transpose(1, 2).contiguous(),
                    *(in_order(each, rows, len(sizes)) for each in (k, v)),
                ]
                peers["SDPA, contiguous"] = sdpa(*shaped, causal=True)
                if len(sizes) == 1 and setting.device == "cuda":
                    peers["flex_attention, compiled"] = flex(*shaped)
            yield Case(
                f"extend {shape.name} {len(sizes)} x {new} new of {length}",
                lambda q=q, k=k, v=v, rows=rows, scale=scale: paged_attention(q, k, v, rows, scale),
                bytes=2.0 * k.nbytes + 2 * q.nbytes,
                operations=4 * pairs * shape.heads * shape.head_dim,
                peers=peers,
                same=lambda result: result.transpose(1, 2).flatten(0, 1),
            )


def flex(q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Any]:
    """flex_attention with a causal mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, q.shape[2], k.shape[2], device="cuda")
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def cascade_cases(setting: Setting) -> Iterator[Case]:
    """Rows that share a prefix, with and without looking at that."""
    from sgl_like.kernels.triton.attention import paged_attention
    from sgl_like.kernels.triton.attention_plan import plan

    grid = setting.pick([(64, 8192, 128), (16, 2048, 256), (256, 1024, 64)], [(64, 8192, 128)], [(3, 600, 8)])
    for shape in setting.models[:2]:
        for batch, shared, own in grid:
            slots = shared + batch * own
            q, k, v = attention_inputs(setting, shape, batch, slots)
            rows = make_rows([(1, shared + own)] * batch, slots, shared)
            group = shape.heads // shape.kv_heads
            plans = [plan(rows, group, setting.device, cascade=cascade) for cascade in (True, False)]
            scale = shape.head_dim**-0.5

            def run(made: Any, q: Tensor = q, k: Tensor = k, v: Tensor = v, scale: float = scale) -> Tensor:
                return paged_attention(q, k, v, made, scale)

            yield Case(
                f"cascade {shape.name} {batch} rows, {shared} shared + {own}",
                lambda run=run, made=plans[0]: run(made),
                bytes=2.0 * k.nbytes,
                peers={"the same without cascade": lambda run=run, made=plans[1]: run(made)},
                same=as_it_is,
            )


def pointwise_cases(setting: Setting) -> Iterator[Case]:
    """Norms, gates, rotary and store."""
    from sgl_like.kernels.rms_norm import reference as norm_reference
    from sgl_like.kernels.rms_norm import rms_norm
    from sgl_like.kernels.rotary import store_heads
    from sgl_like.kernels.silu_mul import reference as silu_reference
    from sgl_like.kernels.silu_mul import silu_mul

    shape = setting.models[0]
    for tokens in setting.pick((64, 8192), (64, 8192), (5,)):
        for size in (shape.hidden, shape.head_dim):
            x = setting.normal(tokens * shape.hidden // size, size)
            weight = torch.ones(size, device=setting.device, dtype=BF16)
            norm = torch.compile(norm_reference)
            yield Case(
                f"rms_norm {len(x)} x {size}",
                lambda x=x, weight=weight: rms_norm(x, weight, 1e-5),
                bytes=2.0 * x.nbytes,
                peers={
                    "torch.compile": lambda x=x, weight=weight, norm=norm: norm(x, weight, 1e-5),
                    "eager": lambda x=x, weight=weight: functional.rms_norm(x, (x.shape[-1],), weight, 1e-5),
                },
                same=as_it_is,
            )
        gate_up = setting.normal(tokens, 2 * shape.wide)
        gate = torch.compile(silu_reference)
        yield Case(
            f"silu_mul {tokens} x {shape.wide}",
            lambda gate_up=gate_up: silu_mul(gate_up),
            bytes=1.5 * gate_up.nbytes,
            peers={
                "torch.compile": lambda gate_up=gate_up, gate=gate: gate(gate_up),
                "eager": lambda gate_up=gate_up: silu_reference(gate_up),
            },
            same=as_it_is,
        )
        qkv = setting.normal(tokens, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        angles = (torch.rand(tokens, 1, shape.head_dim, device=setting.device).to(BF16),) * 2
        cache = [setting.normal(tokens, shape.kv_heads, shape.head_dim) for _ in range(2)]
        slots = torch.randperm(tokens, device=setting.device)
        yield Case(
            f"store_heads {tokens}",
            lambda qkv=qkv, angles=angles, slots=slots, cache=cache: store_heads(qkv, angles, slots, *cache),
            bytes=2.0 * qkv.nbytes,
        )


def sampling_cases(setting: Setting) -> Iterator[Case]:
    """Temperature, top-k, top-p and min-p of a batch, with masks."""
    from sgl_like.kernels.sample import SampleRows
    from sgl_like.kernels.triton.sample import sample

    shape, device = setting.models[0], setting.device
    for batch in setting.pick((1, 64, 256), (64,), (3,)):
        logits = 3 * torch.randn(batch, shape.vocab, device=device)
        ones = torch.ones(batch, device=device)
        masks = torch.full((batch, (shape.vocab + 31) // 32), -1, dtype=torch.int32, device=device)
        for what, k, p in (("temperature", 0, 1.0), ("top-p 0.9", 0, 0.9), ("top-k 50, top-p 0.9", 50, 0.9)):
            rows = SampleRows(
                0.8 * ones, (k * ones).int(), p * ones, 0 * ones, torch.rand(batch, device=device)
            )
            yield Case(
                f"sample batch {batch}, {what}",
                lambda logits=logits, rows=rows, masks=masks: sample(logits, rows, masks),
                bytes=float(logits.nbytes),
                peers={"torch: sort": lambda logits=logits, k=k, p=p: torch_sample(logits, k, p)},
                step_bytes=shape.step_bytes(batch, context=1024),
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


def product_cases(setting: Setting) -> Iterator[Case]:
    """Small weights, against bfloat16 ones in torch."""
    from sgl_like.kernels.device_linear import round_int4
    from sgl_like.kernels.quantized import round_rows
    from sgl_like.kernels.triton.quantized import fp8_linear, int4_linear, int8_linear

    shape = setting.models[0]
    sizes = [("gate, up", 2 * shape.wide, shape.hidden)]
    if setting.size != "quick":
        sizes += [("output", shape.hidden, shape.hidden), ("down", shape.hidden, shape.wide)]
    for what, rows, columns in sizes:
        weight = setting.normal(rows, -(-columns // 128) * 128) / 64  # int4 has spans of 128
        eight, scale8 = round_rows(weight, torch.int8)
        fp8, scale_fp8 = round_rows(weight, torch.float8_e4m3fn)
        four = round_int4(weight, 128)
        four_bytes = four.nbytes
        for tokens in setting.pick((1, 4, 16, 64, 256), (1, 16), (1, 20)):
            x = setting.normal(tokens, weight.shape[1])
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


def grouped_cases(setting: Setting) -> Iterator[Case]:
    """Experts of a mixture, and adapters of a batch."""
    from sgl_like.kernels.triton.grouped import grouped_linear, lora_add

    experts, active, hidden, wide = setting.pick((128, 8, 2048, 768), (128, 8, 2048, 768), (6, 2, 64, 48))
    weight = setting.normal(experts, 2 * wide, hidden) / hidden**0.5
    for tokens in setting.pick((16, 1024), (16, 1024), (5,)):
        x = setting.normal(tokens, hidden)
        groups = torch.rand(tokens, experts, device=setting.device).topk(active).indices.flatten()
        used = len(groups.unique())
        yield Case(
            f"experts {experts}, {active} active, {tokens} tokens",
            lambda x=x, groups=groups: grouped_linear(x, weight, groups),
            bytes=float(used * weight[0].nbytes),
            operations=2.0 * len(groups) * 2 * wide * hidden,
            peers={"a loop over experts": lambda x=x, groups=groups: loop_experts(x, weight, groups, active)},
            same=as_it_is,
        )
    shape, adapters, rank = setting.models[0], 16, 16
    a, b = setting.normal(adapters, rank, shape.hidden), setting.normal(adapters, shape.hidden, rank)
    x = setting.normal(64, shape.hidden)
    scales, which = torch.ones(adapters).to(x.device), torch.randint(adapters, (64,)).to(x.device)
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


def chosen(names: str | None) -> list[str]:
    """Groups of cases by their names, with commas between them; all of them for None.

    Raises:
        SystemExit: a name is unknown.
    """
    found = list(GROUPS) if names is None else names.split(",")
    for name in found:
        if name not in GROUPS:
            raise SystemExit(f"--only: there is no group {name!r}; known: {', '.join(GROUPS)}")
    return found


GROUPS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "decode": decode_cases,
    "extend": extend_cases,
    "cascade": cascade_cases,
    "pointwise": pointwise_cases,
    "sampling": sampling_cases,
    "products": product_cases,
    "grouped": grouped_cases,
}
