"""GPTQ beside its textbook form, which computes the inverse anew for every column."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmworks.calibrate.gptq import choose_levels, inverse_factor, quantize_matrix
from lmworks.calibrate.scaling import output_error
from lmworks.model.rounding_rules import RULES, q4_1

ROWS, COLUMNS = 24, 160


def inputs(tokens: int = 300, columns: int = COLUMNS, seed: int = 0) -> torch.Tensor:
    """Inputs whose channels depend on each other and have different sizes."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return mixed * torch.rand(columns, generator=generator).add(0.1) / columns**0.5


def weights(seed: int = 1) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)) * 0.05


def products_of(x: torch.Tensor) -> torch.Tensor:
    return x.double().t() @ x.double()


def half(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float16).astype(np.float64)


def textbook(weight: np.ndarray, products: np.ndarray, kind: str, damping: float = 0.01) -> tuple[np.ndarray, ...]:
    """Levels, scales and smallest values: optimal brain quantization in the order of the columns (sections 2 and 3).

    After each column the error goes to the columns that are left, by the inverse of their products alone.
    """
    weight, products = weight.copy(), products + damping * products.diagonal().mean() * np.eye(len(products))
    levels, scales, smallest = np.zeros_like(weight), [], []
    for column in range(weight.shape[1]):
        if column % 32 == 0:
            group = weight[:, column : column + 32]
            if kind == "Q4_1":
                scales.append(half((group.max(1) - group.min(1)) / 15))
                smallest.append(half(group.min(1)))
            else:
                largest = np.take_along_axis(group, np.abs(group).argmax(1)[:, None], 1)[:, 0]
                scales.append(half(largest / -8))
                smallest.append(-8 * scales[-1])
        inverse = np.linalg.inv(products[column:, column:])
        levels[:, column] = np.clip(np.rint((weight[:, column] - smallest[-1]) / scales[-1]), 0, 15)
        error = weight[:, column] - (levels[:, column] * scales[-1] + smallest[-1])
        weight[:, column:] -= np.outer(error, inverse[0] / inverse[0, 0])
    return levels, np.stack(scales, 1), np.stack(smallest, 1)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_it_is_the_textbook_form(kind: str) -> None:
    products = products_of(inputs())
    storage = quantize_matrix(weights(), products, kind, ranges=(1.0,))
    assert (storage.kind, storage.shape) == (kind, (ROWS, COLUMNS))
    expected = textbook(weights().double().numpy(), products.numpy(), kind)
    found = storage.four_bit_groups()
    assert found is not None
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.double().numpy(), theirs)


def test_columns_together_are_columns_one_block_after_another() -> None:
    products = products_of(inputs())
    parts = [quantize_matrix(weights(), products, columns_at_once=count).blocks for count in (32, 64, 128, 160)]
    assert all(torch.equal(part, parts[0]) for part in parts)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_outputs_are_nearer_than_with_the_nearest_levels(kind: str) -> None:
    products, weight = products_of(inputs()).float(), weights()
    nearest = output_error(RULES[kind](weight).dequantized() - weight, products)
    plain = output_error(quantize_matrix(weight, products, kind, ranges=(1.0,)).dequantized() - weight, products)
    searched = output_error(quantize_matrix(weight, products, kind).dequantized() - weight, products)
    assert plain < 0.7 * nearest
    assert searched < plain
    nearest_weights = (RULES[kind](weight).dequantized() - weight).square().sum()
    moved = (quantize_matrix(weight, products, kind, ranges=(1.0,)).dequantized() - weight).square().sum()
    assert moved > nearest_weights  # the weights themselves are farther: what counts is their outputs


def test_columns_that_read_nothing_get_the_nearest_levels() -> None:
    x = inputs()
    x[:, 3] = 0.0
    storage = quantize_matrix(weights(), products_of(x), ranges=(1.0,))
    assert bool(storage.dequantized().isfinite().all())
    nothing = quantize_matrix(weights(), torch.zeros(COLUMNS, COLUMNS), ranges=(1.0,)).dequantized()
    torch.testing.assert_close(nothing, q4_1(weights()).dequantized(), rtol=1e-6, atol=1e-7)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    products = products_of(inputs())
    factor = inverse_factor(products, 0.05)
    damped = products + 0.05 * products.diagonal().mean() * torch.eye(COLUMNS)
    torch.testing.assert_close(factor.t() @ factor @ damped, torch.eye(COLUMNS, dtype=torch.float64))
    assert torch.equal(factor, factor.triu())


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_the_best_of_several_ranges_is_chosen_for_each_row(kind: str) -> None:
    group, importance = weights()[:, :32].double(), torch.linspace(0.5, 2.0, 32).double()
    ranges = (1.0, 0.9, 0.8)

    def errors(*tried: float) -> torch.Tensor:
        own = choose_levels(group, kind, importance, tried)
        return (own.values(own.levels(group)) - group).square() @ importance

    least = torch.stack([errors(share) for share in ranges]).amin(0)
    torch.testing.assert_close(errors(*ranges), least)
    assert bool((least < errors(1.0)).any())
