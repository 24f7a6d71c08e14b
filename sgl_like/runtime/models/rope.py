"""Rotary angles: how a config describes them, and tables of their cosines and sines.

Frequencies are a function of the config alone, never of the sequences in a batch: a cached key must be what it would
be if it were computed anew. The two methods that change with the length of a sequence are therefore settled when the
model is loaded (`RopeConfig.for_context`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sgl_like.runtime.models.config_fields import ConfigFields

TYPES = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")


class Scaling(Protocol):
    """A change of the frequencies for contexts longer than those of pre-training."""

    def scale(self, frequencies: Tensor, rope: RopeConfig) -> Tensor:
        """``[turned / 2]`` float32 to the same."""
        ...


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding.

    Args:
        turned: how many numbers of each head are turned, an even number.
        theta: base of the frequencies.
        scaling: how they are changed.
        magnitude: cosines and sines are multiplied by it.
        limit: the longest sequence for which these frequencies are right, where there is such a limit.
    """

    turned: int
    theta: float
    scaling: Scaling | None = None
    magnitude: float = 1.0
    limit: int | None = None

    def for_context(self, length: int | None) -> RopeConfig:
        """The same for sequences of up to `length` tokens (``None``: of the length that needs no change).

        LongRoPE has factors for short sequences and for long ones. ``transformers`` computes a whole sequence
        again when it grows beyond the first; here it is one or the other for as long as the model is loaded.
        """
        if self.limit is None or length is None or length <= self.limit:
            return self
        if isinstance(self.scaling, LongRope):
            return replace(self, scaling=replace(self.scaling, extended=True), limit=None)
        return self

    def frequencies(self) -> Tensor:
        """Angle per position of each pair: ``[turned / 2]`` float32."""
        exponents = torch.arange(0, self.turned, 2, dtype=torch.int64).float() / self.turned
        plain = 1.0 / (self.theta**exponents)
        return plain if self.scaling is None else self.scaling.scale(plain, self)


@dataclass(frozen=True, slots=True)
class Linear:
    """All wavelengths are stretched by `factor`."""

    factor: float

    def scale(self, frequencies: Tensor, rope: RopeConfig) -> Tensor:
        """See `Scaling`."""
        return frequencies / self.factor


@dataclass(frozen=True, slots=True)
class Llama3:
    """Long wavelengths are stretched by `factor`, short ones kept, with a blend between (Llama 3.1's release)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def scale(self, frequencies: Tensor, rope: RopeConfig) -> Tensor:
        """See `Scaling`."""
        turns = self.original_context / (2 * math.pi / frequencies)  # full turns within the original context
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0.0, 1.0)
        return (1 - blend) * frequencies / self.factor + blend * frequencies


@dataclass(frozen=True, slots=True)
class Yarn:
    """YaRN (Peng et al., 2023): as in `Llama3`, with the blend linear in the number of the pair.

    Args:
        factor: by which long wavelengths are stretched.
        beta_fast, beta_slow: full turns within the original context where the blend begins and ends.
        original_context: tokens of pre-training.
        truncate: whether the blend begins and ends at whole pairs.
    """

    factor: float
    beta_fast: float
    beta_slow: float
    original_context: int
    truncate: bool

    def scale(self, frequencies: Tensor, rope: RopeConfig) -> Tensor:
        """See `Scaling`."""
        low, high = self._pair(self.beta_fast, rope), self._pair(self.beta_slow, rope)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rope.turned - 1)
        pairs = torch.arange(len(frequencies), dtype=torch.float32)
        stretched = ((pairs - low) / max(high - low, 0.001)).clamp(0.0, 1.0)
        return frequencies / self.factor * stretched + frequencies * (1 - stretched)

    def _pair(self, turns: float, rope: RopeConfig) -> float:
        """The number of the pair that makes so many turns within the original context."""
        wavelength = self.original_context / (turns * 2 * math.pi)
        return rope.turned * math.log(wavelength) / (2 * math.log(rope.theta))


@dataclass(frozen=True, slots=True)
class LongRope:
    """LongRoPE (Ding et al., 2024): a factor for each pair, found by search; one set for long sequences, one for short.

    Args:
        short, long: the factors, ``turned / 2`` each.
        extended: whether the long ones are used.
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    extended: bool = False

    def scale(self, frequencies: Tensor, rope: RopeConfig) -> Tensor:
        """See `Scaling`."""
        return frequencies / torch.tensor(self.long if self.extended else self.short)


