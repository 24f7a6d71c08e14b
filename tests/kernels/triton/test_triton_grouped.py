from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sgl_like.kernels import grouped
from sgl_like.kernels.device_linear import Int4DeviceLinear, RoundedLinear, round_int4
from sgl_like.kernels.grouped import Stack
from sgl_like.kernels.linear import DenseLinear, Linear
from sgl_like.kernels.quantized import Int4Weight, RoundedWeight, round_rows
from sgl_like.kernels.silu_mul import silu_mul
from sgl_like.runtime.models.experts import stacked
from sgl_like.runtime.models.layers import GatedMLP, MixtureOfExperts, StackedExperts
from tests.kernels.triton.test_triton_products import DTYPES, close
from tests.support.poison import Poison

FORMATS = ["plain", "int8", "fp8", "int4"]


def weight_of(dense: Tensor, form: str) -> Tensor | RoundedWeight | Int4Weight:
    if form == "plain":
        return dense
    if form == "int4":
        return round_int4(dense, 32)
    return RoundedWeight(*round_rows(dense, torch.int8 if form == "int8" else torch.float8_e4m3fn))


def place(w: Stack, put: Callable[[Tensor], Tensor]) -> Stack:
    if isinstance(w, RoundedWeight):
        return RoundedWeight(put(w.values), put(w.scales))
    return Int4Weight(put(w.words), put(w.steps), w.group) if isinstance(w, Int4Weight) else put(w)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "tokens, repeat, matrices, rows", [(1, 1, 1, 1), (7, 2, 4, 40), (90, 1, 1, 33), (5, 4, 20, 130), (0, 2, 3, 8)]
)  # fmt: skip
def test_grouped_products(
    tokens: int,
    repeat: int,
    matrices: int,
    rows: int,
    form: str,
    dtype: torch.dtype,
    device: str,
    poison: Poison,
) -> None:
    columns = 128 if form == "int4" else 72
    x = torch.randn(tokens, columns).to(dtype)
    dense = torch.randn(matrices, rows, columns).to(dtype)
    w = grouped.stack([weight_of(each, form) for each in dense])
    groups = torch.randint(-1, matrices, (tokens * repeat,))
    x_, groups_ = poison.put(x, device), poison.put(groups, device)
    found = grouped.grouped_linear(x_, place(w, lambda each: poison.put(each, device)), groups_)
    close(found, grouped.reference(x, w, groups), dtype)


@pytest.mark.parametrize("places, matrices", [(0, 3), (1, 1), (1, 200), (500, 3), (700, 60), (4000, 20)])
def test_tiles_hold_each_place_once(places: int, matrices: int, device: str) -> None:
    from sgl_like.kernels.triton.base import block_of
    from sgl_like.kernels.triton.grouped import make_tiles
    from tests.support.tile_kernel import all_tiles

    groups = (torch.rand(places).square() * (matrices + 1)).long() - 1  # many of some, few of others
    tiles = make_tiles(groups.to(device), matrices)
    assert tiles.most <= matrices + places // tiles.size
    out = torch.full((tiles.most, 3), -1, device=device)
    if tiles.most:
        all_tiles[(tiles.most,)](tiles.bounds, out, matrices, M=tiles.size, MATRICES=block_of(matrices))
    found: dict[int, int] = {}
    for matrix, first, end in out.tolist():
        if matrix < matrices:
            assert first < end
            for place in tiles.order[first : min(first + tiles.size, end)].tolist():
                assert place not in found
                found[place] = matrix
    assert found == {place: group for place, group in enumerate(groups.tolist()) if group >= 0}


@pytest.mark.parametrize("groups", [[-1] * 5, [2] * 5, [2, -1, 2, -1, 2], []])
def test_matrices_of_nobody_are_not_read(groups: list[int], device: str, poison: Poison) -> None:
    x, w = torch.randn(len(groups), 24), torch.full((4, 10, 24), float("nan"))
    w[2] = torch.randn(10, 24)
    which = torch.tensor(groups, dtype=torch.int64)
    found = grouped.grouped_linear(poison.put(x, device), poison.put(w, device), which.to(device))
    expected = torch.where(which[:, None] == 2, x @ w[2].T, 0.0)
    close(found, expected, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 8, 64])
