"""Ladders of classifiers: the same held-out rows for all, and the classifier by averaged word vectors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.comparisons import ladder
from lmworks.comparisons.averaged_vectors import VECTORS, AveragedVectors
from lmworks.comparisons.ladder_report import remarks
from lmworks.comparisons.ladder_settings import LadderSettings, LadderState, RungState
from lmworks.comparisons.rungs import CLASSIFY

CHEAP = ["majority", "tfidf-nb", "tfidf-logreg", "tfidf-svm", "word-vectors"]
WORDS = {"good": ["fine", "lovely", "great", "warm"], "bad": ["dull", "cold", "poor", "awful"]}


def rows_of(count: int) -> list[tuple[str, str]]:
    dice = random.Random(0)
    rows = []
    for number in range(count):
        label = "good" if number % 3 else "bad"
        picked = [dice.choice(WORDS[label]), dice.choice(["film", "play", "book"]), str(number)]
        rows.append((f"a {picked[0]} and {dice.choice(WORDS[label])} {picked[1]}, number {picked[2]}", label))
    return rows


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows_of(150)))
    return path


@pytest.fixture(scope="module")
def climbed(labelled, tmp_path_factory) -> Path:
    pytest.importorskip("gensim")
    folder = tmp_path_factory.mktemp("ladders") / "cheap"
    settings = {"source": str(labelled), "only": CHEAP, "data": {"held_out": 0.3}}
    settings["rung"] = {"word-vectors": {"vector_size": 10}}
    ladder.run_ladder(LadderSettings.model_validate(settings), folder)
    return folder


def test_every_rung_predicts_the_same_rows(climbed):
    state = LadderState.read(climbed)
    assert state.settings.task == "classify"  # by the labels
    assert [(step.name, step.state) for step in state.steps] == [(name, "done") for name in CHEAP]
    assert {len(step.rows) for step in state.steps} == {state.compared["rows"]}
    for step in state.steps:
        assert step.value == pytest.approx(sum(step.rows) / len(step.rows))
        assert step.interval[0] <= step.value <= step.interval[1]
        assert step.parameters > 0
    value = {step.name: step.value for step in state.steps}
    assert value["majority"] < min(value["tfidf-logreg"], value["word-vectors"])


def test_the_figures_are_those_of_the_run(climbed):
    for step in LadderState.read(climbed).steps:
        if step.name != "word-vectors":
            model = lmworks.load(climbed / step.folder)
            event = RunFolder(climbed / step.folder).events("evaluation")[-1]["classification"]
            assert event["accuracy"] == pytest.approx(step.value)
            assert event["macro_f1"] == pytest.approx(step.macro_f1)
            assert step.parameters == model.parameters


def test_the_vectors_are_kept(climbed):
    (folder,) = climbed.glob("*-word-vectors")
    assert (folder / VECTORS).read_text().split()[1] == "10"


def test_the_table_has_its_columns(climbed, capsys):
    assert main(["ladder", "--out", str(climbed)]) == 0
    printed = capsys.readouterr().out
    assert "macro-F1" in printed
    assert "averaged word vectors" in printed


def test_averages_of_vectors_classify():
    pytest.importorskip("gensim")
    texts, labels = zip(*rows_of(120), strict=True)
    model = AveragedVectors.fit(texts[:90], labels[:90], vector_size=10)
    right = sum(one == other for one, other in zip(model.predict(texts[90:]), labels[90:], strict=True))
    assert right > 25
    assert model.labels == ["bad", "good"]
    with pytest.raises(InputError, match="same label"):
        AveragedVectors.fit(["a", "b"], ["x", "x"])


def test_fewer_rows_are_compared_with_the_same_rows_of_the_others():
    settings = LadderSettings.model_validate({"source": "x", "task": "classify"})
    first = RungState("majority", "majority class", "1", "done", value=0.5, rows=[1.0, 0.0, 0.0, 1.0])
    asked = RungState("decoder-prompt", "decoder", "2", "done", value=1.0, rows=[1.0])
    said = remarks(LadderState(settings, [first, asked], compared={"rows": 4}))
    assert "on the rows that decoder was asked: majority class 1.00" in said


def test_texts_without_labels_are_refused(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("only a text\n" * 30)
    assert main(["ladder", str(path), "--task", "classify", "--out", str(tmp_path / "a")]) == 2
    assert "no text with a label" in capsys.readouterr().err


def test_every_rung_of_a_network_has_a_model_that_there_is():
    from lmworks.base.sources import aliases
    from lmworks.run.recipe import is_preset

    for rung in CLASSIFY:
        if rung.kind in ("trained", "prompted"):
            assert is_preset(rung.model) or rung.model in aliases()
