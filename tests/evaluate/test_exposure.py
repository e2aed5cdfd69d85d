"""Exposure by its definition on spaces that are enumerated, and by the paper's approximations on larger ones."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from lmworks.evaluate.exposure import expected_exposure, exposure


def test_the_definition_by_enumeration():
    nats = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0, 8.0])
    for index, own in enumerate(nats):
        rank = sorted(nats).index(own) + 1
        result = exposure(own, np.delete(nats, index), len(nats))
        assert result.method == "enumeration"
        assert result.rank == rank
        assert result.bits == result.sampled == pytest.approx(math.log2(8) - math.log2(rank))


def test_the_likeliest_secret_has_all_bits_and_the_least_likely_none():
    others = np.arange(1.0, 64.0)
    assert exposure(0.0, others, 64).bits == 6.0
    assert exposure(99.0, others, 64).bits == 0.0


@pytest.mark.parametrize("space", [2, 5, 64])
def test_the_expectation_is_the_mean_over_all_ranks(space):
    nats = np.arange(space, dtype=float)
    every = [exposure(own, np.delete(nats, index), space).bits for index, own in enumerate(nats)]
    assert expected_exposure(space) == pytest.approx(np.mean(every))


def test_the_expectation_of_a_large_space_is_log2_e():
    assert expected_exposure(10**6) == pytest.approx(math.log2(math.e), abs=1e-4)


@pytest.mark.parametrize(("rank", "method", "error"), [(5000, "sampling", 0.3), (40, "distribution", 1.0)])
def test_approximations_are_near_the_exact_value(rank, method, error):
    random = np.random.default_rng(0)
    space = 2**14
    nats = np.sort(stats.skewnorm(3.0, 20.0, 2.0).rvs(space, random_state=random))
    own, all_others = nats[rank - 1], np.delete(nats, rank - 1)
    results = [exposure(own, random.choice(all_others, 300, replace=False), space) for _ in range(12)]
    assert {result.method for result in results} == {method}
    exact = math.log2(space) - math.log2(rank)
    assert np.median([abs(result.bits - exact) for result in results]) < error


def test_a_sample_alone_cannot_tell_more_than_its_size():
    others = np.random.default_rng(1).normal(30.0, 1.0, 255)
    result = exposure(5.0, others, 10**6)
    assert result.sampled == 8.0
    assert result.bits == result.space_bits == math.log2(10**6)


def test_a_wrong_distribution_is_seen():
    halves = np.concatenate([np.random.default_rng(2).normal(5.0, 0.1, 200), np.linspace(50, 51, 200)])
    assert exposure(4.0, halves, 10**6).fit_p_value < 1e-3


def test_a_model_that_tells_nothing_apart_exposes_nothing():
    assert exposure(4.0, np.full(50, 4.0), 10**6).bits == 0.0


def test_results_go_into_json():
    json.dumps(dataclasses.asdict(exposure(1.0, np.arange(30.0), 1000)))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="others at least"):
        exposure(1.0, [2.0, 3.0], 1000)
    with pytest.raises(ValueError, match="finite"):
        exposure(1.0, [2.0, 3.0, 4.0], 3)
    with pytest.raises(ValueError, match="finite"):
        exposure(math.nan, np.arange(30.0), 1000)
