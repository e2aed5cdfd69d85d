"""Rotary positions by their definitions: parts of heads, long texts, sliding layers, packed documents."""

from __future__ import annotations

import math

import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.kernels.rotary import rotate
from lmworks.model.config import ModelConfig, RopeScaling
from lmworks.model.positions import Rotary

SHORT, LONG = (1.0, 1.5, 2.0, 2.5), (2.0, 3.0, 4.0, 5.0)
LONGROPE = RopeScaling(
    kind="longrope", factor=4.0, original_max_position_embeddings=6, short_factor=SHORT, long_factor=LONG
)
DYNAMIC = RopeScaling(kind="dynamic", factor=4.0, original_max_position_embeddings=6)


def rotary_of(local: bool = False, **fields) -> Rotary:
    sizes = {"vocab_size": 9, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1}
    return Rotary(
        ModelConfig(**(sizes | {"num_attention_heads": 4, "max_position_embeddings": 24} | fields)), local=local
    )


def rotated(rotary: Rotary, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """x (B, T, H, D) rotated; positions counted from 0 unless given."""
    if positions is None:
        positions = torch.arange(x.shape[1]).expand(x.shape[:2])
    return rotate(x, *rotary.cos_sin(positions, x.dtype))


def heads(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, length, 4, 8, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def by_definition(x: torch.Tensor, rates: list[float], factor: float = 1.0) -> torch.Tensor:
    """Each pair (i, i + D/2) as a complex number, times e^(i * position * rate)."""
    half = len(rates)
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
    angles = torch.arange(x.shape[1])[:, None, None] * torch.tensor(rates, dtype=torch.float64)
    pairs = pairs * torch.polar(torch.full_like(angles, factor), angles)
    return torch.cat([pairs.real, pairs.imag], dim=-1).float()


PLAIN = [10_000.0 ** (-i / 4) for i in range(4)]


def test_pairs_turn_as_complex_numbers() -> None:
    x = heads(20)
    close(rotated(rotary_of(), x), by_definition(x, PLAIN))


def test_scores_depend_on_the_distance_alone() -> None:
    rotary, query, key = rotary_of(), heads(1, 1), heads(1, 2)
    scores = [
        (rotated(rotary, query, torch.tensor([[at + 3]])) * rotated(rotary, key, torch.tensor([[at]]))).sum(-1)
        for at in (0, 5, 17)
    ]
    close(scores[1], scores[0])
    close(scores[2], scores[0])


def test_part_of_each_head_turns_as_a_smaller_head() -> None:
    x = heads(20)
    received = rotated(rotary_of(rotary_fraction=0.5), x)
    close(received[..., :4], rotated(rotary_of(head_dim=4), x[..., :4]))
    assert torch.equal(received[..., 4:], x[..., 4:])


def test_sliding_layers_have_rates_of_their_own_and_are_not_stretched() -> None:
    x = heads(20)
    scaling = {"rope_theta": 500.0, "rope_local_theta": 50.0, "rope_scaling": RopeScaling(kind="linear", factor=8.0)}
    close(rotated(rotary_of(local=True, **scaling), x), rotated(rotary_of(rope_theta=50.0), x))
    close(rotated(rotary_of(**scaling), x), by_definition(x, [500.0 ** (-i / 4) / 8 for i in range(4)]))
    assert not rotary_of(local=True, **(scaling | {"rope_scaling": DYNAMIC})).depends_on_length


@pytest.mark.parametrize(("length", "divisors"), [(6, SHORT), (7, LONG), (20, LONG)])
def test_longrope_divides_by_the_factors_of_its_length(length: int, divisors: tuple[float, ...]) -> None:
    x, factor = heads(length), math.sqrt(1 + math.log(4.0) / math.log(6))
    rates = [rate / divisor for rate, divisor in zip(PLAIN, divisors, strict=True)]
    close(rotated(rotary_of(rope_scaling=LONGROPE), x), by_definition(x, rates, factor))


def test_longrope_with_and_without_an_attention_factor() -> None:
    x = heads(4)
    rates = [rate / divisor for rate, divisor in zip(PLAIN, SHORT, strict=True)]
    for scaling, factor in (({"attention_factor": 1.7}, 1.7), ({"factor": 1.0}, 1.0)):
        rotary = rotary_of(rope_scaling=LONGROPE.model_copy(update=scaling))
        close(rotated(rotary, x), by_definition(x, rates, factor))


def test_longrope_needs_a_factor_for_each_pair() -> None:
    with pytest.raises(InputError, match=r"4 factors, but 2 pairs"):
        rotary_of(rope_scaling=LONGROPE, rotary_fraction=0.5)


@pytest.mark.parametrize("scaling", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic"])
@pytest.mark.parametrize("lengths", [(4, 9), (9, 4), (9, 1, 4), (7, 12)], ids=str)
def test_each_document_turns_by_its_own_length(scaling: RopeScaling, lengths: tuple[int, ...]) -> None:
    """Packed into a flat row, or padded on either side with positions of 0."""
    rotary, parts = rotary_of(rope_scaling=scaling), [heads(length, length) for length in lengths]
    alone = [rotated(rotary, part) for part in parts]
    flat = torch.cat([torch.arange(length) for length in lengths])[None]
    close(rotated(rotary, torch.cat(parts, 1), flat), torch.cat(alone, 1))
    width = max(lengths)
    for left in (False, True):
        rows, places = torch.zeros(len(lengths), width, 4, 8), torch.zeros(len(lengths), width, dtype=torch.int64)
        slots = [slice(width - size, width) if left else slice(0, size) for size in lengths]
        for row, (slot, part) in enumerate(zip(slots, parts, strict=True)):
            rows[row, slot], places[row, slot] = part[0], torch.arange(part.shape[1])
        received = rotated(rotary, rows, places)
        for row, (slot, expected) in enumerate(zip(slots, alone, strict=True)):
            close(received[row, slot], expected[0])


def test_only_longrope_outgrows_its_cache_and_once() -> None:
    grown = [rotary_of(rope_scaling=LONGROPE).outgrows(length, length + 1) for length in range(4, 9)]
    assert grown == [False, False, True, False, False]
    assert rotary_of(rope_scaling=LONGROPE).outgrows(3, 20)
    assert not rotary_of(rope_scaling=DYNAMIC).outgrows(3, 20)
    assert not rotary_of().outgrows(3, 20)
