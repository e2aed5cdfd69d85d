"""What a benchmark runs follows from measured rates, and what it writes names no folders of the machine it ran on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import arms
import pytest

from lmworks.base import machine
from lmworks.base.probes import Rates

RATES = Rates(200.0, 0.0, 0.0, 25.0, 2, "2", 1.0, 1.0)


@pytest.mark.parametrize(
    ("bfloat16", "worth_running", "faster"),
    [(0.3, False, False), (150.0, True, False), (900.0, True, True)],
    ids=["emulated", "slower", "four times as fast"],
)
def test_bfloat16_follows_from_the_rates(
    bfloat16: float, worth_running: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "rates", lambda: replace(RATES, bfloat16=bfloat16))
    assert arms.worth_running("bfloat16") == worth_running
    assert arms.bfloat16_is_faster() == arms.worth_running("auto") == faster
    assert arms.worth_running("float32")


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        (f'File "{arms.ROOT}/src/lmworks/run/plan.py", line 7', 'File "src/lmworks/run/plan.py", line 7'),
        ("/opt/venv/lib/python3.11/site-packages/torch/nn.py:3", "torch/nn.py:3"),
        ("/data/someone/rows.jsonl: 3 rows", "rows.jsonl: 3 rows"),
        ("https://example.org/a/b and tok/s and a/b/c", "https://example.org/a/b and tok/s and a/b/c"),
    ],
)
def test_absolute_paths_are_shortened(text: str, shortened: str) -> None:
    assert arms.without_absolute_paths({"arm": [text, 1.5]}) == {"arm": [shortened, 1.5]}


def test_errors_and_results_hold_no_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "arm.py"
    script.write_text("raise FileNotFoundError(__file__)")
    with pytest.raises(arms.Failed) as failure:
        arms.run_arm(script, [])
    message = str(failure.value)
    assert "FileNotFoundError: arm.py" in message
    assert str(tmp_path) not in message
    assert sys.prefix not in message
    monkeypatch.setattr(arms, "RESULTS", tmp_path)
    result = arms.keep("trial", {"faults": {"arm": str(script)}})
    assert json.loads(result.read_text())["faults"] == {"arm": "arm.py"}
