"""Twenty kills at random moments of a real run, each resumed: the losses are those of a run never killed."""

import random
import subprocess
import sys
import time

import pytest
from tiny_model import save_questions

from lmworks.base.journal import RunFolder

KILLS = 20
OPTIONS = [
    *("--train.steps", "40", "--train.batch_size", "2", "--train.checkpoint_every", "3", "--lora.dropout", "0.05"),
    *("--data.held_out", "2", "--evaluate.task_rows", "0", "--evaluate.general_bytes", "0"),
]


def lmworks(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "lmworks.commands.main", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_run_of_the_real_model_killed_twenty_times(smollm2, tmp_path):
    data = save_questions(tmp_path / "faq.jsonl")
    start = ("tune", smollm2, data, *OPTIONS, "--out")
    begun = time.monotonic()
    assert lmworks(*start, tmp_path / "whole").wait() == 0
    whole_took = time.monotonic() - begun
    dice, killed, met = random.Random(time.time()), tmp_path / "killed", 0
    process = lmworks(*start, killed)
    for _ in range(KILLS):
        # some moments of a session's first half: opening, measuring, stepping, saving
        time.sleep(dice.uniform(0.2, max(4.0, whole_took / 4)))
        met += process.poll() is None
        process.kill()
        process.wait()
        started = (killed / "journal.jsonl").is_file() and RunFolder(killed).events("start")
        if not started:  # killed before it was a run: begun anew, as the message says
            subprocess.run(["rm", "-rf", str(killed)], check=True)
        process = lmworks("resume", killed) if started else lmworks(*start, killed)
    assert process.wait() == 0
    output = [[(e["step"], e["loss"]) for e in RunFolder(run).events("step")] for run in (killed, tmp_path / "whole")]
    assert [step for step, _ in output[0]] == list(range(1, 41))
    assert output[0] == output[1]
    assert not RunFolder(killed).events("divergence")
    print(f"{met} of {KILLS} kills met a living process")
    assert met >= KILLS // 2
