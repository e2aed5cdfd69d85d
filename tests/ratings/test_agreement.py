"""Krippendorff's alpha equals his worked examples and its definition, value by value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lmworks.ratings.agreement import agreement

BINARY = ["0100000010", "1110010000"]
"""Krippendorff (2011), section B: two observers, ten units; alpha = 0.095."""
NAMES = ["aabbdcccedda", "babbbccceddd"]
"""Krippendorff (2011), section C: two observers, twelve units; alpha = 0.692."""
FOUR = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
"""Krippendorff (2011), section D: four observers, twelve units, dots for gaps; nominal alpha = 0.743, interval
alpha = 0.849."""


def units_of(observers: list[str]) -> list[list[int]]:
    assert len({len(values) for values in observers}) == 1
    return [[ord(value) - 48 for value in unit if value != "."] for unit in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("observers", "level", "alpha"),
    [(BINARY, "nominal", 0.095), (NAMES, "nominal", 0.692), (FOUR, "nominal", 0.743), (FOUR, "interval", 0.849)],
)
def test_the_worked_examples(observers, level, alpha):
    result = agreement(units_of(observers), level)
    assert result.alpha == pytest.approx(alpha, abs=5e-4)
    assert result.low <= result.alpha <= result.high


def test_units_of_one_value_say_nothing():
    result = agreement(units_of(FOUR), "nominal")
    assert (result.units, result.values) == (11, 40)  # the twelfth unit has one value
    assert agreement([*units_of(FOUR), [9], []], "nominal") == result


def by_definition(units: list[list[float]], difference) -> float:
    """1 - D_o / D_e, summed over ordered pairs of values, as chapter 12 defines both."""
    pairable = [unit for unit in units if len(unit) > 1]
    values = [value for unit in pairable for value in unit]
    observed = sum(
        difference(one, other) / (len(unit) - 1) for unit in pairable for one, other in itertools.permutations(unit, 2)
    )
    expected = sum(difference(one, other) for one, other in itertools.permutations(values, 2)) / (len(values) - 1)
    return 1 - observed / expected


@pytest.mark.parametrize("seed", range(8))
def test_any_values_any_gaps_equal_the_definition(seed):
    random = np.random.default_rng(seed)
    units = []
    for _ in range(25):
        truth = random.integers(1, 6)
        noise = random.integers(-1, 2, random.integers(0, 5))
        units.append([int(np.clip(truth + step, 1, 5)) for step in noise])
    nominal = by_definition(units, lambda one, other: float(one != other))
    interval = by_definition(units, lambda one, other: float(one - other) ** 2)
    assert agreement(units, "nominal").alpha == pytest.approx(nominal)
    assert agreement(units, "interval").alpha == pytest.approx(interval)


def test_alpha_is_not_defined_without_two_values_that_differ():
    assert agreement([], "nominal") is None
    assert agreement([["a"], ["b"]], "nominal") is None
    assert agreement([["a", "a"], ["a", "a", "a"]], "nominal") is None


def test_full_agreement_is_one_and_random_values_are_about_none():
    assert agreement([["a", "a"], ["b", "b"]], "nominal").alpha == 1
    random = np.random.default_rng(0)
    result = agreement(random.integers(1, 6, (2000, 3)).tolist(), "interval")
    assert result.low < 0 < result.high
    assert abs(result.alpha) < 0.03


def test_the_interval_narrows_with_units_and_is_the_same_each_time():
    random = np.random.default_rng(0)

    def rated(count: int) -> list[list[int]]:
        truth = random.integers(0, 2, count)
        return [[int(value), int(value ^ (random.random() < 0.2))] for value in truth]

    few, many = agreement(rated(30), "nominal"), agreement(rated(1000), "nominal")
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.low < 0.6 < many.high  # 1 - 0.2 / 0.5
    units = rated(30)
    assert agreement(units, "nominal") == agreement(units, "nominal")
