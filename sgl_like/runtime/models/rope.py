"""Tables of rotary angles for every position, with Llama 3's and linear scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgl_like.runtime.models.model_config import ModelConfig, RopeScaling


class RopeTable:
    """Cosines and sines, computed in float32 and grown by doubling as positions are used.

    Args:
        config: shape and scaling.
        dtype: of the table, the model's.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
        self._frequencies = 1.0 / (config.rope_theta**exponents)
        if config.rope_scaling is not None:
            self._frequencies = _scale_llama3(self._frequencies, config.rope_scaling)
        self._frequencies = self._frequencies / config.rope_linear_factor
        self._dtype = dtype
        self._cos = self._sin = torch.empty(0)
        self._grow(min(config.max_position, 2048))

    def lookup(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines at `positions` (``[tokens]`` int64): each ``[tokens, 1, head_dim]``."""
        highest = int(positions.max()) + 1
        if highest > len(self._cos):
            self._grow(max(highest, 2 * len(self._cos)))
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)

    def _grow(self, size: int) -> None:
        angles = torch.outer(torch.arange(size, dtype=torch.float32), self._frequencies)
        angles = torch.cat((angles, angles), dim=-1)  # [positions, head_dim]
        self._cos, self._sin = angles.cos().to(self._dtype), angles.sin().to(self._dtype)


def _scale_llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Divide low frequencies by the factor, keep high ones, blend between (Llama 3.1's release)."""
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_position / wavelengths  # full turns within the original context
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies
