"""The processes of a comparison: interruptions of either side, and workers whose parent has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from lmworks.base.errors import InputError
from lmworks.comparisons import processes, worker
from lmworks.train import progress

NOTHING = {"model": "m", "data": {}, "contenders": {}}


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: what runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_is_done() -> None:
    assert processes.run_job("plan", **NOTHING) == {}


def test_the_progress_of_planning_is_shown(monkeypatch, capsys) -> None:
    def plan_of(name: str, groups: dict, job: dict) -> dict:
        if name == "full":
            raise InputError("takes too much memory", "full", "leave it out")
        return {"task": "classify"}

    monkeypatch.setattr(worker, "_plan_of", plan_of)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    plans = worker.plan({**NOTHING, "contenders": {"full": {}, "lora": {}, "ia3": {}}})
    assert ["reason" in plan for plan in plans.values()] == [True, False, False]
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["planning: contenders 1/3  0:00 left", "planning: contenders 2/3  0:00 left"]


def test_a_signal_to_the_session_alone_interrupts_it() -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        processes.run_job("plan", **NOTHING)  # which does nothing, in more than a second
    timer.join()


def test_a_worker_that_is_interrupted_while_it_starts_is_no_refusal(monkeypatch) -> None:
    def start(*args, **options) -> subprocess.Popen:
        process = popen(*args, **options)
        process.send_signal(signal.SIGINT)
        return process

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        processes.run_job("plan", **NOTHING)


def test_a_worker_ends_whose_parent_had_ended_before_it_began(tmp_path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    job, found = tmp_path / "job.json", tmp_path / "result.json"
    job.write_text(json.dumps({"work": "plan", "parent": ended.pid, **NOTHING}))
    worker = [sys.executable, "-m", "lmworks.comparisons.worker", str(job), str(found)]
    assert subprocess.run(worker, check=False, timeout=60).returncode == 0
    assert json.loads(found.read_text()) == {"stopped": "interrupted"}
