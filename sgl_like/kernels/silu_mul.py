"""SwiGLU's gate: ``silu(gate) * up`` (Shazeer, 2020).

Contract: ``silu_mul(gate_up) -> y`` with ``gate_up: [tokens, 2 * width]`` (gate first), ``y: [tokens, width]``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def reference(gate_up: Tensor) -> Tensor:
    """Plain definition, computed in float32."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (gate * torch.sigmoid(gate) * up).to(gate_up.dtype)


def silu_mul(gate_up: Tensor) -> Tensor:
    """CPU: torch's SiLU, multiplied in place."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
