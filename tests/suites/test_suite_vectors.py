"""Benchmarks of vectors: cosines beside people's judgements, rankings of documents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_kinds import save_classifier, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.embeddings.search import evaluate_search
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.evaluation import BenchmarkResult, prepare, run_benchmark
from lmworks.suites.form import MAIN
from lmworks.suites.registry import choose
from lmworks.suites.settings import SuiteSettings
from lmworks.text.beir import read_beir

PAIRS = [("i love tea", "my tea", 3.0), ("my cat", "my cat", 5.0), ("fresh salad", "i eat", 1.5), ("tea", "cat", 0.0)]
DOCUMENTS = {"d1": "i love fresh tea", "d2": "my cat", "d3": "fruit salad in tea"}


@pytest.fixture(scope="module", name="encoder")
def _encoder(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_encoder(tmp_path_factory.mktemp("encoder") / "bert"))


def run(model, name: str, folder: Path, **settings) -> BenchmarkResult:
    chosen = SuiteSettings(**settings)
    return run_benchmark(prepare(choose(name)[0], folder, chosen), EvaluatedModel(model), chosen, lambda source: None)


@pytest.fixture(name="pairs")
def _pairs(tmp_path) -> Path:
    rows = "".join(f"2014\t{value}\t{first}\t{second}\n" for first, second, value in PAIRS)
    (tmp_path / "sts14_15_images.tsv").write_text(f"year\tscore\tsentence1\tsentence2\n{rows}")
    return tmp_path


def test_similarity_is_the_cosine_of_vectors(encoder, pairs) -> None:
    result = run(encoder, "sts-images", pairs)
    sides = [encoder.embed([pair[side] for pair in PAIRS], normalize=True).numpy() for side in (0, 1)]
    cosines = (sides[0] * sides[1]).sum(1)
    assert [answer.predictions[MAIN] for answer in result.answers.rows] == pytest.approx(cosines.tolist(), abs=1e-5)
    assert result.answers.rows[0].record["texts"][0] == encoder.tokenizer.encode("i love tea", special=True)
    spearman, pearson = result.scores
    values = [pair[2] for pair in PAIRS]
    assert spearman.value == pytest.approx(stats.spearmanr(cosines, values).statistic, abs=1e-5)
    assert pearson.value == pytest.approx(stats.pearsonr(cosines, values).statistic, abs=1e-4)


def test_a_decoder_has_vectors_too(pairs, tmp_path) -> None:
    model = lmworks.load(save_tiny(tmp_path / "llama"))
    assert run(model, "sts-images", pairs).by == "vectors"


def test_a_head_that_gives_values_is_asked_for_them(pairs, tmp_path) -> None:
    model = lmworks.load(save_classifier(tmp_path / "bert", ["similarity"], problem_type="regression"))
    result = run(model, "sts-images", pairs)
    expected = [prediction.value for prediction in model.predict([list(pair[:2]) for pair in PAIRS])]
    assert result.by == "values of a head"
    assert [answer.predictions[MAIN] for answer in result.answers.rows] == pytest.approx(expected)


@pytest.fixture(name="corpus")
def _corpus(tmp_path) -> Path:
    documents = [{"_id": name, "text": text} for name, text in DOCUMENTS.items()]
    queries = [{"_id": "q1", "text": "tea"}, {"_id": "q2", "text": "cat"}, {"_id": "unjudged", "text": "apple"}]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq2\td2\t1\n")
    return tmp_path


def test_retrieval_has_the_figures_of_search(encoder, corpus) -> None:
    result = run(encoder, "beir", corpus)
    expected = evaluate_search(encoder, read_beir(corpus)).means()
    assert {score.title: score.value for score in result.scores} == pytest.approx(
        {name: expected[name] for name in ("nDCG@10", "recall@10", "MRR")}
    )
    assert len(result.answers.rows) == 2
    assert sorted(result.answers.rows[0].predictions[MAIN]) == sorted(DOCUMENTS)
    assert dict(result.scores[0].signature.settings)["documents"] == "3"


def test_texts_longer_than_the_encoder_reads_are_counted(encoder, corpus) -> None:
    (corpus / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "tea " * 40}) + "\n")
    (corpus / "qrels.tsv").write_text("q1\td1\t1\n")
    assert any("1 of 1 texts cut to" in note for note in run(encoder, "beir", corpus).notes)


def test_a_limit_draws_queries_and_keeps_all_documents(encoder, corpus) -> None:
    result = run(encoder, "beir", corpus, limit=1)
    assert len(result.answers.rows) == 1
    assert dict(result.scores[0].signature.settings)["documents"] == "3"
    assert np.isfinite(result.scores[0].value)
