"""Canaries that a model was trained on are exposed, others are not; completions that it learned are written again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.evaluate.exposure import exposure
from lmworks.evaluate.scoring import row_losses
from lmworks.run.memorisation import measure_exposure, measure_reproduction, rows_of_run
from lmworks.run.source import recipe_of
from lmworks.tasks.registry import task_class
from lmworks.text.canaries import make_canaries, plant
from lmworks.text.rows import Row, Table

KINDS = {
    "completion": [{"prompt": f"What is {n}?", "completion": f"It is {n}, of course."} for n in range(24)],
    "text": [{"text": f"Text {n} says that {n} and {n + 1} are here."} for n in range(24)],
    "chat": [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}, yes."}]}
        for n in range(24)
    ],
    "labels": [{"text": f"{word} thing {n}", "label": word} for word in ("good", "bad", "odd") for n in range(12)],
}


def train(rows: list[dict], out: Path, model: str | Path, steps: int = 60, rate: float = 1e-2, **more) -> Path:
    return lmworks.tune(
        str(model),
        {"source": rows, "held_out": 8},
        method="full",
        out=out,
        train={
            "steps": steps, "evaluate_every": steps, "learning_rate": rate, "batch_size": 8, "threads": 1,
            "precision": "float32",
        },
        evaluate={"task_rows": 0, "general_bytes": 0, "samples": 0},
        **more,
    ).folder  # fmt: skip


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize("kind", ["completion", "text", "chat"])
def test_planted_secrets_are_exposed_and_others_are_not(kind, tiny, tmp_path):
    planted, controls = make_canaries(kind, 2, seed=1), make_canaries(kind, 6, seed=2)
    rows = plant(KINDS[kind], planted, times=12)
    result = measure_exposure(train(rows, tmp_path / "run", tiny), [*planted, *controls], samples=60)
    assert [one.planted for one in result.canaries] == [12, 12, *[0] * 6]
    assert result.mean_planted > 5
    assert result.mean_control < 4
    assert result.mean_planted - result.mean_control > 3
    assert result.space_bits == pytest.approx(19.93, abs=0.01)
    json.dumps(dataclasses.asdict(result))


@pytest.mark.parametrize("kind", ["completion", "text", "chat"])
def test_secrets_are_ranked_by_the_loss_of_their_rows(kind, tiny, tmp_path):
    """The exposures are those of the losses of whole examples, whose beginning is the same for every secret."""
    run = train(KINDS[kind], tmp_path / "run", tiny, steps=2)
    (canary,) = make_canaries(kind, 1)
    secrets = [canary.secret, *canary.other_secrets(30)]
    recipe, model = recipe_of(RunFolder(run)), lmworks.load(run)
    task = task_class(recipe.task.name)(recipe.task, model.tokenizer, model.config)
    table = Table("rows", kind, [Row(canary.row(secret)) for secret in secrets])
    nats = row_losses(model.network, task.examples(table, recipe.data, model.context).items).language.nats
    result = measure_exposure(run, [canary], samples=30).canaries[0].exposure
    expected = exposure(nats[0], nats[1:], canary.space)
    assert result.rank == expected.rank
    assert result.bits == pytest.approx(expected.bits, abs=0.05)


@pytest.mark.parametrize(("task", "model"), [("classify", None), ("labels", None), (None, "tfidf-logreg")])
def test_planted_labels_are_exposed_by_every_kind_of_classifier(task, model, tiny, tmp_path):
    planted = make_canaries("labels", 6, labels=["good", "bad", "odd"])
    rows = plant(KINDS["labels"], planted, times=6)
    if model is None:
        run = train(rows, tmp_path / "run", tiny, task={"name": task})
    else:
        run = lmworks.tune(model, rows, out=tmp_path / "run").folder
    result = measure_exposure(run, planted)
    assert all(one.exposure.method == "enumeration" and one.exposure.samples == 2 for one in result.canaries)
    assert [one.planted for one in result.canaries] == [6] * 6
    assert result.mean_control is None
    assert result.mean_planted > result.expected


def test_completions_that_were_learned_are_written_again(tiny, tmp_path):
    rows = [{"prompt": f"Q{n}", "completion": f"{'abcdefgh'[n % 8]} {n * 37 % 101} {n * 53 % 97}"} for n in range(16)]
    run = train(rows, tmp_path / "run", tiny, steps=200)
    result = measure_reproduction(run)
    assert len(result.trained) == 8
    assert result.share_trained > 0.7
    assert result.share_held_out < 0.3
    for row in result.trained:
        assert row.is_same == row.written.startswith(row.expected)
    json.dumps(dataclasses.asdict(result))


def test_an_untrained_model_writes_none_again(tiny, tmp_path):
    result = measure_reproduction(train(KINDS["completion"], tmp_path / "run", tiny, steps=1, rate=1e-9), rows=5)
    assert result.share_trained == result.share_held_out == 0.0
    assert len(result.trained) == len(result.held_out) == 5


def test_texts_are_continued_after_their_first_tokens(tiny, tmp_path):
    run = train(KINDS["text"], tmp_path / "run", tiny, steps=1)
    result = measure_reproduction(run, rows=4, prefix_tokens=6, new_tokens=5)
    texts = [row.values["text"] for row in rows_of_run(run)[0].rows]
    for row in result.trained:
        assert any(text.startswith(row.prompt) and row.expected in text for text in texts)
        assert row.tokens == 5


def test_what_cannot_be_measured_is_refused(tiny, tmp_path):
    labels = train(KINDS["labels"], tmp_path / "labels", tiny, steps=1, task={"name": "labels"})
    with pytest.raises(InputError, match="teaches no completions"):
        measure_reproduction(labels)
    with pytest.raises(InputError, match="rows are of kind labels, the canaries of kind text"):
        measure_exposure(labels, make_canaries("text", 1))
    with pytest.raises(InputError, match="of one kind"):
        measure_exposure(labels, [])
    counts = lmworks.tune("tfidf-logreg", KINDS["labels"], out=tmp_path / "counts").folder
    with pytest.raises(InputError, match="writes no texts"):
        measure_reproduction(counts)
