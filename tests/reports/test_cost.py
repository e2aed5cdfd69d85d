"""What a run cost is what its journal says, whichever sessions it had."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_model import COMMON, QUESTIONS, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.reports.cost import GRAMS_PER_KWH, cost, grams_of_co2


def test_a_finished_run(make_run):
    result = cost(make_run())
    assert (result.parameters, result.trained_parameters) == (136_358_208, 1_843_200)
    assert (result.seconds, result.training_seconds) == (131.0, pytest.approx(108.0))
    assert result.tokens_per_second == pytest.approx(result.tokens / 108.0)
    assert (result.joules, result.energy_how, result.energy_covers) == (4800.0, "estimated", "training")
    assert result.grams_co2 == pytest.approx(4800.0 / 3.6e6 * GRAMS_PER_KWH)
    assert (result.flops, result.peak_memory, result.disk) == (14.9e12, 2_210_000_000, 7_391_220)
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_a_kilowatt_hour_has_the_grams_that_are_given(make_run):
    assert grams_of_co2(3.6e6, 50.0) == 50.0
    assert cost(make_run(), grams_per_kwh=0.0).grams_co2 == 0.0
    with pytest.raises(ValueError, match="less than none"):
        cost(make_run(name="other"), grams_per_kwh=-1.0)


def test_a_killed_session_took_as_much_per_second_as_the_others(make_run, run_events):
    whole = run_events()
    end = next(event for event in whole if event["event"] == "session_end")
    # the first half in a session that was killed, the second in one that ended
    end |= {"seconds": 54.0, "energy_joules": 2400.0, "energy_how": "measured"}
    half = next(place for place, event in enumerate(whole) if event.get("step") == 61)
    again = [{"event": "resume"}, {"event": "session", "from_step": 60, "steps": 120}]
    result = cost(make_run([*whole[:half], *again, *whole[half:]]))
    assert result.joules == pytest.approx(4800.0)
    assert result.energy_how == "estimated"
    assert "killed" in result.energy_note


def test_an_unfinished_run_says_what_it_has(make_run, run_events):
    result = cost(make_run(run_events()[:60]))
    assert result.joules is result.grams_co2 is result.disk is None
    assert result.tokens > 0


def test_runs_as_they_are_written(tmp_path: Path):
    folder = save_tiny(tmp_path / "tiny")
    run = lmworks.tune(str(folder), QUESTIONS, out=tmp_path / "run", **settings(COMMON + " train.steps=3"))
    result = cost(run.folder)
    steps = [json.loads(line) for line in (run.folder / "journal.jsonl").read_text().splitlines()]
    assert result.tokens == sum(event["tokens"] for event in steps if event["event"] == "step")
    assert result.trained_parameters < result.parameters
    assert result.disk == sum(file.stat().st_size for file in (run.folder / "final").rglob("*") if file.is_file())
    assert result.energy_covers == "training"
    assert None not in dataclasses.asdict(result).values()


def test_a_classifier_by_counts_of_words_has_a_cost_too(tmp_path: Path):
    rows = [{"text": word * 3, "label": word} for word in ("good ", "bad ") for _ in range(20)]
    result = cost(lmworks.tune("tfidf-logreg", rows, out=tmp_path / "run").folder)
    assert result.energy_covers == "the whole run"
    assert (result.tokens, result.flops) == (0, None)
    assert result.trained_parameters == result.parameters > 0
    assert result.training_seconds > 0


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"journal\.jsonl"):
        cost(tmp_path)
