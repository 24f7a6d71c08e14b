"""Many kernel calls in one against the same calls one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sgl_like.kernels import rms_norm, silu_mul
from sgl_like.kernels.linear import BFloat16Linear, Int4Linear, Int8Linear, PackedLinear
from sgl_like.kernels.sequence import Sequence
from sgl_like.kernels.threads import Call


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return KEPT.setdefault((shape, dtype), torch.empty(shape, dtype=dtype))


KEPT: dict[tuple[tuple[int, ...], torch.dtype], torch.Tensor] = {}


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear, BFloat16Linear])
@pytest.mark.parametrize("tokens", [1, 7])
def test_a_chain_is_what_its_calls_are(kind: type[PackedLinear], tokens: int, threads: int) -> None:
    """Each call needs all that the one before it has made; run often, for the threads to meet in other ways."""
    up, down = (kind(torch.randn(*shape).bfloat16() / 20) for shape in ((2 * 320, 224), (224, 320)))
    weight = torch.randn(224).bfloat16()
    x, y = (torch.empty(tokens, 224, dtype=torch.bfloat16) for _ in range(2))
    wide, gated = (torch.empty(tokens, width, dtype=torch.bfloat16) for width in (640, 320))
    calls: list[Call] = []
    for _ in range(10):
        calls += [rms_norm.call(x, weight, 1e-5, y), *up.calls(y, wide, scratch), silu_mul.call(wide, gated)]
        calls += down.calls(gated, x, scratch, added=x)
    sequence = Sequence(calls)
    for _ in range(20):
        given = torch.randn(tokens, 224).bfloat16()
        expected = given
        for _ in range(10):
            normed = rms_norm.rms_norm(expected, weight, 1e-5)
            expected = expected + down(silu_mul.silu_mul(up(normed)))
        x.copy_(given)
        sequence.run()
        assert torch.equal(x, expected)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("rows", [64, 100])
def test_added_in_float32(kind: type[PackedLinear], rows: int) -> None:
    layer, x = kind(torch.randn(rows, 96)), torch.randn(5, 96)
    before, out = torch.randn(5, rows), torch.full((5, rows), torch.nan)
    Sequence(layer.calls(x, out, scratch, added=before)).run()
    assert torch.equal(out, before + layer(x))


def test_nothing_to_do() -> None:
    Sequence([]).run()
    layer, x, out = Int8Linear(torch.randn(64, 32)), torch.empty(0, 32), torch.empty(0, 64)
    Sequence(layer.calls(x, out, scratch)).run()
