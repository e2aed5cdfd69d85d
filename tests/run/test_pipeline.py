"""What a run says of its documents, the limit that it is measured by, and that runs take turns."""

import threading
import time

import numpy as np
import pytest
from rich.console import Console

from lmworks.base import machine
from lmworks.base.probes import Rates
from lmworks.data.batch import Example
from lmworks.kernels import product_rates
from lmworks.run import pipeline
from lmworks.run.setup import note_long_rows
from lmworks.train.progress import ABOVE_LIMIT, Sums, TrainingProgress
from lmworks.train.settings import TrainSettings

EMULATED = Rates(100.0, 2.0, 1.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)


@pytest.fixture(name="measured")
def _measured(monkeypatch):
    """Another processor's rates, and those that it gives when it is measured anew."""
    now, calls = [EMULATED], []

    def rates(refresh: bool = False) -> Rates:
        calls.append(refresh)
        if refresh:
            now[0] = Rates(250.0, 5.0, 1.0, 20.0, threads=2, torch="x", seconds=1.0, share=1.0)
        return now[0]

    monkeypatch.setattr(machine, "rates", rates)
    monkeypatch.setattr(product_rates, "best_rate", lambda precision: (0.0, ""))
    monkeypatch.setattr(product_rates, "product_rates", lambda shapes, refresh=False: calls.append((*shapes, refresh)))
    return calls


def documents(*lengths: int) -> list[Example]:
    return [Example(np.zeros(length, np.int32), np.ones(length, bool)) for length in lengths]


def test_documents_longer_than_a_row_are_said_once_with_their_number():
    settings = TrainSettings(row_tokens=16)
    assert note_long_rows(documents(3, 17), settings) == []
    (output,) = note_long_rows(documents(18, 3, 41), settings)
    assert "2 documents are longer than a row of 16 tokens" in output
    assert "up to 40 tokens" in output
    assert "1 document is" in note_long_rows(documents(18), settings)[0]
    assert note_long_rows(documents(18), TrainSettings(row_tokens=16, packing=False)) == []


def test_a_limit_that_was_passed_is_measured_anew_once(measured):
    assert pipeline._flops_limit("float32", 90e9) == 100e9
    assert measured == [False]
    assert pipeline._flops_limit("float32", 285e9) == 250e9
    assert measured == [False, False, (*product_rates.limit_shapes("float32"), True), True]


@pytest.mark.parametrize(("flops", "output"), [(50.0, "50% of this machine's limit"), (285.0, ABOVE_LIMIT)])
def test_the_progress_line_shows_no_more_than_all(flops, output, capsys):
    console = Console(width=200)
    with TrainingProgress(4, 100.0, console) as progress:
        for step in range(1, 5):
            progress.update(step, 1.0, lambda step=step: Sums(step, step, flops * step))
    shown = capsys.readouterr().out
    assert output in shown
    assert "285%" not in shown


def test_runs_of_one_process_take_turns(monkeypatch):
    """They share PyTorch's threads and random numbers."""
    inside, most = [], []

    def run(*_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    monkeypatch.setattr(pipeline, "_run_new", run)
    threads = [threading.Thread(target=pipeline.run_recipe, args=(None,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
