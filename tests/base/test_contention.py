"""The share of the processor that a measurement got, from what the system counts for each thread and processor."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmworks.base import contention
from lmworks.base.contention import ShareMeter


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets what the system says: seconds that the one thread ran and waited, and that the processor was busy."""
    (tmp_path / "tasks" / "1").mkdir(parents=True)
    monkeypatch.setattr(contention, "_TASKS", tmp_path / "tasks")
    monkeypatch.setattr(contention, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    own = [0.0]
    monkeypatch.setattr(contention, "_own_seconds", lambda: own[0])

    def say(ran: float, waited: float, busy: float) -> None:
        own[0] = ran
        (tmp_path / "tasks" / "1" / "schedstat").write_text(f"{round(ran * 1e9)} {round(waited * 1e9)} 7\n")
        ticks = round(busy * os.sysconf("SC_CLK_TCK"))
        (tmp_path / "stat").write_text(f"cpu  9 9 9 9 9 9 9 0\ncpu0 {ticks} 0 0 9 9 0 0 0\ncpu1 8 8 8 8 8 8 8 0\n")

    return say


@pytest.mark.parametrize(
    ("ran", "waited", "busy", "share"),
    [
        (4.0, 0.0, 4.0, 1.0),  # alone
        (4.0, 4.0, 8.0, 0.5),  # another program had the processor for as long
        (4.0, 4.0, 4.0, 1.0),  # its own threads waited for each other
        (1.0, 0.0, 9.0, 1.0),  # others ran on processors that it did not ask for
    ],
)
def test_what_waited_while_others_ran_is_their_share(system, ran, waited, busy, share):
    system(10.0, 3.0, 20.0)
    meter = ShareMeter(2)
    system(10.0 + ran, 3.0 + waited, 20.0 + busy)
    assert meter.share() == share


@pytest.mark.parametrize(
    ("busy", "share"),
    [
        (6.0, 0.75),  # of 2 threads in 4 seconds
        (9.0, 1.0),  # more threads than were named
    ],
)
def test_where_nothing_is_counted_the_busy_time_serves(tmp_path, monkeypatch, busy, share):
    monkeypatch.setattr(contention, "_TASKS", tmp_path / "none")
    monkeypatch.setattr(contention, "_STAT", tmp_path / "none")
    own, clock = iter([10.0, 10.0 + busy]), iter([50.0, 54.0])
    monkeypatch.setattr(contention, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(contention, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    meter = ShareMeter(2)
    assert meter.share() == share
