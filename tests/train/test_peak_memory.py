"""The parts of a peak of memory are what was allocated, in the stage in which it was."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lmworks.base import process_memory
from lmworks.base.journal import RunFolder
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.peak_memory import BEFORE
from lmworks.train.settings import TrainSettings

MEGABYTE = 1_000_000


STAGES = """
import json, torch
from lmworks.train.peak_memory import PeakMemory
network = torch.nn.Linear(1000, 5000)  # 20 MB
optimizer = torch.optim.AdamW(network.parameters())
memory = PeakMemory(network)
memory.end_stage("saving")
first = memory.stage
network(torch.ones(1, 1000)).sum().backward()
optimizer.step()
activations = torch.ones(400_000_000 // 4)
memory.end_stage("training")
del activations
memory.end_stage("saving")
moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
weights = sum(weight.nbytes for weight in network.parameters())
print(json.dumps([first, memory.library_bytes, weights, memory.parts(network, moments)]))
"""


def test_a_stage_that_allocates_has_the_peak_and_its_parts() -> None:
    """In a process of its own: freed memory that another test left would be used first, and the peak not rise."""
    output = subprocess.run([sys.executable, "-c", STAGES], check=True, capture_output=True, text=True).stdout
    first, library, weights, output = json.loads(output)
    parts = output["peak_parts"]
    assert first == BEFORE
    assert parts["stage"] == "training"
    assert parts["weights"] == weights
    assert parts["library"] == library > 50 * MEGABYTE
    assert 3 * weights <= parts["optimizer"] < 3 * weights + 100  # two moments and a gradient; steps
    assert 380 * MEGABYTE < parts["activations"] < 480 * MEGABYTE
    assert output["peak_memory"] == sum(parts[name] for name in ("library", "weights", "optimizer", "activations"))


def test_a_run_writes_them(make_network, make_examples, tmp_path) -> None:
    run = RunFolder.create(tmp_path / "run", "")
    settings = TrainSettings(precision="float32", steps=2, batch_size=4, recompute=1)
    network = make_network()
    train(network, make_examples(), settings, run, Hooks(quiet=True, library_bytes=50 * MEGABYTE))
    end = run.events("session_end")[-1]
    parts = end["peak_parts"]
    assert (parts["library"], parts["weights"]) == (50 * MEGABYTE, sum(w.nbytes for w in network.parameters()))
    assert 50 * MEGABYTE + parts["weights"] < end["peak_memory"] <= process_memory.peak_memory()


FREED = """
import torch
from lmworks.base import process_memory
kept = process_memory.keep_memory()
blocks = [torch.ones(250_000) for _ in range(200)]
held = process_memory.resident_memory()
del blocks
freed = process_memory.resident_memory()
process_memory.release_memory()
print(int(kept), held, freed, process_memory.resident_memory(), process_memory.peak_memory())
"""


def test_freed_memory_is_kept_for_the_next_step_and_returned_on_request() -> None:
    words = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout.split()
    remaining, held, freed, released, peak = map(int, words)
    if not remaining:
        pytest.skip("another C library than glibc")
    assert held > 200 * MEGABYTE
    assert abs(peak - held) < MEGABYTE  # read from two places
    assert held - freed < 50 * MEGABYTE
    assert held - released > 150 * MEGABYTE
