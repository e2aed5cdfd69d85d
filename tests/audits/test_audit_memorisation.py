"""What a run memorised, beside its base on the same rows; canaries are written by the command and found again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.audits import memorisation
from lmworks.audits.audit import JSON
from lmworks.audits.subject import open_subject
from lmworks.commands.main import main
from lmworks.run.memorisation import examples_of_run

ROWS = [{"prompt": f"Q{n}", "completion": f"{'abcdefgh'[n % 8]} {n * 37 % 101} {n * 53 % 97}"} for n in range(40)]


@pytest.fixture(scope="module", name="audited")
def _audited(tmp_path_factory):
    """A base, a run on rows with canaries, and an audit of both."""
    folder = tmp_path_factory.mktemp("memorisation")
    base = save_tiny(folder / "tiny")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    planted = folder / "planted.jsonl"
    assert main(["audit", "--plant", str(planted), "--data", str(rows), "--times", "6"]) == 0
    run = lmworks.tune(
        str(base),
        {"source": str(rows), "held_out": 10, "additional": [str(planted)]},
        method="full",
        out=folder / "run",
        train={"steps": 150, "evaluate_every": 150, "learning_rate": 1e-2, "batch_size": 16, "threads": 1,
               "precision": "float32"},
        evaluate={"task_rows": 0, "general_bytes": 0, "samples": 0},
    ).folder  # fmt: skip
    result = lmworks.audit(base, run, kinds="memorisation", out=folder / "out", rows=30)
    return base, run, result, folder


def test_a_run_memorised_what_its_base_does_not_know(audited):
    _, _, result, _ = audited
    (section,) = result.sections
    before, after = ({figure.name: figure for figure in part.figures} for part in section.parts)
    assert after["exposure.planted"].value > before["exposure.planted"].value + 3
    assert after["exposure.control"].value < 5
    assert after["verbatim.trained"].value > 0.5 > after["verbatim.held_out"].value
    assert before["verbatim.trained"].value == 0.0
    assert after["membership"].value > 0.8
    assert 0.2 < before["membership"].value < 0.8
    changes = section.changes()
    assert set(changes) == set(after)
    assert changes["membership"][1] > 0
    assert changes["membership"][0] == pytest.approx(after["membership"].value - before["membership"].value)


def test_the_loss_of_a_row_is_that_of_training(audited):
    _, run, _, _ = audited
    subject, model = open_subject(run, [].append), lmworks.load(run)
    examples, _ = examples_of_run(run, model)
    from lmworks.evaluate.scoring import row_losses

    losses = row_losses(model.network, examples).language
    ours = memorisation._loss(subject, examples)
    assert ours == pytest.approx(losses.nats / losses.targets, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("loss", "spans"),
    [([1, 1, 0, 1, 1], [(1, 2), (3, 5)]), ([0, 0], []), ([0, 1, 1], [(1, 3)]), ([1], [])],
)
def test_spans_with_loss_begin_after_the_first_token(loss, spans):
    assert memorisation._learned_spans(np.array(loss, dtype=bool)) == spans


def test_the_files_hold_what_was_measured(audited):
    _, _, result, folder = audited
    written = json.loads((folder / "out" / JSON).read_text(encoding="utf-8"))
    assert written == json.loads(result.json())
    figures = written["sections"][0]["models"][1]["figures"]
    assert all(figure["interval"][0] <= figure["value"] <= figure["interval"][1] for figure in figures)
    assert all(figure["does_not_say"] and figure["signature"] for figure in figures)
    page = (folder / "out" / "audit.html").read_text(encoding="utf-8")
    assert "membership by loss" in page
    assert "do not say" in page


def test_a_run_without_canaries_says_how_to_plant_them(tmp_path):
    rows = [{"text": f"{word} thing {n}", "label": word} for word in ("good", "bad") for n in range(30)]
    run = lmworks.tune("tfidf-logreg", rows, out=tmp_path / "run").folder
    (section,) = lmworks.audit(run, kinds=["memorisation"]).sections
    assert {figure.name for figure in section.parts[0].figures} == {"membership"}
    assert any("--plant" in reason for reason in section.parts[0].missing)