def read_rope(
    fields: ConfigFields, section: ConfigFields, turned: int, context: int, theta: float = 10_000.0
) -> RopeConfig:
    """From a config.

    Args:
        fields: the whole config.
        section: its description of the rotary embedding.
        turned: numbers of each head that are turned.
        context: ``max_position_embeddings``.
        theta: base of the frequencies if the section does not say.

    Raises:
        ModelLoadError: a type that is not supported, or bad fields.
    """
    if turned < 2 or turned % 2:
        raise fields.error("head_dim", f"makes {turned} numbers to turn; rotary embedding needs pairs")
    for name in ("full_attention", "sliding_attention"):
        if name in section:
            raise section.error(name, "is not supported for this architecture")
    spelling = "type" if "type" in section and "rope_type" not in section else "rope_type"
    kind = section.text(spelling, "default")
    plain = RopeConfig(turned, section.number("rope_theta", theta))
    original = section.integer("original_max_position_embeddings", context)
    original = fields.integer("original_max_position_embeddings", original)
    if kind == "default":
        return plain
    if kind == "linear":
        return replace(plain, scaling=Linear(section.number("factor")))
    if kind == "llama3":
        low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
        if low >= high:
            raise section.error("low_freq_factor", f"must be less than high_freq_factor, {high}")
        return replace(plain, scaling=Llama3(section.number("factor"), low, high, original))
    if kind == "dynamic":  # nothing changes up to the length of pre-training, to which we hold it
        return replace(plain, limit=context)
    if kind == "yarn":
        return _read_yarn(section, plain, original, context)
    if kind in ("longrope", "su"):
        return _read_longrope(section, plain, original, context)
    raise section.error(spelling, f"{kind!r} is not supported; known: {', '.join(TYPES)}")


def _read_yarn(section: ConfigFields, plain: RopeConfig, original: int, context: int) -> RopeConfig:
    factor = section.number("factor", context / original)
    magnitude = _yarn_magnitude(factor, 1.0)
    if "mscale" in section and "mscale_all_dim" in section:
        over = _yarn_magnitude(factor, section.number("mscale_all_dim"))
        magnitude = _yarn_magnitude(factor, section.number("mscale")) / over
    scaling = Yarn(
        factor=factor,
        beta_fast=section.number("beta_fast", 32.0),
        beta_slow=section.number("beta_slow", 1.0),
        original_context=original,
        truncate=section.flag("truncate", True),
    )
    return replace(plain, scaling=scaling, magnitude=section.number("attention_factor", magnitude))


def _yarn_magnitude(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _read_longrope(section: ConfigFields, plain: RopeConfig, original: int, context: int) -> RopeConfig:
    pairs = plain.turned // 2
    scaling = LongRope(section.numbers("short_factor", pairs), section.numbers("long_factor", pairs))
    factor = section.number("factor", context / original)
    magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    magnitude = section.number("attention_factor", magnitude)
    return replace(
        plain, scaling=scaling, magnitude=magnitude, limit=original if original < context else None
    )


class RopeTable:
    """Cosines and sines, computed in float32 and grown by doubling as positions are used.

    Args:
        rope: the frequencies.
        context: longest sequence of the model.
        dtype: of the table, the model's.
        device: where it is.
    """

    def __init__(self, rope: RopeConfig, context: int, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._frequencies = rope.frequencies()
        self._magnitude = rope.magnitude
        self._dtype = dtype
        self._cos = self._sin = torch.empty(0)
        self._grow(min(context, 2048))

    def lookup(self, positions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines at `positions` (``[tokens]`` int64), all below `longest`: each ``[tokens, 1, turned]``."""
        if longest > len(self._cos):
            self._grow(max(longest, 2 * len(self._cos)))
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)

    def _grow(self, size: int) -> None:
        angles = torch.outer(torch.arange(size, dtype=torch.float32), self._frequencies)
        angles = torch.cat((angles, angles), dim=-1)  # [positions, turned]
        self._cos = (angles.cos() * self._magnitude).to(self._device, self._dtype)
        self._sin = (angles.sin() * self._magnitude).to(self._device, self._dtype)
