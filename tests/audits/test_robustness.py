"""Labels and likelihoods after typing errors, in other case, for paraphrases, with labels in another order."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.audits import robustness
from lmworks.audits.part import Given
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import open_subject
from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.perturbations import perturb

ROWS = [
    {"text": f"what a {word} day number {n}", "label": label}
    for n in range(30)
    for word, label in (("wonderful", "good"), ("terrible", "bad"))
]


def figures_of(part) -> dict:
    return {figure.name: figure for figure in part.figures}


@pytest.fixture(scope="module", name="counts")
def _counts(tmp_path_factory):
    return lmworks.tune("tfidf-logreg", ROWS, out=tmp_path_factory.mktemp("counts") / "run").folder


def test_labels_change_with_errors_as_the_model_says(counts):
    subject = open_subject(counts, [].append)
    measured = figures_of(robustness.measure(subject, Given(AuditSettings(), corpus.read(ROWS))))
    model = lmworks.load(counts)
    texts = [row["text"] for row in ROWS]
    before = [one.label for one in model.predict(texts)]
    assert measured["accuracy"].value == 1.0
    for name in ("typos", "upper case", "lower case"):
        after = [one.label for one in model.predict([perturb(text, name, 0) for text in texts])]
        key = name.replace(" ", "_")
        changed = [one != other for one, other in zip(before, after, strict=True)]
        assert measured[f"{key}.changes"].value == np.mean(changed)
        right = [label == row["label"] for label, row in zip(after, ROWS, strict=True)]
        assert measured[f"{key}.accuracy"].value == np.mean(right)
    assert measured["upper_case.changes"].value == 0.0  # counts of words in lower case
    assert measured["typos.changes"].value > 0.0


def test_paraphrases_are_those_of_the_file(counts, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("text,paraphrase\na wonderful day,a terrible day\na terrible day,what a terrible day\n", "utf-8")
    part = robustness.measure(open_subject(counts, [].append), Given(AuditSettings(paraphrases=str(path))))
    assert figures_of(part)["paraphrases.changes"].value == 0.5
    assert any("typos and case" in reason for reason in part.missing)


def test_labels_in_words_are_asked_in_the_other_order(tmp_path):
    base = save_tiny(tmp_path / "tiny", context=512)
    run = lmworks.tune(
        str(base), {"source": ROWS, "held_out": 8}, task="labels", method="full", out=tmp_path / "run",
        train={"steps": 2, "threads": 1, "precision": "float32"},
        evaluate={"task_rows": 0, "general_bytes": 0, "samples": 0},
    ).folder  # fmt: skip
    result = lmworks.audit(base, run, kinds="robustness", rows=6)
    before, after = (figures_of(part) for part in result.sections[0].parts)
    assert "label_order.changes" in before
    assert "label_order.changes" in after
    assert any("in the words of the run" in note for note in result.notes)
    assert lmworks.load(run).input_format.labels == ("bad", "good")


def test_answers_become_less_likely_as_the_model_says(tmp_path):
    base = save_tiny(tmp_path / "tiny")
    rows = [{"prompt": f"Which number follows {n}?", "completion": f"It is {n + 1}."} for n in range(8)]
    subject = open_subject(base, [].append)
    measured = figures_of(robustness.measure(subject, Given(AuditSettings(), corpus.read(rows))))
    model = lmworks.load(base)

    def nats(change) -> float:
        """Nats per token of all answers."""
        total = tokens = 0.0
        for row in rows:
            from lmworks.language_model.inputs import conversation_of

            asked = [{"role": "user", "content": change(row["prompt"])}]
            answer = model.tokenizer.encode(row["completion"])
            ids = conversation_of(asked, model.tokenizer, None, None).ids
            total -= float(model.choice_likelihoods([ids], [[answer]])[0][0])
            tokens += len(answer)
        return total / tokens

    expected = nats(str.upper) - nats(str)
    assert measured["upper_case.nats"].value == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("content", ["text\na\n", "text,paraphrase\na,\n"])
def test_a_row_without_both_texts_is_refused(content, tmp_path):
    (tmp_path / "p.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="has no 'paraphrase'"):
        robustness.read_paraphrases(str(tmp_path / "p.csv"))
