"""Killed at any moment and resumed = never killed, bit for bit. The processes are real, and so is the killing."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmworks.base.files import sha256
from lmworks.base.journal import RunFolder
from lmworks.train import checkpoint

VICTIM = Path(__file__).parent / "victim.py"


def start(folder: Path, steps: int, threads: int, kind: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(VICTIM), str(folder), str(steps), str(threads), kind])


def size(folder: Path) -> int:
    journal = folder / "journal.jsonl"
    return journal.stat().st_size if journal.exists() else 0


def kill_after(process: subprocess.Popen, folder: Path, delay: float) -> bool:
    """Kill -9 some time after the process has written to its journal; False where it ended before."""
    before = size(folder)
    while process.poll() is None and size(folder) <= before:
        time.sleep(0.001)
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def check_equal(killed: RunFolder, whole: RunFolder, steps: int) -> None:
    """The same journal of steps, the same evaluations, the same last checkpoint."""
    output = [[(e["step"], e["loss"], e["gradient_norm"]) for e in run.events("step")] for run in (killed, whole)]
    assert [step for step, _, _ in output[0]] == list(range(1, steps + 1))
    assert output[0] == output[1]
    assert not killed.events("divergence")
    evaluations = [[(e["step"], e["held_out"]) for e in run.events("evaluation")] for run in (killed, whole)]
    assert evaluations[0] == evaluations[1]
    last = [run.checkpoints / f"checkpoint-{steps}" / "state.safetensors" for run in (killed, whole)]
    assert sha256(last[0]) == sha256(last[1])
    assert checkpoint.steps(killed) == checkpoint.steps(whole)
    assert not [path for path in killed.checkpoints.iterdir() if not path.name.startswith("checkpoint-")]


def compare(tmp_path: Path, steps: int, threads: int, kills: int, longest: float, seed: int, kind: str = "lora") -> int:
    """Run once whole and once killed again and again; gives how many kills met a living process."""
    assert start(tmp_path / "whole", steps, threads, kind).wait() == 0
    dice, met = random.Random(seed), 0
    folder = tmp_path / "killed"
    for _ in range(kills):
        met += kill_after(start(folder, steps, threads, kind), folder, dice.uniform(0, longest))
    assert start(folder, steps, threads, kind).wait() == 0
    check_equal(RunFolder(folder), RunFolder(tmp_path / "whole"), steps)
    return met


def test_killed_once_and_resumed_is_never_killed(tmp_path):
    assert compare(tmp_path, steps=40, threads=1, kills=1, longest=0.1, seed=1) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["lora", "masked", "spans"])
def test_twenty_kills_at_random_moments(tmp_path, kind):
    assert compare(tmp_path, 600, threads=2, kills=20, longest=0.3, seed=int(time.time()), kind=kind) >= 15
