"""Linear layers on GPUs, in small formats: what `linear.make_linear` makes where Triton's kernels run.

bfloat16 and float32 weights are torch's matter there (`DenseLinear`), as its matmuls are at the ceiling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgl_like.kernels import quantized
from sgl_like.kernels.quantized import SPAN, Int4Weight


class RoundedLinear:
    """int8 or fp8 weights with a scale for each output; each row of x is rounded likewise.

    Args:
        weight: ``[rows, columns]``, on the device.
        bias: ``[rows]``, or ``None``.
        dtype: int8 or float8 e4m3.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._dtype = weight.dtype
        self._weight, self._scales = quantized.round_rows(weight, dtype)
        self._bias = bias

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and bias."""
        return self._weight.nbytes + self._scales.nbytes + (0 if self._bias is None else self._bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        from sgl_like.kernels.triton.quantized import fp8_linear, int8_linear

        run = int8_linear if self._weight.dtype == torch.int8 else fp8_linear
        return run(x, self._weight, self._scales, self._bias)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        return (self._weight[ids].float() * self._scales[ids, None]).to(self._dtype)


class Int4DeviceLinear:
    """Weights of 4 bits in groups.

    Args:
        weight: what is computed with.
        bias: ``[rows]``, or ``None``.
        dtype: of the weights before they were rounded.
    """

    def __init__(self, weight: Int4Weight, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._weight = weight
        self._bias = bias
        self._dtype = dtype

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales, zero points and bias."""
        w = self._weight
        return (
            w.words.nbytes
            + w.scales.nbytes
            + w.zeros.nbytes
            + (0 if self._bias is None else self._bias.nbytes)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        from sgl_like.kernels.triton.quantized import int4_linear

        return int4_linear(x, self._weight, self._bias)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        return self._weight.dense()[ids].to(self._dtype)


def round_int4(weight: Tensor, group: int) -> Int4Weight:
    """Weights rounded to 4 bits with a scale for each `group` columns, as on CPUs (`linear.int4_weights`).

    Args:
        weight: ``[rows, columns]``; columns are a multiple of 128.
        group: a multiple of 16.
    """
    rows, columns = weight.shape
    assert columns % SPAN == 0
    groups = weight.float().view(rows, -1, group)
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scales = (extreme / -8).to(torch.bfloat16)
    factors = torch.where(scales == 0, 1.0, scales.float())
    values = (groups / factors).round_().clamp_(-8, 7).view(rows, columns) + 8
    zeros = torch.full_like(scales.squeeze(2), 8)
    return quantized.pack_int4(values.T.int(), scales.squeeze(2).T, zeros.T, group)
