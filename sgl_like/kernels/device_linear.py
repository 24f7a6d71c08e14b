"""Linear layers on GPUs, in small formats: what `linear.make_linear` makes where Triton's kernels run.

bfloat16 and float32 weights are torch's matter there (`DenseLinear`), as its matmuls are at the ceiling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgl_like.kernels.quantized import Int4Numbers, Int4Weight, RoundedWeight, pack_int4


class RoundedLinear:
    """int8 or fp8 weights with a scale for each output; each row of x is rounded likewise.

    Args:
        weight: ``[rows, columns]``, on the device.
        bias: ``[rows]``, or ``None``.
        dtype: of the weights before they were rounded.
    """

    def __init__(self, weight: RoundedWeight, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight
        self.bias = bias
        self._dtype = dtype

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        from sgl_like.kernels.triton.quantized import fp8_linear, int8_linear

        values, scales = self.weight.values, self.weight.scales
        return (int8_linear if values.dtype == torch.int8 else fp8_linear)(x, values, scales, self.bias)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        return self.weight[ids].dense().to(self._dtype)


class Int4DeviceLinear:
    """Weights of 4 bits in groups.

    Args:
        weight: what is computed with.
        bias: ``[rows]``, or ``None``.
        dtype: of the weights before they were rounded.
    """

    def __init__(self, weight: Int4Weight, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight
        self.bias = bias
        self._dtype = dtype

    @property
    def nbytes(self) -> int:
        """Memory of weights, scales, zero points and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """``[tokens, columns]`` to ``[tokens, rows]``."""
        from sgl_like.kernels.triton.quantized import int4_linear

        return int4_linear(x, self.weight, self.bias)

    def weight_rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as they are computed with, ``[n, columns]``."""
        return self.weight.of_rows(ids).dense().to(self._dtype)


def round_int4(weight: Tensor, group: int) -> Int4Weight:
    """Weights rounded to 4 bits with a scale for each `group` columns, as on CPUs (`linear.int4_weights`).

    Args:
        weight: ``[rows, columns]``.
        group: see `quantized.fits_int4`.
    """
    rows, columns = weight.shape
    groups = weight.float().view(rows, -1, group)
    extreme = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scales = (extreme / -8).to(torch.bfloat16)
    factors = torch.where(scales == 0, 1.0, scales.float())
    values = (groups / factors).round_().clamp_(-8, 7).view(rows, columns) + 8
    scales = scales.squeeze(2)
    zeros = torch.full_like(scales, 8, dtype=torch.uint8)
    return pack_int4(Int4Numbers(values.to(torch.uint8).T, scales.T, zeros.T))
