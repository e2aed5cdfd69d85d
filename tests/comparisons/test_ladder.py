"""Ladders of language models: every rung scores the same bytes; a killed ladder goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_presets import sentences

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.comparisons import ladder, ladder_page, processes
from lmworks.comparisons.ladder_report import remarks
from lmworks.comparisons.ladder_settings import STATE, LadderSettings, LadderState
from lmworks.comparisons.language import LanguageLadderTask, documents_of, pieces, scored_texts
from lmworks.comparisons.pacing import RunOverhead
from lmworks.comparisons.rungs import CLASSIFY, LANGUAGE
from lmworks.text import corpus
from lmworks.train.time_limit import TimeLimit

NETWORKS = [rung.name for rung in LANGUAGE if rung.kind == "trained"]
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 32}
TRANSFORMER = {**TINY, "num_attention_heads": 2, "intermediate_size": 32}
CHANGES = {
    name: {"model": TRANSFORMER if "transformer" in name else TINY, "train": {"batch_size": 64, "epochs": 6}}
    for name in NETWORKS
}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    messages = sentences(240)
    path.write_text("\n\n".join(" ".join(messages[n : n + 4]) for n in range(0, 240, 4)))
    return path


def settings_of(text: Path, **changes) -> LadderSettings:
    values = {
        "source": str(text),
        "budget": 1000.0,  # more than six passes take: the passes end each run
        "data": {"document": "paragraph", "held_out": 0.2},
        "tokenizer": {"vocab_size": 300},
        "rung": CHANGES,
    }
    return LadderSettings.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def climbed(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ladders") / "all"
    ladder.run_ladder(settings_of(text), folder)
    return folder


def test_all_rungs_score_the_same_bytes(climbed):
    state = LadderState.read(climbed)
    assert [step.name for step in state.steps] == [rung.name for rung in LANGUAGE]
    assert {step.state for step in state.steps} == {"done"}
    held_out = corpus.split(corpus.read(str(climbed / "texts.jsonl")), state.settings.data)[1]
    texts, unit = scored_texts([row.values["text"] for row in held_out.rows])
    assert unit == "documents"
    assert state.compared["bytes"] == [len(text.encode()) for text in texts]
    for step in state.steps:
        scores = lmworks.load(climbed / step.folder).score(texts)
        assert [score.bytes for score in scores] == state.compared["bytes"]
        bits = sum(score.nats for score in scores) / 0.6931471805599453 / sum(state.compared["bytes"])
        assert bits == pytest.approx(step.value, rel=1e-5)
        assert step.interval[0] <= step.value <= step.interval[1]


def test_each_rung_is_worth_something(climbed):
    value = {step.name: step.value for step in LadderState.read(climbed).steps}
    assert value["uniform"] > value["unigram"] > value["trigram"]
    assert all(value[name] < value["uniform"] for name in NETWORKS)


def test_no_rung_trained_on_a_held_out_text(climbed):
    state = LadderState.read(climbed)
    table = corpus.read(str(climbed / "texts.jsonl"))
    train, held_out = corpus.split(table, state.settings.data)
    assert not {row.values["text"] for row in train.rows} & {row.values["text"] for row in held_out.rows}
    for step in state.steps:
        (data,) = RunFolder(climbed / step.folder).events("data")
        assert data["rows"] == len(train)
        assert data["held_out"] == len(held_out)
        assert not [e for e in RunFolder(climbed / step.folder).events("evaluation") if e["when"] == "step"]


def test_the_page_and_the_table_name_every_rung(climbed, capsys):
    page = (climbed / ladder_page.HTML).read_text()
    assert main(["ladder", "--out", str(climbed)]) == 0
    printed = capsys.readouterr().out
    for rung in LANGUAGE:
        assert rung.title in page
        assert rung.title in printed
    assert page.count('class="bar spot"') == 2 * len(LANGUAGE)  # for wide screens and for phones
    assert "http" not in page.replace("http-equiv", "")
    assert main(["ladder", "--out", str(climbed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((climbed / STATE).read_text())


def test_a_stopped_ladder_goes_on_where_it_was(text, tmp_path):
    settings, folder = settings_of(text, only=["uniform", "unigram", "trigram"]), tmp_path / "ladder"

    def stop(line: str) -> None:
        if line.startswith("rung 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ladder.run_ladder(settings, folder, stop)
    assert [step.state for step in LadderState.read(folder).steps] == ["done", "done", "open"]
    before = {path: path.read_bytes() for path in folder.glob("[12]-*/journal.jsonl")}
    lines: list[str] = []
    state = ladder.resume(folder, lines.append)
    assert [line for line in lines if line.startswith("rung")] == ["rung 3 of 3: trigram"]
    assert {step.state for step in state.steps} == {"done"}
    assert before == {path: path.read_bytes() for path in before}


def test_a_ladder_as_a_python_call(text, tmp_path):
    folder, data = tmp_path / "ladder", {"document": "paragraph"}
    climbed = lmworks.ladder(text, budget="1h", only=["uniform", "trigram"], out=folder, data=data)
    assert climbed.state.settings.budget == 3600.0
    assert [row.title for row in climbed.rows] == ["uniform", "trigram"]
    assert climbed.best is climbed.rows[1]
    assert lmworks.load(climbed.folder / climbed.best.folder).generate("A", max_tokens=2)
    assert "trigram" in climbed._repr_html_()
    assert "1 h 00 min" in climbed.remarks[0]
    assert lmworks.ladder(out=folder).rows == climbed.rows
    for wrong in ({"budget": "soon"}, {"task": "sing"}, {"steps": 3}):
        with pytest.raises(InputError):
            lmworks.ladder(text, out=tmp_path / "wrong", **wrong)
    with pytest.raises(InputError, match="folder of no ladder"):
        lmworks.ladder(out=tmp_path / "nothing")


def has_checkpoint(run: Path) -> bool:
    journal = run / "journal.jsonl"
    return journal.is_file() and '"checkpoint"' in journal.read_text()


def test_a_killed_run_is_resumed(text, tmp_path):
    folder = tmp_path / "ladder"
    changes = [f"--rung.rnn.model.{name}={value}" for name, value in TINY.items()]
    words = ["ladder", str(text), "--out", str(folder), "--only", "uniform,rnn", "--budget", "600", *changes]
    words += ["--data.document=paragraph", "--tokenizer.vocab_size=300", "--rung.rnn.train.batch_size=4"]
    words += ["--rung.rnn.train.checkpoint_every=10"]
    with subprocess.Popen(
        [sys.executable, "-m", "lmworks.commands.main", *words], stdout=subprocess.DEVNULL
    ) as process:
        run = folder / "5-rnn"
        while process.poll() is None and not has_checkpoint(run):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not RunFolder(run).events("finish")
    assert main(["resume", str(folder)]) == 0
    state = LadderState.read(folder)
    assert [step.state for step in state.steps] == ["done", "done"]
    events = RunFolder(run).events()
    assert [event["event"] for event in events].count("resume") == 1
    assert [event for event in events if event["event"] == "session"][-1]["from_step"] > 0
    assert not [event for event in events if event["event"] == "divergence"]


def test_a_rung_without_time_is_left_out_and_says_why(text, tmp_path):
    state = ladder.run_ladder(settings_of(text, budget=0.5, only=["uniform", "rnn"]), tmp_path / "ladder")
    assert [step.state for step in state.steps] == ["done", "left out"]
    assert "its share of the budget" in state.steps[1].reason
    assert "RNN is left out: its share" in (tmp_path / "ladder" / ladder_page.HTML).read_text()


@pytest.mark.parametrize("text", ["soon", "0", "-3", "10 days", ""])
def test_a_budget_that_is_none(text, tmp_path, capsys):
    assert main(["ladder", "x.txt", f"--budget={text}", "--out", str(tmp_path / "a")]) == 2
    assert "no duration: write for example 90s, 20m or 1h" in capsys.readouterr().err


def test_the_time_besides_training_is_that_of_the_rung_before(climbed):
    overhead = RunOverhead()
    assert overhead.training_seconds(10.0) == pytest.approx(7.0)
    run = climbed / "5-rnn"
    trained = sum(event["seconds"] for event in RunFolder(run).events("step") + RunFolder(run).events("length"))
    measuring = sum((RunFolder(run).events("start")[0].get("preparation") or {}).values())  # this machine, once
    overhead.record(run, trained + measuring + 4.0)
    assert overhead.training_seconds(10.0) == pytest.approx(6.0)
    assert overhead.training_seconds(3.0) < 0


def test_a_run_that_is_cut_short_says_so(text, tmp_path, monkeypatch):
    monkeypatch.setattr(TimeLimit, "is_over", property(lambda limit: True))
    few = ladder.run_ladder(settings_of(text, only=["uniform", "rnn"]), tmp_path / "few")
    assert re.search(r"bought 1 step; the fewest are 20", few.steps[1].reason)
    monkeypatch.setattr("lmworks.comparisons.pacing.MIN_TRAINED_STEPS", 1)
    state = ladder.run_ladder(settings_of(text, only=["uniform", "rnn"]), tmp_path / "ladder")
    (note,) = state.steps[1].notes
    assert re.fullmatch(r"stopped after 1 of \d+ planned steps, when its time was over", note)
    assert f"RNN: {note}" in remarks(state)
    report = lmworks.report(tmp_path / "ladder" / "5-rnn")
    assert any("its time was over (train.max_time)" in warning for warning in report["run"]["warnings"])


def test_a_network_with_too_few_steps_is_left_out_after_a_kill_too(text, tmp_path, monkeypatch):
    monkeypatch.setattr(TimeLimit, "is_over", property(lambda limit: True))
    folder = tmp_path / "ladder"
    whole = ladder.run_ladder(settings_of(text, only=["uniform", "rnn"]), folder)
    killed = LadderState.read(folder)  # as it was before the network's end was written
    killed.steps[1] = replace(killed.steps[1], state="open", reason="", seconds=0.0)
    killed.write(folder)
    resumed = ladder.resume(folder)
    assert [(step.state, step.reason) for step in resumed.steps] == [(step.state, step.reason) for step in whole.steps]
    assert resumed.steps[1].seconds >= resumed.steps[1].killed_seconds > 0


def test_one_process_at_a_time_works_on_a_ladder(text, climbed):
    with processes.locked(climbed), pytest.raises(InputError, match="another process"):
        ladder.resume(climbed)


def test_a_ladder_that_was_killed_while_it_read_the_data_reads_them_again(text, tmp_path, monkeypatch):
    folder, settings = tmp_path / "ladder", settings_of(text, only=["uniform"])

    def kill(self, train):
        (self.folder / "tokenizer").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LanguageLadderTask, "_make_tokenizer", kill)
        with pytest.raises(KeyboardInterrupt):
            ladder.run_ladder(settings, folder)
    resumed = ladder.resume(folder)
    whole = ladder.run_ladder(settings, tmp_path / "whole")
    assert resumed.notes == whole.notes
    assert resumed.steps[0].value == whole.steps[0].value


def test_the_hint_of_refused_data_works_with_the_same_folder(text, tmp_path, capsys):
    words = ["ladder", str(text), "--only", "uniform", "--out", str(tmp_path / "ladder"), "--data.document=paragraph"]
    assert main([*words, "--tokenizer.kind=byte-bpe", "--tokenizer.style=gpt2"]) == 2
    assert "--tokenizer.style llama" in capsys.readouterr().err
    assert main([*words, "--tokenizer.vocab_size=300"]) == 0


def test_what_cannot_be_compared(text, climbed, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    assert main(["ladder", str(short), "--out", str(tmp_path / "a")]) == 2
    assert "give more text" in capsys.readouterr().err
    assert main(["ladder", str(text), "--only", "gru", "--out", str(tmp_path / "b")]) == 2
    assert "no rung 'gru'" in capsys.readouterr().err
    assert main(["ladder"]) == 2
    assert main(["ladder", str(text), "--budget", "1m", "--out", str(climbed)]) == 2
    assert "keeps its settings" in capsys.readouterr().err
    with pytest.raises(InputError, match="folder of no ladder"):
        ladder.resume(tmp_path)


def test_questions_about_one_module_are_one_document():
    table = corpus.read("python-help")
    documents = documents_of(table)
    assert len(documents) == len({row.key for row in table.rows})
    assert sum(map(len, documents)) >= sum(len(row.values["completion"]) for row in table.rows)


def test_pieces_hold_the_whole_text():
    text = "".join(f"line {number} is here\n" for number in range(300))
    assert "".join(pieces(text)) == text
    assert len(pieces(text)) >= 6
    words = "one two three " * 100
    assert "".join(pieces(words)).split() == words.split()
    assert len(pieces(words)) >= 6


def test_names_of_rungs_differ():
    for rungs in (LANGUAGE, CLASSIFY):
        assert len({rung.name for rung in rungs}) == len(rungs)
