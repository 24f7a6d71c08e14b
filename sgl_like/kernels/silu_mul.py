"""SwiGLU's gate: ``silu(gate) * up`` (Shazeer, 2020).

Contract: ``silu_mul(gate_up) -> y`` with ``gate_up: [tokens, 2 * width]`` (gate first), ``y: [tokens, width]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgl_like.kernels import pointwise
from sgl_like.kernels.dispatch import by_triton
from sgl_like.kernels.pointwise import is_half
from sgl_like.kernels.threads import Call


def reference(gate_up: Tensor) -> Tensor:
    """Plain definition, computed in float32."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (gate * torch.sigmoid(gate) * up).to(gate_up.dtype)


def silu_mul(gate_up: Tensor) -> Tensor:
    """On CPUs machine code, a task for each token."""
    if by_triton(gate_up):
        from sgl_like.kernels.triton.gates import silu_mul as run

        return run(gate_up)
    gate_up = gate_up.contiguous()
    out = torch.empty(gate_up.shape[0], gate_up.shape[1] // 2, dtype=gate_up.dtype)
    pointwise.run(call(gate_up, out))
    return out


def call(gate_up: Tensor, out: Tensor) -> Call:
    """The kernel's call; both are contiguous."""
    numbers = (gate_up.data_ptr(), out.data_ptr(), out.shape[1], is_half(out))
    return Call(pointwise.silu_mul, len(out), numbers)
