"""What a machine does once is timed by its kind; nested work counts once, and what is short is not said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lmworks.base import preparation
from lmworks.base.preparation import FETCHING, MEASURING


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by two seconds each time it is read."""
    ticks: Iterator[int] = iter(range(0, 1000, 2))
    monkeypatch.setattr(preparation.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(preparation, "_seconds", {})


def test_work_inside_work_of_its_kind_counts_once() -> None:
    with preparation.timed(MEASURING), preparation.timed(MEASURING), preparation.timed(FETCHING):
        pass
    assert preparation.seconds() == {FETCHING: 2.0, MEASURING: 6.0}


def test_a_fault_ends_it_too() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="broke"), preparation.timed(FETCHING):
            raise ValueError("broke off")
    assert preparation.seconds() == {FETCHING: 4.0}


def test_only_what_came_since_is_said() -> None:
    with preparation.timed(FETCHING):
        pass
    earlier = preparation.seconds()
    with preparation.timed(MEASURING):
        pass
    assert preparation.seconds_since(earlier) == {MEASURING: 2.0}


def test_short_work_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "LEAST_SECONDS", 3.0)
    with preparation.timed(FETCHING):
        pass
    assert preparation.seconds_since({}) == {}
