"""Correlations are SciPy's, over all rows and over resampled ones; perplexity and bits follow from nats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lmworks.base.errors import InputError
from lmworks.evaluate.metric_registry import METRICS, score
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows

ROWS = 50


def made() -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(0)
    right = np.round(dice.normal(3, 1, ROWS), 1)  # rounded, so that some are equal
    return np.round(right + dice.normal(0, 1, ROWS), 1), right


def rows_of(predicted: np.ndarray, right: np.ndarray) -> PredictedRows:
    return PredictedRows([str(number) for number in predicted], [[str(number)] for number in right])


def measured(name: str, rows: PredictedRows) -> Measurement:
    return METRICS[name].measure(rows, MetricOptions())


@pytest.mark.parametrize(("name", "function"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_are_scipys(name: str, function) -> None:
    predicted, right = made()
    result = measured(name, rows_of(predicted, right))
    assert result.value == pytest.approx(function(predicted, right).statistic)
    assert result.figure.value == pytest.approx(result.value)
    dice = np.random.default_rng(1)
    for _ in range(4):
        places = dice.integers(0, ROWS, ROWS)
        weights = np.bincount(places, minlength=ROWS)[None].astype(float)
        expected = function(predicted[places], right[places]).statistic
        assert result.figure.resampled(weights)[0] == pytest.approx(expected)


def test_equal_numbers_have_no_correlation() -> None:
    result = measured("pearson", rows_of(np.ones(9), made()[1][:9]))
    assert math.isnan(result.value)
    assert "one side is the same" in result.notes[0]
    none = score("spearman", rows_of(np.ones(9), made()[1][:9]))
    assert none.value is None
    assert none.interval is None
    assert "always lie on a line" in measured("pearson", rows_of(np.arange(2), np.arange(2))).notes[0]


@pytest.mark.parametrize("text", ["the cat", "", "nan", "inf"])
def test_what_is_no_number_is_named_by_its_row(text: str) -> None:
    with pytest.raises(InputError, match="row 2: pearson compares numbers"):
        measured("pearson", PredictedRows(["1", text], [["1"], ["2"]]))


def test_perplexity_and_bits_are_of_all_units_together() -> None:
    nats, tokens, sizes = np.array([3.0, 8.0]), np.array([2.0, 3.0]), np.array([5.0, 11.0])
    likelihoods = {"nats": nats, "tokens": tokens, "bytes": sizes, "characters": sizes - 1}
    rows = PredictedRows(likelihoods=likelihoods, scored_by="backend:native|weights:Q8_0")
    assert measured("perplexity", rows).value == pytest.approx(math.exp(11 / 5))
    assert measured("bits_per_byte", rows).value == pytest.approx(11 / math.log(2) / 16)
    assert measured("bits_per_character", rows).value == pytest.approx(11 / math.log(2) / 14)
    signature = measured("perplexity", rows).signature
    assert str(signature) == "perplexity|per:tokens|scored:backend:native,weights:Q8_0|lmworks:1"


def test_missing_likelihoods_are_named() -> None:
    with pytest.raises(InputError, match="needs the field 'bytes'"):
        measured("bits_per_byte", PredictedRows(likelihoods={"nats": np.ones(2)}))
    with pytest.raises(InputError, match="divides by tokens"):
        measured("perplexity", PredictedRows(likelihoods={"nats": np.zeros(2), "tokens": np.zeros(2)}))
