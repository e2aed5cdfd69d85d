"""The card's part about a classifier says what the journal's part ``classification`` says."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from lmworks.evaluate.classification import multi_label_figures, single_label_figures, with_texts
from lmworks.reports import card, classification_page, page, terminal

LABELS = ["bad", "good <b>", "so so"]


def figures_of(
    probabilities: np.ndarray, classes: np.ndarray, labels: list[str] = LABELS, text: str = "A <b>text</b>, number"
) -> dict:
    rows = range(len(classes))
    compute = single_label_figures if classes.ndim == 1 else multi_label_figures
    figures = compute(probabilities, classes, labels)
    return with_texts(figures, probabilities, classes, [f"{text} {n}" for n in rows], [f"f.csv:{n + 2}" for n in rows])


def predictions(rows: int = 60, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores, classes = np.exp(rng.normal(size=(rows, labels))), rng.integers(labels, size=rows)
    scores[np.arange(rows), classes] *= 3
    return scores / scores.sum(axis=1, keepdims=True), classes


def events(after: dict, **before: object) -> list[dict]:
    start = {"event": "start", "time": 1.0, "model": "m", "data": "f.csv", "new": True, "task": {"name": "unknown"}}
    evaluations = [{"event": "evaluation", "when": "before", **before}] if before else []
    return [start, *evaluations, {"event": "evaluation", "when": "after", "classification": after}]


def printed(built: dict) -> str:
    console = Console(width=130, highlight=False)
    with console.capture() as capture:
        terminal.show(built, console)
    return capture.get()


def test_accuracy_has_an_interval_and_is_compared_in_pairs(make_run) -> None:
    probabilities, classes = predictions()
    after = figures_of(probabilities, classes)
    before = figures_of(np.tile([0.2, 0.5, 0.3], (60, 1)), classes)
    built = card.build(make_run(events(after, classification=before, name="majority class")))
    measures = {measure["key"]: measure for measure in built["measures"]}
    assert list(measures) == ["accuracy", "macro_f1", "micro_f1", "roc_auc", "calibration_error"]
    accuracy = measures["accuracy"]
    low, high = accuracy["after"]["interval"]
    assert low < accuracy["after"]["value"] == after["accuracy"] < high
    assert accuracy["verdict"] == "better"
    assert accuracy["change"]["value"] == pytest.approx(after["accuracy"] - before["accuracy"])
    assert built["compared"]["before_name"] == "majority class"
    assert "of the majority class" in built["summary"]
    assert "majority class" in printed(built)
    assert '<th scope="col">majority class</th>' in page.render(built)


def test_without_a_name_the_commonest_label_stands_beside_the_accuracy(make_run) -> None:
    probabilities, classes = predictions()
    part = figures_of(probabilities, classes)
    built = card.build(make_run(events(part, classification=part)))
    counts = np.bincount(classes)
    baseline = next(measure for measure in built["measures"] if measure["key"] == "accuracy")["baseline"]
    assert baseline == {"label": LABELS[int(counts.argmax())], "value": counts.max() / 60}
    assert "the commonest label alone" in printed(built)


def test_matrix_mistakes_and_words_are_shown(make_run) -> None:
    probabilities, classes = predictions()
    part = figures_of(probabilities, classes) | {"heaviest_words": {"bad": [["awful", 2.0], [" bo", 1.0]]}}
    built = card.build(make_run(events(part)))
    assert built["classification"]["confusion"] == part["confusion"]
    shown = printed(built)
    for row, label in zip(part["confusion"], LABELS, strict=True):
        assert re.search(rf"{re.escape(label)} +" + " +".join(map(str, row)), shown)
    first = part["mistakes"][0]
    assert first["text"] in shown
    assert first["label"] != first["predicted"]
    assert first["probability"] == max(mistake["probability"] for mistake in part["mistakes"])
    assert "awful, ' bo'" in shown
    html = page.render(built)
    assert "A &lt;b&gt;text&lt;/b&gt;" in html
    assert "<b>text" not in html
    assert first["place"] in html


def test_the_pictures_are_whole_svg(make_run) -> None:
    probabilities, classes = predictions()
    built = card.build(make_run(events(figures_of(probabilities, classes))))
    pictures = re.findall(r"<svg.*?</svg>", classification_page.render(built["classification"]), re.DOTALL)
    matrix, reliability = map(ElementTree.fromstring, pictures)
    counts = [int(cell.text) for cell in matrix.iter("text") if cell.get("class", "").startswith("count")]
    assert counts == [count for row in built["classification"]["confusion"] for count in row]
    assert len(list(reliability.iter("circle"))) == len(built["classification"]["calibration"])


def test_of_many_classes_the_most_frequent_confusions_are_listed(make_run) -> None:
    labels = [f"label {n:02}" for n in range(20)]
    probabilities, classes = predictions(300, 20)
    part = figures_of(probabilities, classes, labels)
    built = card.build(make_run(events(part)))
    confusion = np.array(part["confusion"])
    np.fill_diagonal(confusion, 0)
    first = built["classification"]["confusions"][0]
    assert first["rows"] == confusion.max()
    assert confusion[labels.index(first["label"]), labels.index(first["predicted"])] == confusion.max()
    assert "Most frequent confusions" in printed(built)
    assert "<svg" in page.render(built)  # the reliability


def test_several_labels_a_text(make_run) -> None:
    rng = np.random.default_rng(2)
    classes = rng.random((40, 3)) < 0.5
    probabilities = np.clip(classes * 0.4 + rng.random((40, 3)) * 0.6, 0, 1)
    part = figures_of(probabilities, classes)
    built = card.build(make_run(events(part)))
    assert "Confusion matrix" not in printed(built)
    assert "Most confident mistakes" in page.render(built)
    wrong = part["mistakes"][0]
    number = int(wrong["text"].rpartition(" ")[2])
    assert wrong["label"] == ", ".join(label for label, has in zip(LABELS, classes[number], strict=True) if has)
    has = probabilities[number] >= 0.5
    assert wrong["predicted"] == ", ".join(label for label, is_in in zip(LABELS, has, strict=True) if is_in)


def test_other_runs_have_no_such_part(make_run) -> None:
    built = card.build(make_run())
    assert built["classification"] is None
    assert "Confusion" not in printed(built) + page.render(built)
