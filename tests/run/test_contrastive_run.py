"""A contrastive run: full and with LoRA, saved as a folder that sentence-transformers opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_kinds import save_encoder

import lmworks
from lmworks.base.errors import InputError
from lmworks.data.batch import CONTRASTIVE
from lmworks.text import corpus

ROWS = [
    {"anchor": f"{first} {second}", "positive": f"{second} in {first}", "negative": "salad"}
    for first in ("i", "love", "apple", "tea", "cat", "fruit")
    for second in ("my", "fresh", "in", "salad")
]
TRAIN = {"steps": 6, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32"}


@pytest.fixture(name="encoder", scope="module")
def _encoder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_pairs_come_nearer_and_the_result_opens_in_sentence_transformers(encoder, tmp_path, method):
    run = lmworks.tune(encoder, ROWS, task={"name": "contrastive"}, method=method, train=TRAIN, out=tmp_path / "run")
    card = lmworks.report(run.folder)
    losses = [point[1] for point in card["curves"]["training"]]
    assert losses[-1] < losses[0]
    assert {measure["key"] for measure in card["measures"]} == {"contrastive_accuracy", "held_out_loss"}
    saved = tmp_path / "saved"
    run.model.save(saved)
    peers = pytest.importorskip("sentence_transformers")
    texts = ["i love tea", "my cat", "fresh apples in my salad"]
    expected = peers.SentenceTransformer(str(saved), device="cpu").encode(texts)
    np.testing.assert_allclose(lmworks.load(run.folder).embed(texts), expected, atol=1e-5, rtol=0)
    assert not np.allclose(expected, lmworks.load(encoder).embed(texts), atol=1e-3)


def test_held_out_pairs_are_compared_with_all_others(encoder):
    from lmworks.evaluate.scoring import row_losses
    from lmworks.tasks.contrastive import Contrastive
    from lmworks.tasks.settings import TaskSettings

    model = lmworks.load(encoder)
    rows = [{"anchor": row["anchor"], "positive": row["positive"]} for row in ROWS[:8]]
    task = Contrastive(TaskSettings(name="contrastive", scale=5.0), model.tokenizer, model.config)
    examples = task.examples(corpus.read(rows), corpus.DataSettings(), 16)
    losses = row_losses(model.network, examples.items, 12).heads[CONTRASTIVE]
    first, second = (
        torch.nn.functional.normalize(model.embed([row[side] for row in rows], "mean"), dim=-1)
        for side in ("anchor", "positive")
    )
    scores = 5 * first @ second.T
    np.testing.assert_allclose(losses.nats, torch.logsumexp(scores, 1) - scores.diagonal(), atol=1e-4)
    assert losses.correct.tolist() == (scores.argmax(1) == torch.arange(8)).int().tolist()


def test_rows_of_triplets_and_folders_of_judged_queries_are_pairs(tmp_path):
    table = corpus.read([{"anchor": "a", "positive": "b", "hard_negatives": ["c", "d"]}])
    assert (table.kind, table.rows[0].values) == ("pairs", {"source": "a", "target": "b", "negatives": ["c", "d"]})
    with pytest.raises(InputError, match="is a int"):
        corpus.read([{"anchor": "a", "positive": "b", "negative": 3}])
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "tea"}\n{"_id": "d2", "text": "cat"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "drink"}\n')
    (tmp_path / "qrels.tsv").write_text("q1\td1\t1\nq1\td2\t0\n")
    table = corpus.read(tmp_path)
    assert [row.values for row in table.rows] == [{"source": "drink", "target": "tea"}]
    assert table.rows[0].key == "d1"


def test_long_texts_are_cut_left_out_or_refused(encoder):
    from lmworks.tasks.contrastive import Contrastive
    from lmworks.tasks.settings import TaskSettings

    model = lmworks.load(encoder)
    task = Contrastive(TaskSettings(name="contrastive"), model.tokenizer, model.config)
    table = corpus.read([{"anchor": "my cat", "positive": "i love " * 10}, {"anchor": "tea", "positive": "my tea"}])
    examples = task.examples(table, corpus.DataSettings(), 16)
    assert [example.lengths for example in examples.items] == [(4, 16), (3, 4)]
    assert examples.items[0].ids[-1] == model.tokenizer.closing[0]
    assert (examples.report.truncated, examples.report.dropped_tokens) == (1, 6)
    assert len(task.examples(table, corpus.DataSettings(on_long="skip"), 16)) == 1
    with pytest.raises(InputError, match="22 tokens long"):
        task.examples(table, corpus.DataSettings(on_long="stop"), 16)
