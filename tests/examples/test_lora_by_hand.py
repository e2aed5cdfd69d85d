"""The example computes what the package computes, stays short, and its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.base.journal import RunFolder

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "lora_by_hand.py"


def test_its_losses_are_those_of_tune(tmp_path):
    model, data = save_tiny(tmp_path / "tiny"), save_questions(tmp_path / "faq.jsonl")
    by_hand = list(runpy.run_path(str(EXAMPLE))["train"](str(model), str(data)))
    values = settings()
    values["data"] |= {"source": str(data), "held_out": 0}
    values["train"] |= {"epochs": 1, "batch_size": 8, "schedule": "constant", "warmup": 0}
    run = lmworks.tune(str(model), values.pop("data"), out=tmp_path / "run", **values)
    tuned = [event["loss"] for event in RunFolder(run.folder).events("step")]
    assert by_hand == pytest.approx(tuned, abs=1e-5)
    assert by_hand[-1] < by_hand[0] - 0.01


def test_it_is_short_and_its_links_are_files():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    linked = re.findall(r"\b[a-z_]+/[a-z_]+\.py\b", text.replace("examples/lora_by_hand.py", ""))
    assert len(linked) > 10
    assert [path for path in linked if not (ROOT / "src" / "lmworks" / path).is_file()] == []