def test_lora(rank: int, dtype: torch.dtype, device: str, poison: Poison) -> None:
    from sgl_like.kernels.triton.grouped import lora_add

    tokens, adapters = 21, 3
    x, y = torch.randn(tokens, 48).to(dtype), torch.randn(tokens, 40).to(dtype)
    a, b = torch.randn(adapters, rank, 48).to(dtype) / 8, torch.randn(adapters, 40, rank).to(dtype) / 8
    scales = torch.rand(adapters)
    for groups in (
        torch.randint(-1, adapters, (tokens,)),
        torch.full((tokens,), -1),
        torch.full((tokens,), 1),
    ):
        y_, *others = (poison.put(each, device) for each in (y, x, a, b, scales, groups))
        found = lora_add(y_, *others)
        assert found is y_
        close(found, grouped.lora_reference(y, x, a, b, scales, groups), dtype)


def test_adapters_of_different_ranks(device: str) -> None:
    """Padded with zeros they give what each gives by itself."""
    from sgl_like.kernels.triton.grouped import lora_add

    x, y, groups = torch.randn(9, 32), torch.randn(9, 20), torch.arange(9) % 4 - 1
    ranks, scales = (2, 16, 5), torch.rand(3)
    a, b = torch.zeros(3, 16, 32), torch.zeros(3, 20, 16)
    expected = y.clone()
    for i, rank in enumerate(ranks):
        a[i, :rank], b[i, :, :rank] = torch.randn(rank, 32), torch.randn(20, rank)
        expected[groups == i] += scales[i] * (x[groups == i] @ a[i, :rank].T @ b[i, :, :rank].T)
    found = lora_add(*(each.to(device).clone() for each in (y, x, a, b, scales, groups)))
    close(found, expected, torch.float32)


def test_trying_configurations_adds_an_adapter_once(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    from sgl_like.kernels.triton import grouped as run

    def try_all(op: str, key: object, configs: Sequence[object], launch: Callable[[object], None]) -> object:
        for config in configs:
            launch(config)
        return configs[-1]

    monkeypatch.setattr(run, "choose", try_all)
    x, y = torch.randn(3, 32), torch.randn(3, 20)
    a, b, scales = torch.randn(2, 8, 32), torch.randn(2, 20, 8), torch.ones(2)
    groups = torch.tensor([0, 1, -1])
    found = run.lora_add(*(each.to(device).clone() for each in (y, x, a, b, scales, groups)))
    close(found, grouped.lora_reference(y, x, a, b, scales, groups), torch.float32)


def linear_of(dense: Tensor, form: str, device: str) -> Linear:
    w = place(weight_of(dense, form), lambda each: each.to(device))
    if isinstance(w, Tensor):
        return DenseLinear(w)
    return (
        RoundedLinear(w, None, dense.dtype)
        if isinstance(w, RoundedWeight)
        else Int4DeviceLinear(w, None, dense.dtype)
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_mixture_is_the_same_stacked(form: str, device: str) -> None:
    hidden, width, count = 128, 128, 5
    experts = [
        GatedMLP(
            linear_of(torch.randn(2 * width, hidden) / 8, form, device),
            linear_of(torch.randn(hidden, width) / 8, form, device),
            silu_mul,
        )
        for _ in range(count)
    ]
    both = stacked(experts)
    assert isinstance(both, StackedExperts)
    router, x = torch.randn(count, hidden, device=device), torch.randn(7, hidden, device=device)
    found = MixtureOfExperts(router, both, active=2, normalize=True)(x)
    close(found, MixtureOfExperts(router, experts, active=2, normalize=True)(x).cpu(), torch.float32)
