"""A contrastive run: full and with LoRA, saved as a folder that sentence-transformers opens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_kinds import save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.batch import CONTRASTIVE
from lmworks.run import mined_negatives
from lmworks.run.mined_negatives import FILE
from lmworks.text import corpus
from lmworks.text.beir import read_beir

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


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_decoder_learns_vectors_of_last_tokens_that_sentence_transformers_gives(tmp_path, method):
    decoder = save_tiny(tmp_path / "decoder")
    run = lmworks.tune(decoder, ROWS, task={"name": "contrastive"}, method=method, train=TRAIN, out=tmp_path / "run")
    losses = [point[1] for point in lmworks.report(run.folder)["curves"]["training"]]
    assert losses[-1] < losses[0]
    saved = run.model.save(tmp_path / "saved")
    peers = pytest.importorskip("sentence_transformers")
    texts = ["what is it", "a sky is blue and the sea", "who"]  # of several lengths, so that theirs pads
    opened = lmworks.load(run.folder)
    assert opened.pooling.modes == ("lasttoken",)
    expected = peers.SentenceTransformer(str(saved), device="cpu").encode(texts)
    np.testing.assert_allclose(opened.embed(texts), expected, atol=1e-5, rtol=0)


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


# Mined negatives

WORDS = ("i", "love", "my", "fresh", "apple", "in", "salad", "tea", "cat", "fruit")
MINING = {"name": "contrastive", "mined_negatives": 2, "mining_margin": 0.0}


def save_judged(folder: Path) -> Path:
    """Queries of two words; each document that holds the first of them answers it."""
    folder.mkdir()
    documents = {f"d{n}": f"{a} {b} {a}" for n, (a, b) in enumerate((a, b) for a in WORDS[:6] for b in WORDS[6:])}
    queries = {f"q{n}": f"{a} {b}" for n, (a, b) in enumerate((a, b) for a in WORDS[:6] for b in WORDS[:3])}
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    judged = [
        f"{query}\t{document}\t1\n"
        for query, asked in queries.items()
        for document, text in documents.items()
        if text.startswith(asked.split()[0] + " ")
    ]
    (folder / "qrels.tsv").write_text("".join(judged))
    return folder


def test_mined_negatives_of_judged_queries_are_never_judged_positives(encoder, tmp_path):
    folder = save_judged(tmp_path / "judged")
    lines: list[str] = []
    run = lmworks.tune(
        encoder, str(folder), task=MINING, method="full", train={**TRAIN, "steps": 2}, out=tmp_path / "run",
        say=lines.append,
    )  # fmt: skip
    data = read_beir(folder)
    answers = {
        data.queries[query]: {data.documents[document] for document in judged}
        for query, judged in data.judgements.items()
    }
    rows = [json.loads(line) for line in (run.folder / FILE).read_text().splitlines()]
    mined = [(row["source"], negative) for row in rows for negative in row["negatives"]]
    assert len(mined) > len(rows)
    assert not [pair for pair in mined if pair[1] in answers[pair[0]]]
    note = next(line for line in lines if line.startswith("hard negatives mined"))
    assert note.startswith(f"hard negatives mined: {len(mined)} for {len(rows)} rows among ")
    assert "left out as likely positives: " in note
    assert note in lmworks.report(run.folder)["run"]["notes"]


def test_a_killed_run_goes_on_with_the_same_negatives_and_losses(encoder, tmp_path):

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({**row, "negative": []}) + "\n" for row in ROWS))
    given = {
        "task": MINING, "method": "full", "train": {**TRAIN, "checkpoint_every": 2, "threads": 1},
        "evaluate": {"samples": 0},
    }  # fmt: skip
    data = {"source": str(tmp_path / "rows.jsonl")}
    whole = lmworks.tune(encoder, data, out=tmp_path / "whole", **given)
    program = f"""
import os, signal, lmworks
from lmworks.base.journal import RunFolder
write = RunFolder.write
def ends(self, event, **fields):
    if event == "step" and fields["step"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, event, **fields)
RunFolder.write = ends
lmworks.tune({str(encoder)!r}, {data!r}, out={str(tmp_path / "killed")!r}, **{given!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    killed = tmp_path / "killed"
    assert max(event["step"] for event in RunFolder(killed).events("step")) == 3
    assert lmworks.resume(killed).stopped == "finished"
    losses = [[(e["step"], e["loss"]) for e in RunFolder(run).events("step")] for run in (killed, whole.folder)]
    assert sorted(set(losses[0])) == losses[1]
    assert not RunFolder(killed).events("divergence")
    assert (killed / FILE).read_text() == (whole.folder / FILE).read_text()


def test_negatives_of_other_rows_and_settings_without_use_are_refused(encoder, tmp_path):
    table = corpus.read(ROWS)
    mined_negatives.write(table, tmp_path)
    assert mined_negatives.read(table, tmp_path).rows == table.rows
    with pytest.raises(InputError, match="of other rows"):
        mined_negatives.read(corpus.read([{**row, "anchor": "tea"} for row in ROWS]), tmp_path)
    (tmp_path / mined_negatives.FILE).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        mined_negatives.read(table, tmp_path)
    for task, fault in (
        ({"mining_margin": 0.2}, "nothing is mined"),
        ({"mined_negatives": 1, "mining_range_min": 5, "mining_range_max": 5}, "no rank is at least 5 and below 5"),
        ({"mined_negatives": 1, "mining_max_score": -1.0}, "no hard negative was found"),
    ):
        with pytest.raises(InputError, match=fault):
            lmworks.tune(encoder, ROWS, task={"name": "contrastive", **task}, train=TRAIN, out=tmp_path / "run")


def test_steps_in_which_a_pair_stands_alone_are_refused(encoder, tmp_path):
    pairs = [{"anchor": row["anchor"], "positive": row["positive"]} for row in ROWS]
    settings = {"task": {"name": "contrastive"}, "train": {**TRAIN, "steps": 1, "batch_size": 1}}
    with pytest.raises(InputError, match="no other text to tell it from"):
        lmworks.plan(encoder, pairs, **settings)
    assert lmworks.plan(encoder, ROWS, **settings)  # whose rows have negatives
