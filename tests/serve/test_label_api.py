"""/v1/classify and /v1/rerank: what the library predicts, in vLLM's and Jina's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_kinds import save_classifier, save_encoder
from tiny_server import ask_json, open_tiny, running

from lmworks.baselines.tfidf import TextClassifier
from lmworks.families.sentence_pooling import SentencePooling, write_pooling
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.opening import open_saved_model

pytest.importorskip("uvicorn")

TEXTS = ["i love tea", "my cat", "fresh fruit salad"]
LONG = "i love eating fresh apples in my salad " * 4


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    encoder = save_encoder(folder / "encoder")
    write_pooling(encoder, SentencePooling(max_tokens=10), 32)
    worded = open_tiny(folder)
    worded.input_format = InputFormat(task="labels", kind="label", labels=("bad", "good"), template="off")
    return {
        "labels": open_saved_model(save_classifier(folder / "labels", ["bad", "fair", "good"])),
        "several": open_saved_model(
            save_classifier(folder / "several", ["tea", "cat"], problem_type="multi_label_classification")
        ),
        "value": open_saved_model(save_classifier(folder / "value", ["relevance"])),
        "vectors": open_saved_model(encoder),
        "worded": worded,
        "counted": TextClassifier.fit(TEXTS * 2, ["tea", "cat", "fruit"] * 2),
    }


@pytest.fixture(name="url", scope="module")
def _url(models):
    with running(models) as url:
        yield url


@pytest.mark.parametrize("name", ["labels", "several", "worded", "counted"])
def test_labels_are_those_of_the_library(url, models, name):
    status, answer = ask_json(url, "/v1/classify", model=name, input=TEXTS)
    assert status == 200
    expected = models[name].predict(TEXTS)
    for number, (entry, prediction) in enumerate(zip(answer["data"], expected, strict=True)):
        assert (entry["index"], entry["label"]) == (number, prediction.label)
        assert entry["num_classes"] == len(entry["probs"]) == len(prediction.probabilities)
        told = dict(zip(entry["classes"], entry["probs"], strict=True))
        assert told == pytest.approx(prediction.probabilities, abs=1e-6)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    one = ask_json(url, "/v1/classify", model=name, input=TEXTS[1])[1]["data"]
    assert one[0]["probs"] == pytest.approx(answer["data"][1]["probs"], abs=1e-6)


def test_pairs_of_texts_are_read_and_regressions_give_values(url, models):
    pairs = [["i love tea", "my cat"], ["my cat", "fresh tea"]]
    data = ask_json(url, "/v1/classify", model="labels", input=pairs)[1]["data"]
    assert [entry["label"] for entry in data] == [one.label for one in models["labels"].predict(pairs)]
    data = ask_json(url, "/v1/classify", model="value", input=TEXTS)[1]["data"]
    values = [one.value for one in models["value"].predict(TEXTS)]
    assert [entry["value"] for entry in data] == pytest.approx(values, abs=1e-6)


def test_documents_are_ordered_by_a_cross_encoder(url, models):
    status, answer = ask_json(url, "/v1/rerank", model="value", query="my tea", documents=TEXTS)
    assert status == 200
    values = [one.value for one in models["value"].predict([("my tea", text) for text in TEXTS])]
    assert len(set(values)) == 3
    told = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert [told[index] for index in range(3)] == pytest.approx(values, abs=1e-6)
    scores = [entry["relevance_score"] for entry in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [entry["document"]["text"] for entry in answer["results"]] == [
        TEXTS[entry["index"]] for entry in answer["results"]
    ]


def test_documents_are_ordered_by_vectors(url, models):
    documents = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
    fields = {"query": "my cat", "documents": documents, "top_n": 2, "return_documents": False}
    results = ask_json(url, "/v1/rerank", model="vectors", **fields)[1]["results"]
    query, *vectors = models["vectors"].embed(["my cat", *TEXTS]).numpy()
    cosines = [vector @ query / np.linalg.norm(vector) / np.linalg.norm(query) for vector in vectors]
    assert [entry["index"] for entry in results] == np.argsort(cosines)[::-1][:2].tolist()
    assert results[0] == {"index": 1, "relevance_score": pytest.approx(1.0, abs=1e-5)}


@pytest.mark.parametrize(
    ("path", "fields", "param", "words"),
    [
        ("classify", {"model": "labels", "input": LONG}, "input", "tokens longer than the model reads"),
        ("classify", {"model": "labels", "input": []}, "input", "at most 2048 texts"),
        ("classify", {"model": "labels", "input": [["a", "b", "c"]]}, "input", "pairs of texts"),
        ("classify", {"model": "worded", "input": [["a", "b"]]}, "input", "labels single texts"),
        ("classify", {"model": "counted", "input": [["a", "b"]]}, "input", "labels single texts"),
        ("classify", {"model": "labels", "input": "tea", "truncate": True}, "truncate", "no field"),
        ("completions", {"model": "counted", "prompt": "tea"}, "model", "writes no texts"),
        ("embeddings", {"model": "counted", "input": "tea"}, "model", "gives no vectors"),
        ("classify", {"model": "vectors", "input": "tea"}, "model", "labels no texts"),
        ("rerank", {"model": "labels", "query": LONG, "documents": ["tea"]}, "query", "tokens"),
        ("rerank", {"model": "worded", "query": "a", "documents": ["tea"]}, "model", "vectors nor values"),
        ("rerank", {"model": "value", "query": "a", "documents": [LONG]}, "documents", "longer"),
        ("rerank", {"model": "vectors", "query": LONG, "documents": ["tea"]}, "query", "longer than the 10"),
        ("rerank", {"model": "value", "query": "a", "documents": []}, "documents", "at most 2048"),
        ("rerank", {"model": "value", "query": "a", "documents": ["b"], "top_n": 0}, "top_n", "greater"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(url, path, fields, param, words):
    status, answer = ask_json(url, f"/v1/{path}", **fields)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert words in answer["error"]["message"]


def test_one_request_s_fault_is_not_another_s(url):
    """The long text comes in a later turn than the others of its list."""
    assert ask_json(url, "/v1/classify", model="labels", input=[*TEXTS * 200, LONG])[0] == 400
    assert ask_json(url, "/v1/classify", model="labels", input=TEXTS)[0] == 200


def test_a_classifier_by_counts_of_words_has_no_tokens(url):
    status, answer = ask_json(url, "/tokenize", model="counted", prompt="tea")
    assert (status, answer["error"]["param"]) == (400, "prompt")
    assert "/v1/classify" in answer["error"]["message"]
    assert ask_json(url, "/v1/classify", model="counted", input="i love tea")[1]["usage"]["prompt_tokens"] > 0


def test_a_saved_classifier_by_counts_of_words_is_served_by_the_command(tmp_path):
    from test_serve_command import serving

    folder = TextClassifier.fit(TEXTS * 2, ["tea", "cat", "fruit"] * 2).save(tmp_path / "counted")
    with serving(str(folder)) as (_, url):
        data = ask_json(url, "/v1/classify", model="counted", input=TEXTS)[1]["data"]
    assert [entry["label"] for entry in data] == ["tea", "cat", "fruit"]
