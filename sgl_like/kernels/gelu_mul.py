"""GeGLU's gate: ``gelu(gate) * up`` (Shazeer, 2020); GELU exact or by its tanh formula (Hendrycks and Gimpel, 2016).

Contract: ``gelu_mul(gate_up, tanh) -> y`` with ``gate_up: [tokens, 2 * width]`` (gate first), ``y: [tokens, width]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sgl_like.kernels.dispatch import by_triton


def reference(gate_up: Tensor, tanh: bool) -> Tensor:
    """Plain definition, computed in float32."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    if tanh:
        inner = torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))
    else:
        inner = torch.erf(gate / math.sqrt(2))
    return (0.5 * gate * (1 + inner) * up).to(gate_up.dtype)


def gelu_mul(gate_up: Tensor, tanh: bool) -> Tensor:
    """On CPUs torch's GELU, multiplied in place."""
    if by_triton(gate_up):
        from sgl_like.kernels.triton.gates import gelu_mul as run

        return run(gate_up, tanh)
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.gelu(gate, approximate="tanh" if tanh else "none").mul_(up)
