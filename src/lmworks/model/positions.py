"""Sinusoidal and rotary positions, and the ways to extend rotary ones to longer contexts.

Rotary (Su et al. 2021, RoFormer): each pair of a query's or key's dimensions is rotated by position / theta^(2i/D).
The pairs are (i, i + D/2), as in Hugging Face's checkpoints.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lmworks.base.errors import InputError
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
    """Cosines and sines of rotary positions. Not a module, since it has no weights: the config determines all numbers.

    Args:
        config: reads the rotated size of a head, rope_theta, rope_scaling and max_position_embeddings.
        local: for sliding layers with their own base: use rope_local_theta, without scaling.
    """

    def __init__(self, config: ModelConfig, local: bool = False) -> None:
        theta = config.rope_local_theta if local else config.rope_theta
        assert theta is not None
        self.size, self.theta = config.rotary_size, theta
        self.scaling = None if local else config.rope_scaling
        self.trained = config.max_position_embeddings
        if self.scaling and self.scaling.original_max_position_embeddings:
            self.trained = self.scaling.original_max_position_embeddings
        self.rates = self.long_rates = 1.0 / theta ** (torch.arange(0, self.size, 2, device="cpu").float() / self.size)
        self.factor = 1.0
        if self.scaling is not None:
            self._scale_rates(self.scaling)
        self._tables: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def depends_on_length(self) -> bool:
        """Whether the rotation of earlier keys changes as the text grows, so that caches hold keys before rotation."""
        return self.scaling is not None and self.scaling.kind in ("dynamic", "longrope")

    def outgrows(self, before: int, after: int) -> bool:
        """Whether a text that grows from ``before`` to ``after`` tokens changes from longrope's short rates to the long
        ones. The cache was computed with the short rates, so the text must be prefilled again."""
        return self.scaling is not None and self.scaling.kind == "longrope" and before <= self.trained < after

    def cos_sin(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each (B, T, 1, R/2) of ``dtype``, for positions (B, T); R is the rotated size of a head.

        Rates that depend on the length use the length of each document, so packed and padded documents get the same
        rates as alone.
        """
        if not self.depends_on_length:
            cos, sin = self._from_table(positions, False)
        elif self.scaling is not None and self.scaling.kind == "dynamic":
            cos, sin = self._angles(positions, self._dynamic(_lengths(positions)))
        else:
            long = _lengths(positions) > self.trained
            cos, sin = self._from_table(positions, bool(long.any()))
            if long.any() and not long.all():
                short = self._from_table(positions, False)
                cos, sin = (torch.where(long[..., None], *pair) for pair in zip((cos, sin), short, strict=True))
        return cos[:, :, None].to(dtype), sin[:, :, None].to(dtype)

    def _scale_rates(self, scaling: RopeScaling) -> None:
        if scaling.kind == "linear":
            self.rates = self.rates / scaling.factor
        elif scaling.kind == "llama3":
            self.rates = _llama3(self.rates, scaling, self.trained)
        elif scaling.kind == "yarn":
            self.rates, self.factor = _yarn(self.rates, scaling, self.trained, self.theta), _yarn_factor(scaling)
        elif scaling.kind == "longrope":
            rates = self.rates
            self.rates, self.long_rates = (
                _divided(rates, divisors) for divisors in (scaling.short_factor, scaling.long_factor)
            )
            self.factor = _longrope_factor(scaling, self.trained)

    def _from_table(self, positions: torch.Tensor, long: bool) -> tuple[torch.Tensor, torch.Tensor]:
        length, table = int(positions.max()) + 1, self._tables.get(long)
        if table is None or len(table[0]) < length or table[0].device != positions.device:
            places = torch.arange(max(256, 1 << (length - 1).bit_length()), device=positions.device)
            table = self._tables[long] = self._angles(places, self.long_rates if long else self.rates)
        return table[0][positions], table[1][positions]

    def _angles(self, positions: torch.Tensor, rates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[..., None].float() * rates.to(positions.device)
        return angles.cos() * self.factor, angles.sin() * self.factor

    def _dynamic(self, lengths: torch.Tensor) -> torch.Tensor:
        """(B, T, R/2) rates of dynamic NTK: the base grows with the length (B, T) once it passes the trained one."""
        assert self.scaling is not None
        growth = self.scaling.factor * lengths.clamp(min=self.trained).double() / self.trained
        theta = self.theta * (growth - (self.scaling.factor - 1)) ** (self.size / (self.size - 2))
        exponents = torch.arange(0, self.size, 2, device=lengths.device).float() / self.size
        return 1.0 / theta[..., None].float() ** exponents


def _lengths(positions: torch.Tensor) -> torch.Tensor:
    """(B, T): length of each token's document; a document begins where positions are not consecutive."""
    begins = functional.pad(positions.diff(dim=1) != 1, (1, 0))
    number = begins.cumsum(1)
    ends = positions.new_zeros(len(positions), positions.shape[1] + 1)
    return ends.scatter_reduce(1, number, positions + 1, "amax").gather(1, number)


def _divided(rates: torch.Tensor, divisors: tuple[float, ...] | None) -> torch.Tensor:
    """Each rate divided by its own divisor."""
    if divisors is None or len(divisors) != len(rates):
        raise InputError(
            f"longrope has {len(divisors or ())} factors, but {len(rates)} pairs of each head are rotated",
            "rope_scaling",
            "give short_factor and long_factor one number a pair",
        )
    return 1.0 / (torch.tensor(divisors, dtype=torch.float32, device="cpu") / rates)


def _longrope_factor(scaling: RopeScaling, trained: int) -> float:
    """LongRoPE (Ding et al. 2024): cosines and sines grow with the context, which keeps attention peaked."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 1.0 if scaling.factor <= 1 else math.sqrt(1 + math.log(scaling.factor) / math.log(trained))


def _llama3(rates: torch.Tensor, scaling: RopeScaling, trained: int) -> torch.Tensor:
    """Llama 3.1: short wavelengths are unchanged, long ones are interpolated, those between are blended."""
    wavelengths = 2 * math.pi / rates
    blend = (trained / wavelengths - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * rates / scaling.factor + blend * rates


def _yarn(rates: torch.Tensor, scaling: RopeScaling, trained: int, theta: float) -> torch.Tensor:
    """YaRN (Peng et al. 2023, section 3.2): a ramp from unchanged fast dimensions to interpolated slow ones."""
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
