"""Search by meaning: the cosines themselves, the cache, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_kinds import save_encoder

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.embeddings import cache
from lmworks.embeddings.search import evaluate_search, rank, search
from lmworks.embeddings.texts import TextRows
from lmworks.text.beir import RetrievalData

TEXTS = ["i love tea", "my cat", "fresh fruit salad", "i love eating apples"]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vectors"


def rows() -> TextRows:
    return TextRows("rows", TEXTS, [f"rows:{number}" for number in range(1, 5)])


def test_hits_are_the_nearest_by_cosine_and_the_second_search_takes_the_cache(model, folder):
    cosines = (model.embed(TEXTS, normalize=True) @ model.embed("my tea", normalize=True)[0]).numpy()
    found = search(model, rows(), "my tea", 3)
    assert [hit.row for hit in found.hits] == list(np.argsort(-cosines)[:3])
    np.testing.assert_allclose([hit.score for hit in found.hits], np.sort(cosines)[::-1][:3], atol=1e-6)
    assert [hit.place for hit in found.hits] == [f"rows:{hit.row + 1}" for hit in found.hits]
    again = search(model, rows(), "my tea", 3)
    assert (found.cached, again.cached, again.hits) == (False, True, found.hits)
    assert len(list(folder.glob("*.npy"))) == 1


def test_other_texts_weights_or_poolings_are_not_taken_from_the_cache(model, folder):
    cache.cached_vectors(model, TEXTS)
    assert cache.cached_vectors(model, TEXTS[:3])[1] is not None
    assert cache.cached_vectors(model, TEXTS, "cls")[1] is not None
    bias = model.network.layers[0].mlp.up_proj.bias
    kept = bias.clone()
    with torch.no_grad():
        bias.add_(1)
        changed, made = cache.cached_vectors(model, TEXTS)
        bias.copy_(kept)
    assert made is not None
    assert not np.allclose(changed, cache.cached_vectors(model, TEXTS)[0])
    assert len(list(folder.glob("*.npy"))) == 4


def test_a_damaged_file_of_the_cache_is_made_again(model, folder):
    expected, _ = cache.cached_vectors(model, TEXTS)
    (path,) = folder.glob("*.npy")
    path.write_bytes(b"damaged")
    again, made = cache.cached_vectors(model, TEXTS)
    assert made is not None
    assert np.array_equal(again, expected)


def test_rankings_and_figures_of_judged_queries(model):
    unit = np.eye(3, dtype=np.float32)
    assert rank(["q"], unit[1:2], ["a", "b", "c"], unit) == {"q": ["b", "a", "c"]}
    data = RetrievalData("x", {"a": "my cat", "b": "i love tea"}, {"q": "my cat"}, {"q": {"a": 1}})
    assert evaluate_search(model, data).means() == dict.fromkeys(
        ("recall@1", "recall@5", "recall@10", "MRR", "nDCG@10"), 1.0
    )


@pytest.mark.parametrize(("query", "top", "fault"), [(" ", 3, "empty"), ("tea", 0, "at least 1")])
def test_what_cannot_be_searched_is_refused(model, query, top, fault):
    with pytest.raises(InputError) as caught:
        search(model, rows(), query, top)
    assert fault in str(caught.value)


def test_the_commands_print_places_figures_and_cosines(model, tmp_path, capsys):
    def printed(*words: object) -> str:
        assert main([*map(str, words), "--model", model.source]) == 0
        return capsys.readouterr().out

    data = tmp_path / "rows.txt"
    data.write_text("\n".join(TEXTS))
    lines = printed("search", data, "my cat", "--top", 1).splitlines()
    assert lines[-1].split() == ["1.000", f"{data}:2", "my", "cat"]
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "my cat"}\n{"_id": "b", "text": "tea"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "my cat"}\n')
    (tmp_path / "qrels.tsv").write_text("q\ta\t1\n")
    result = json.loads(printed("search", "--evaluate", tmp_path, "--json"))
    assert result["figures"]["nDCG@10"]["value"] == 1.0
    vectors = lmworks.load(model.source).prepare().embed(["my cat", "tea"], normalize=True)
    assert printed("similar", "my cat", "tea") == f"cosine {float(vectors[0] @ vectors[1]):.4f}\n"
    table = printed("similar", "--word", "tea", "i love tea", "fresh tea").splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == ["embedding layer", "block 1", "block 2"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["search", "one"], "a file and a query"),
        (["search", "--evaluate", "x", "y"], "give nothing else"),
        (["similar", "one"], "at least two texts"),
        (["similar", "--word", "cat", "a", "b", "c"], "two texts"),
    ],
)
def test_words_that_are_missing_are_named(capsys, words, fault):
    assert main(words) == 2
    assert fault in capsys.readouterr().err
