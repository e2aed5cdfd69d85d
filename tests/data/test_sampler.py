"""BatchSampler: every index once an epoch, the same order again, and on from any step."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.base.errors import InputError
from lmworks.data.sampler import BatchSampler


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_is_every_index_once(count, batch_size, seed):
    steps = list(BatchSampler(count, batch_size, seed, epochs=2))
    assert len(steps) == len(BatchSampler(count, batch_size, seed, epochs=2)) == 2 * -(-count // batch_size)
    for epoch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
        assert sorted(index for step in epoch for index in step) == list(range(count))
        assert all(len(step) == batch_size for step in epoch[:-1])


def test_epochs_differ_and_seeds_decide():
    first = list(BatchSampler(50, 50, 3, epochs=2))
    assert first == list(BatchSampler(50, 50, 3, epochs=2))
    assert first[0] != first[1]
    assert first != list(BatchSampler(50, 50, 4, epochs=2))


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 25))
def test_resumed_is_never_stopped(count, batch_size, done):
    whole = BatchSampler(count, batch_size, 1, steps=25)
    steps = iter(whole)
    for _ in range(done):
        next(steps)
    state = json.loads(json.dumps(whole.state()))
    again = BatchSampler(count, batch_size, 1, steps=25)
    again.restore(state)
    assert list(again) == list(steps)


def test_part_of_an_epoch():
    assert list(BatchSampler(10, 2, epochs=0.4)) == list(BatchSampler(10, 2, epochs=1))[:2]
    assert len(BatchSampler(10, 2, epochs=0.01)) == 1


@pytest.mark.parametrize(
    "wrong", [{"count": 0, "steps": 1}, {"batch_size": 0, "steps": 1}, {}, {"steps": 1, "epochs": 1}]
)
def test_what_is_no_stream_is_refused(wrong):
    with pytest.raises(InputError):
        BatchSampler(**{"count": 3, "batch_size": 1, **wrong})


def test_the_state_of_other_data_is_refused():
    state = BatchSampler(10, 2, 1, steps=3).state()
    for other in (BatchSampler(11, 2, 1, steps=3), BatchSampler(10, 3, 1, steps=3), BatchSampler(10, 2, 2, steps=3)):
        with pytest.raises(InputError, match="checkpoint was made with"):
            other.restore(state)


@given(st.integers(1, 9), st.integers(10, 30), st.integers(0, 3))
def test_a_step_larger_than_the_data_is_whole(count, batch_size, seed):
    steps = list(BatchSampler(count, batch_size, seed, steps=5))
    for step in steps:
        assert len(step) == batch_size
        times = [step.count(index) for index in range(count)]
        assert max(times) - min(times) <= 1
    resumed = BatchSampler(count, batch_size, seed, steps=5)
    resumed.restore({"step": 3, "count": count, "batch_size": batch_size, "seed": seed})
    assert list(resumed) == steps[3:]
    assert [len(step) for step in BatchSampler(count, batch_size, seed, epochs=2)] == [count, count]


@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 9))
def test_visits_are_those_of_all_steps(count, batch_size, steps):
    for length in ({"steps": steps}, {"epochs": steps / 4}):
        sampler = BatchSampler(count, batch_size, 2, **length)
        indices = [index for step in sampler for index in step]
        assert sampler.visits().tolist() == [indices.count(index) for index in range(count)]
