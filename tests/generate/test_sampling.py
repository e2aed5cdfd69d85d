"""Sampling follows the definitions, and transformers' own filters."""

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.generate.sampling import SamplingSettings, distribution, largest, pick


def logits_of(rows: int = 3, words: int = 50) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((rows, words)) * 3).astype(np.float32)


@pytest.mark.parametrize("settings", [{"num_beams": 100_000}, {"seed": 10**20}, {"temperature": float("inf")}])
def test_settings_that_no_machine_or_generator_takes_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        build(SamplingSettings, settings)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1, "top_k": 5}, [TopKLogitsWarper(5)]),
        ({"temperature": 1, "top_p": 0.8}, [TopPLogitsWarper(0.8)]),
        ({"temperature": 1, "min_p": 0.1}, [MinPLogitsWarper(0.1)]),
        ({"temperature": 1, "repetition_penalty": 1.3}, [RepetitionPenaltyLogitsProcessor(1.3)]),
        (
            {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
            [TemperatureLogitsWarper(1.5), TopKLogitsWarper(20), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02)],
        ),
    ],
)
def test_filters_equal_those_of_transformers(settings, theirs):
    logits, earlier = logits_of(), [[1, 2, 2], [3, 4, 5], [0, 0, 49]]
    ours = distribution(logits, SamplingSettings(**settings), earlier)
    wanted = LogitsProcessorList(theirs)(torch.tensor(earlier), torch.tensor(logits)).softmax(-1)
    torch.testing.assert_close(torch.from_numpy(ours), wanted)


def test_draws_have_the_distribution():
    settings = SamplingSettings(temperature=1, top_k=4)
    logits = logits_of(1, 8)
    wanted = distribution(logits, settings, [[]])[0]
    generator = np.random.default_rng(0)
    draws = [pick(logits, settings, [generator], [[]])[0] for _ in range(4000)]
    shares = np.bincount(draws, minlength=8) / len(draws)
    assert (shares[wanted == 0] == 0).all()
    np.testing.assert_allclose(shares, wanted, atol=0.03)


def test_a_row_draws_the_same_in_any_batch():
    settings, logits = SamplingSettings(temperature=1), logits_of()
    together = pick(logits, settings, [np.random.default_rng(5) for _ in range(3)], [[], [], []])
    alone = [pick(row[None], settings, [np.random.default_rng(5)], [[]])[0] for row in logits]
    assert together == alone


@pytest.mark.parametrize("top_p", [0.5, 0.999])
def test_top_p_of_a_large_vocabulary_is_that_of_transformers(top_p):
    logits = np.random.default_rng(1).standard_normal((2, 5000)).astype(np.float32)
    ours = distribution(logits, SamplingSettings(temperature=1, top_p=top_p), [[], []])
    wanted = TopPLogitsWarper(top_p)(None, torch.tensor(logits)).softmax(-1)
    torch.testing.assert_close(torch.from_numpy(ours), wanted)


def test_the_largest_come_first_and_equal_ones_in_order():
    values = np.array([1.0, 3.0, 2.0, 3.0, 0.0])
    assert largest(values, 3).tolist() == [1, 3, 2]
    assert largest(values, 9).tolist() == [1, 3, 2, 0, 4]
