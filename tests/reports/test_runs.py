"""lmworks runs: each run of a folder on a line, newest first; broken ones are named, none is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.reports import runs


@pytest.fixture(name="folder")
def _folder(make_run, run_events, tmp_path: Path) -> Path:
    """A finished run, an older one that was stopped with a checkpoint, and one that was stopped before any."""
    make_run(name="done")
    for name, started, checkpoint in (("stopped", 1_700_000_000.0, True), ("begun", 1_600_000_000.0, False)):
        events = run_events()[:20]
        events[0]["time"] = started
        path = make_run(events, name=name)
        if checkpoint:
            (path / "checkpoints" / "000010").mkdir(parents=True)
    return tmp_path


def test_each_run_has_its_state_and_its_figures(folder: Path) -> None:
    rows, faults = runs.overview(folder)
    assert faults == []
    assert [(row["name"], row["state"], row["progress"]) for row in rows] == [
        ("done", "finished", ""),
        ("stopped", "resumable", "15/120 steps"),
        ("begun", "interrupted", "15/120 steps"),
    ]
    done = rows[0]
    assert (done["model"], done["data"], done["method"]) == ("smollm2-135m-instruct", "python-help", "lora")
    assert done["headline"]["verdict"] == "better"
    assert done["headline"]["after"] > done["headline"]["before"]
    assert done["bytes"] == sum(file.stat().st_size for file in (folder / "done").iterdir())


def test_a_run_that_trained_to_its_end_says_that_it_is_measuring(make_run, run_events, tmp_path: Path) -> None:
    events = run_events()
    last = max(place for place, event in enumerate(events) if event["event"] == "step")
    make_run(events[: last + 1], name="measuring")
    (row,) = runs.overview(tmp_path)[0]
    assert row["progress"] == "120/120 steps, evaluating after"


def test_a_run_within_another_folder_is_named_by_its_path(folder: Path) -> None:
    (folder / "ladder").mkdir()
    (folder / "done").rename(folder / "ladder" / "9-encoder")
    assert runs.overview(folder)[0][0]["name"] == "ladder/9-encoder"
    assert runs.overview(folder / "ladder" / "9-encoder")[0][0]["name"] == "9-encoder"


def test_a_run_that_is_being_written_is_running(folder: Path) -> None:
    with RunFolder(folder / "stopped") as run:
        run.write("note")
        assert runs.overview(folder)[0][1]["state"] == "running"
    assert runs.overview(folder)[0][1]["state"] == "resumable"


@pytest.mark.parametrize("journal", ["damage\n{}\n", '{"event": "step"}\n', '{"event": "start", "plan": 3}\n'])
def test_broken_folders_are_named(folder: Path, capsys: pytest.CaptureFixture[str], journal: str) -> None:
    broken = folder / "broken"
    broken.mkdir()
    (broken / "journal.jsonl").write_text(journal, encoding="utf-8")
    (folder / "lost").mkdir()
    (folder / "lost" / "recipe.yaml").write_text("model: m\n", encoding="utf-8")
    assert main(["runs", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "broken" in shown.err
    assert "lost: has a recipe and no journal.jsonl" in shown.err
    assert all(name in shown.out for name in ("done", "stopped", "begun"))


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in shown["runs"]] == ["done", "stopped", "begun"]
    assert shown["faults"] == []


def test_no_runs_and_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such folder"):
        runs.overview(tmp_path / "nothing")


def test_reports_import_no_torch() -> None:
    names = ", ".join(f"lmworks.reports.{name}" for name in ("page", "terminal", "runs"))
    code = f"import sys, {names}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
