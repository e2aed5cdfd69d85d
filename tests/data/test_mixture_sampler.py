"""The order of training on several tasks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lmworks.base.errors import InputError
from lmworks.data.mixture import Mixture, MixtureSampler
from lmworks.data.sampler import BatchSampler

SIZES = (40, 9, 100)


def sampler(temperature: float = 1.0, **length: float) -> MixtureSampler:
    """Of three tasks."""
    mixture = Mixture(("a", "b", "c"), SIZES, (1.0, 1.0, 1.0), temperature)
    return MixtureSampler(mixture, 8, 3, **(length or {"epochs": 2.0}))  # type: ignore[arg-type]


def task_of(batch: list[int]) -> int:
    """The one task whose examples a batch has."""
    (task,) = {int(np.searchsorted(np.cumsum(SIZES), index, side="right")) for index in batch}
    return task


def test_a_batch_is_of_one_task_and_an_epoch_has_every_example_once() -> None:
    batches = list(sampler(epochs=1))
    assert sorted(itertools.chain(*batches)) == list(range(sum(SIZES)))
    assert [sum(task_of(batch) == task for batch in batches) for task in range(3)] == [5, 2, 13]
    assert [task_of(batch) for batch in batches] != sorted(task_of(batch) for batch in batches)


def test_shares_follow_the_published_formula() -> None:
    powers = np.sqrt(SIZES)
    expected = powers / powers.sum() * 20
    steps = Mixture(("a", "b", "c"), SIZES, (1.0,) * 3, 2.0).steps_of_epoch(8)
    assert steps.sum() == 20
    assert np.abs(steps - expected).max() < 1
    assert sorted(Mixture(("a", "b", "c"), SIZES, (1.0,) * 3, math.inf).steps_of_epoch(8)) == [6, 7, 7]


@pytest.mark.parametrize("temperature", [1.0, 2.0, math.inf])
def test_a_task_sees_the_batches_that_a_run_of_it_alone_sees(temperature: float) -> None:
    mixed = sampler(temperature, steps=50)
    batches = list(mixed)
    for task, (size, start) in enumerate(zip(SIZES, (0, 40, 49), strict=True)):
        own = [[index - start for index in batch] for batch in batches if task_of(batch) == task]
        assert len(own) == mixed.steps_by_task(50)[task]
        assert own == list(BatchSampler(size, 8, 3, steps=len(own)))


@pytest.mark.parametrize("step", [0, 1, 19, 20, 33])
def test_it_goes_on_where_it_was(step: int) -> None:
    whole = list(sampler(2.0))
    begun = sampler(2.0)
    list(itertools.islice(begun, step))
    again = sampler(2.0)
    again.restore(begun.state())
    assert list(again) == whole[step:]


def test_visits_count_every_index() -> None:
    mixed = sampler(2.0, steps=33)
    counts = np.bincount(list(itertools.chain(*mixed)), minlength=sum(SIZES))
    assert (sampler(2.0, steps=33).visits() == counts).all()


def test_the_state_of_other_tasks_is_refused() -> None:
    other = MixtureSampler(Mixture(("a",), (40,), (1.0,)), 8, 3, epochs=1)
    with pytest.raises(InputError, match="sizes"):
        sampler().restore(other.state())
