"""The parts of a peak are those of the process, and sum up to it."""

from __future__ import annotations

from lmworks.base.journal import RunFolder
from lmworks.base.machine import peak_memory, release_memory, resident_memory
from lmworks.train.loop import Hooks, train
from lmworks.train.settings import TrainSettings


def test_parts_sum_to_the_peak(make_network, make_examples, tmp_path) -> None:
    run = RunFolder.create(tmp_path / "run", "")
    settings = TrainSettings(precision="float32", steps=2, batch_size=4, recompute=1)
    train(make_network(), make_examples(), settings, run, Hooks(quiet=True))
    end = run.events("session_end")[-1]
    parts = end["peak_parts"]
    assert parts["stage"] in ("opening and measuring before", "training", "saving", "measuring on the way")
    assert sum(size for name, size in parts.items() if name != "stage") == end["peak_memory"]
    assert min(size for name, size in parts.items() if name != "stage") >= 0


def test_memory_is_read_and_given_back() -> None:
    held = resident_memory()
    assert 0 < held <= 1.05 * peak_memory()
    release_memory()
