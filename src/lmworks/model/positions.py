"""Where a token stands: learned, sinusoidal and rotary positions, and the ways to stretch rotary ones.

Rotary (Su et al. 2021, RoFormer): each pair of a query's or key's dimensions is rotated by position / theta^(2i/D).
The pairs are (i, i + D/2), as Hugging Face's checkpoints store them. Knows nothing of attention.
"""

from __future__ import annotations

import math

import torch

from lmworks.model.config import ModelConfig, RopeScaling


def sinusoids(length: int, size: int) -> torch.Tensor:
    """(length, size) float32: PE(p, 2i) = sin(p / 10000^(2i/size)), PE(p, 2i+1) = cos of the same.

    Vaswani et al. 2017, section 3.5.
    """
    rates = torch.exp(torch.arange(0, size, 2, dtype=torch.float32) * (-math.log(10_000.0) / size))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    table = torch.zeros(length, size)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles[:, : size // 2])
    return table


class Rotary:
    """Turns positions into rotations. Not a module: it has no weights, only numbers that follow from the config.

    Args:
        config: reads head size, rope_theta, rope_scaling and max_position_embeddings.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.size = config.head_size
        self.theta = config.rope_theta
        self.scaling = config.rope_scaling
        self.trained = config.max_position_embeddings
        if self.scaling and self.scaling.original_max_position_embeddings:
            self.trained = self.scaling.original_max_position_embeddings
        self.factor = 1.0
        rates = self._rates(self.theta)
        if self.scaling and self.scaling.kind == "linear":
            rates = rates / self.scaling.factor
        elif self.scaling and self.scaling.kind == "llama3":
            rates = _llama3(rates, self.scaling, self.trained)
        elif self.scaling and self.scaling.kind == "yarn":
            rates = _yarn(rates, self.scaling, self.trained, self.theta)
            self.factor = _yarn_factor(self.scaling)
        self.rates = rates
        self._table: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def depends_on_length(self) -> bool:
        """Dynamic NTK: earlier keys turn differently once the text is longer, so caches keep them unturned."""
        return self.scaling is not None and self.scaling.kind == "dynamic"

    def turns(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each (B, T, 1, D/2) of ``dtype``, for positions (B, T)."""
        if self.depends_on_length:
            cos, sin = self._angles(positions.float(), self._stretched(int(positions.max()) + 1))
        else:
            cos, sin = (part[positions] for part in self._tabled(int(positions.max()) + 1, positions.device))
        return cos[:, :, None].to(dtype), sin[:, :, None].to(dtype)

    def _tabled(self, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if self._table is None or len(self._table[0]) < length or self._table[0].device != device:
            places = torch.arange(max(256, 1 << (length - 1).bit_length()), device=device)
            self._table = self._angles(places.float(), self.rates)
        return self._table

    def _angles(self, positions: torch.Tensor, rates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[..., None] * rates.to(positions.device)
        return angles.cos() * self.factor, angles.sin() * self.factor

    def _rates(self, theta: float) -> torch.Tensor:
        return 1.0 / theta ** (torch.arange(0, self.size, 2, dtype=torch.int64, device="cpu").float() / self.size)

    def _stretched(self, length: int) -> torch.Tensor:
        """Dynamic NTK: the base grows with the length once it passes the trained one."""
        assert self.scaling is not None
        if length <= self.trained:
            return self._rates(self.theta)
        growth = self.scaling.factor * length / self.trained - (self.scaling.factor - 1)
        return self._rates(self.theta * growth ** (self.size / (self.size - 2)))


def rotate(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate x (B, T, H, D) by ``turns`` from :meth:`Rotary.turns`."""
    cos, sin = turns
    first, second = x.chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1)


def _llama3(rates: torch.Tensor, scaling: RopeScaling, trained: int) -> torch.Tensor:
    """Llama 3.1: short wavelengths stay, long ones are interpolated, those between are blended."""
    wavelengths = 2 * math.pi / rates
    blend = (trained / wavelengths - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * rates / scaling.factor + blend * rates


def _yarn(rates: torch.Tensor, scaling: RopeScaling, trained: int, theta: float) -> torch.Tensor:
    """YaRN (Peng et al. 2023, section 3.2): a ramp from untouched fast dimensions to interpolated slow ones."""
    size = 2 * len(rates)

    def dimension_of(rotations: float) -> float:
        return size * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = (torch.arange(size // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 1e-3)
    interpolated = ramp.clamp(0, 1)
    return rates / scaling.factor * interpolated + rates * (1 - interpolated)


def _yarn_factor(scaling: RopeScaling) -> float:
    def scale(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return scale(scaling.mscale) / scale(scaling.mscale_all_dim)
    return scale(1.0)
