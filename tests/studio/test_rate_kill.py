"""kill -9 of a whole studio while people rate loses no rating, and its answers are not made again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from rating_studio import FIRST, PROMPTS, SECOND, Studio
from tiny_model import save_tiny

from lmworks.ratings.blind_test import ANSWERS, BlindTest

ADDRESS = re.compile(r"(http://\S+)/studio\?token=(\S+)")


def wait_for(studio: Studio) -> None:
    """Wait until it answers: the address is printed a moment before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError):
            studio.ask("tests")
            return
        time.sleep(0.05)
    raise AssertionError("the studio does not answer")


@contextmanager
def command(folder: Path) -> Iterator[tuple[Studio, subprocess.Popen]]:
    """``lmworks studio`` on a folder; its client and its process, which is killed at the end."""
    words = [sys.executable, "-m", "lmworks.commands.main", "studio", "--folder", str(folder), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        found = next((match for line in process.stdout if (match := ADDRESS.search(line))), None)
        assert found is not None, "the studio printed no address"
        studio = Studio(*found.groups())
        wait_for(studio)
        yield studio, process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_killed_studio_loses_no_rating_and_makes_no_answer_again(tmp_path):
    for seed, name in enumerate((FIRST, SECOND)):
        save_tiny(tmp_path / name, tied=False, seed=seed)
    kept = {}
    with command(tmp_path) as (studio, process):
        test = studio.make()
        state = studio.answered(test)
        assert (state["failure"], state["progress"]["missing"]) == (None, 0)
        for _ in range(3):
            prompt = studio.ask("next", {"test": test, "rater": "anna"})["prompt"]
            studio.ask("rating", {"test": test, "rater": "anna", "prompt": prompt, "best": [1]})
            kept[prompt] = [BlindTest(tmp_path / test).order(prompt, "anna")[1]]
        process.kill()
    answers = (tmp_path / test / ANSWERS).read_bytes()
    with command(tmp_path) as (studio, _):
        item = studio.ask("next", {"test": test, "rater": "anna"})
        assert item["prompt"] not in {None, *kept}
        assert item["progress"]["rated"] == 3
        studio.ask("answer", {"test": test})
        studio.answered(test)
        assert studio.ask("outcome", {"test": test})["raters"] == {"anna": 3}
    assert (tmp_path / test / ANSWERS).read_bytes() == answers
    assert len(answers.splitlines()) == 2 * len(PROMPTS)
    assert {rating.prompt: rating.best for rating in BlindTest(tmp_path / test).ratings()} == kept
