"""Comparisons of tiny models: the same rows for all, kills that change nothing, errors before anything is trained."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.comparisons import comparison, processes, worker
from lmworks.comparisons.comparison_state import State
from lmworks.reports import card, facts

WORDS = {"good": ["fine", "lovely", "great", "warm"], "bad": ["dull", "cold", "poor", "awful"]}
BUDGET = ["--budget", "10m", "--rates", "2", "--train.batch_size", "16", "--data.held_out", "40"]
FAST = ["--train.threads", "1", "--train.epochs", "8"]
"""Two threads wait for each other most of the time where another process has as many; eight epochs allow a search."""
METHODS = "majority,tfidf-logreg,lora"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    dice, path = random.Random(0), tmp_path_factory.mktemp("data") / "rows.csv"
    rows = [("good" if number % 3 else "bad", number) for number in range(200)]
    lines = [
        f'"a {dice.choice(WORDS[label])} and {dice.choice(WORDS[label])} film, {number}",{label}\n'
        for label, number in rows
    ]
    path.write_text("text,label\n" + "".join(lines))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def words(model: Path, data: Path, out: Path) -> list[str]:
    return ["compare", str(model), str(data), "--methods", METHODS, "--out", str(out), *BUDGET]


@contextlib.contextmanager
def jobs_in_this_process() -> Iterator[None]:
    """Jobs are done here: to start a process for each takes most of the time of a comparison of tiny models. Those of
    test_comparison_of_texts have processes of their own, one of each kind."""

    def run_job(work: str, **job: Any) -> dict[str, Any]:
        patch.setattr(worker, "STARTED", time.monotonic())
        return json.loads(json.dumps(worker.WORK[work](json.loads(json.dumps(job)))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "run_job", run_job)
        yield


@pytest.fixture(scope="module")
def compared(model, labelled, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("comparisons") / "whole"
    with jobs_in_this_process():
        assert main([*words(model, labelled, out), *FAST, "--task", "classify"]) == 0
    return out


def table(folder: Path) -> list[tuple]:
    """What must not depend on time."""
    return [
        (result.name, result.state, result.value, result.interval, result.numerators, result.chosen, result.epochs)
        for result in State.read(folder).results
    ]


def test_all_contenders_are_measured_on_the_same_test_rows(compared):
    state = State.read(compared)
    assert [result.state for result in state.results] == ["done"] * 3
    assert {len(result.numerators) for result in state.results} == {state.row_counts["test"]} == {40}
    for result in state.results:
        assert result.value == pytest.approx(sum(result.numerators) / 40)
        assert result.interval[0] <= result.value <= result.interval[1]
        assert result.cost["disk"] > 0
        assert result.cost["peak_memory"] > 0
    trained = [result for result in state.results if result.kind == "trained"]
    assert [len(result.search) for result in trained] == [4]  # 2 + 1 + 1
    for result in trained:
        best = max(result.search, key=lambda trial: (trial.score, -trial.loss))
        assert (result.chosen["learning_rate"], result.chosen["epochs"]) == (best.learning_rate, best.epochs)


def test_the_recommendation_is_the_simplest_of_the_best(compared):
    state = State.read(compared)
    equal = [result.name for result in state.done if not result.difference.get("differs")]
    assert state.recommendation["name"] == next(name for name in METHODS.split(",") if name in equal)
    assert all(result.difference["p_holm"] >= result.difference["p"] for result in state.done if result.difference)
    assert (compared / "comparison.html").is_file()


def test_the_winner_trains_on_all_the_data(compared, tmp_path):
    assert main(["tune", "--like", str(compared), "--out", str(tmp_path / "run")]) == 0
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "held_out: 0" in recipe
    state, lines = State.read(compared), dict(facts.run_lines(card.build(tmp_path / "run")))
    recommended = next(own for own in state.done if own.name == state.recommendation["name"])
    assert lines["settings from"] == f"comparison {compared}: {recommended.title}"
    assert lines["expected of new rows"].startswith(
        f"{state.measure['title']} {figures.number(recommended.value)} (95 % interval"
    )
    assert lines["settings from"] in (tmp_path / "run" / "report.html").read_text()
    assert lmworks.load(tmp_path / "run").predict(["a fine film"])


def test_a_contender_can_be_added(compared, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(compared, folder)
    before = table(folder)
    with jobs_in_this_process():
        assert main(["compare", "--add", "tfidf-nb", str(folder)]) == 0
    assert table(folder)[:-1] == before
    assert table(folder)[-1][:2] == ("tfidf-nb", "done")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_kills_change_nothing(model, labelled, tmp_path):
    out, whole, dice = tmp_path / "killed", tmp_path / "whole", random.Random(1)
    command = [sys.executable, "-m", "lmworks.commands.main"]
    subprocess.run([*command, *words(model, labelled, whole), "--task", "classify"], check=True)
    start = [*command, *words(model, labelled, out), "--task", "classify"]
    for number in range(5):
        process = subprocess.Popen(start if number == 0 else [*command, "compare", "--out", str(out)])
        time.sleep(dice.uniform(12, 16) if number == 0 else dice.uniform(3, 9))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*command, "compare", "--out", str(out)], check=False).returncode == 0
    assert table(out) == table(whole)


def test_faults_are_found_before_anything_is_trained(model, labelled, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("text,label\n" + "".join(f"film {number},{['good', 'bad'][number % 2]}\n" for number in range(30)))
    for arguments, fault in (
        ({"methods": ["loro"]}, "no contender 'loro'"),
        ({"methods": ["nearest-answer"]}, "takes rows of kind"),
        ({"contender": {"x": {"method": "nothing"}}, "methods": ["x"]}, "no method 'nothing'"),
        ({"contender": {"lora": {"data": {"limit": 20}}}, "methods": ["lora"]}, "contenders share their rows"),
    ):
        with pytest.raises(InputError, match=fault):
            lmworks.compare(model, labelled, out=tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="too few to tell anything apart"):
        lmworks.compare(model, few, out=tmp_path / "out")
    with pytest.raises(InputError, match="too little for 16 steps") as caught:
        lmworks.compare(model, labelled, budget="1s", methods=["lora", "full"], out=tmp_path / "out", task="classify")
    assert "--budget" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_changed_rows_are_refused(compared, labelled, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(compared, folder)
    state = json.loads((folder / "comparison.json").read_text())
    state["results"][0]["state"] = "open"
    state["row_counts"]["digest"] = "another"
    (folder / "comparison.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="the data have changed"):
        comparison.resume(folder)
