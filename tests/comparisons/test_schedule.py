"""How the time of a comparison is divided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lmworks.base.errors import InputError
from lmworks.comparisons.schedule import Planned, RunTimes, divide, learning_rates, rounds, shorten

FAST = RunTimes(start=2.0, epoch=4.0, steps=100, validation=1.0, test=2.0, most_epochs=3.0)
SLOW = RunTimes(start=2.0, epoch=40.0, steps=100, validation=1.0, test=2.0, most_epochs=3.0)
COUNTED = RunTimes(start=5.0)


def test_a_search_halves_its_runs_and_ends_with_one():
    assert rounds(1) == []
    assert rounds(2) == [2, 1, 1]
    assert rounds(3) == [3, 2, 1]
    assert rounds(7) == [7, 4, 1]


def test_learning_rates_lie_around_the_default():
    assert learning_rates(1e-3, 1) == [1e-3]
    assert learning_rates(1e-3, 3) == [1e-3, 3.33e-4, 3e-3]
    assert len(set(learning_rates(2e-4, 7))) == 7


@pytest.mark.parametrize("budget", [300.0, 900.0, 100_000.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_parts_add_up_to_the_budget_and_nobody_gets_more_than_the_most(budget, seeds):
    times = {"counted": COUNTED, "fast": FAST, "slow": SLOW}
    lengths = divide(times, budget, 3, seeds)
    total = sum(length.seconds for length in lengths.values())
    full = all(lengths[name].epochs == times[name].most_epochs for name in ("fast", "slow"))
    assert total <= budget * 1.001
    assert full or total == pytest.approx(budget, rel=1e-3)
    assert lengths["counted"].epochs == 0
    for name in ("fast", "slow"):
        length, run_times = lengths[name], times[name]
        searched = 6 * (2.0 + 1.0) if length.searches else 0.0  # 3 + 2 + 1 runs start and are evaluated
        trained = seeds + (3 / 4 + 2 / 2 + 1 if length.searches else 0)  # of a quarter, half and all of the length
        final = seeds * (2.0 + 2.0)
        assert length.seconds == pytest.approx(searched + final + trained * length.epochs * run_times.epoch)


def test_time_that_one_cannot_use_goes_to_the_others():
    both = divide({"fast": FAST, "slow": SLOW}, 100.0, 1, 1)
    assert both["fast"].epochs == FAST.most_epochs
    assert both["slow"].seconds == pytest.approx(100.0 - both["fast"].seconds, rel=1e-3)


def test_without_time_for_a_search_all_of_it_goes_into_the_final_run():
    lengths = divide({"slow": SLOW}, 40.0, 3, 1)
    assert not lengths["slow"].searches
    assert lengths["slow"].epochs == pytest.approx((40.0 - 4.0) / 40.0, rel=1e-3)


@pytest.mark.parametrize(
    "times",
    [
        {"fast": FAST, "slow": SLOW, "counted": COUNTED},
        {"fast": FAST, "late": replace(FAST, measuring=150.0), "slow": SLOW},
    ],
    ids=["of one kind", "one that takes long besides its training"],
)
def test_a_budget_too_small_for_a_step_says_what_would_do(times):
    with pytest.raises(InputError, match="too little for 16 steps") as caught:
        divide(times, -20.0, 3, 1, spent=120.0)
    assert caught.value.fault.startswith("1 min 40 s are too little for 16 steps of each of ")
    assert caught.value.fault.endswith(" and planning, which took 2 min 00 s")
    minutes = int(caught.value.hint.split("--budget ")[1].split("m")[0])
    lengths = divide(times, minutes * 60 - 120.0, 3, 1)
    assert all(lengths[name].epochs * 100 >= 16 for name in times if name != "counted")


def test_a_slow_contender_gets_its_fewest_steps_and_the_others_what_is_left():
    late = replace(FAST, measuring=50.0)
    lengths = divide({"late": late, "slow": SLOW, "counted": COUNTED}, 75.0, 1, 1)
    assert lengths["late"].epochs * 100 == pytest.approx(16)
    assert lengths["slow"].seconds == pytest.approx(75.0 - lengths["late"].seconds - 5.0, rel=1e-3)
    assert lengths["slow"].epochs * 100 > 16


def test_a_budget_too_small_says_where_the_time_goes():
    late = replace(SLOW, test=200.0)
    times = {"counted": COUNTED, "fast": FAST, "late": late, "later": replace(late, measuring=100.0), "slow": SLOW}
    with pytest.raises(InputError, match="too little for 16 steps of each of 5 contenders") as caught:
        divide(times, 30.0, 3, 1, cheaper=["--data.limit 500", "--canaries 0"])
    said = caught.value.hint.partition("besides training most time goes to ")[2]
    assert said == "later 5 min 02 s, late 3 min 22 s, counted 5.0 s: less with --data.limit 500, --canaries 0"
    with pytest.raises(InputError) as caught:
        divide(times, 30.0, 3, 1)
    assert "less with" not in caught.value.hint


def planned(rest: float, epochs: float = 2.0) -> Planned:
    """A contender whose fewest steps take 1.6 seconds and whose whole length takes 20 or fewer."""
    return Planned(epochs, 100.0, 10.0, rest)


def test_lengths_that_fit_stay():
    assert shorten({"one": planned(5.0), "other": planned(7.0, 0.5)}, 40.0) == {"one": 2.0, "other": 0.5}


def test_lengths_that_do_not_fit_are_cut_to_the_seconds():
    given = {"one": planned(5.0), "other": planned(7.0, 1.0)}
    lengths = shorten(given, 27.0)
    assert sum(given[name].rest + 10.0 * epochs for name, epochs in lengths.items()) == pytest.approx(27.0)
    assert lengths["one"] > lengths["other"] > 0.16


def test_only_as_many_are_left_out_as_must_be_the_slowest_first():
    given = {"fast": planned(5.0), "slow": planned(20.0), "short": planned(6.0, 0.1)}
    assert set(shorten(given, 34.0)) == {"fast", "short"}
    assert set(shorten(given, 35.4)) == {"fast", "slow", "short"}
    assert shorten(given, 7.0) == pytest.approx({"fast": 0.2})
    assert shorten(given, 3.0) == {}
