"""A folder in BEIR's layout is read, and its faults are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.text.beir import read_beir

CORPUS = '{"_id": "d1", "title": "Tea", "text": "i love tea"}\n{"_id": "d2", "text": "my cat"}\n'
QUERIES = '{"_id": "q1", "text": "tea"}\n{"_id": "q2", "text": "cat"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


def folder(path: Path, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS, split: str = "") -> Path:
    (path / "qrels").mkdir()
    (path / "corpus.jsonl").write_text(corpus)
    (path / "queries.jsonl").write_text(queries)
    (path / (f"qrels/{split}.tsv" if split else "qrels.tsv")).write_text(qrels)
    return path


@pytest.mark.parametrize("split", ["", "test"])
def test_titles_stand_before_texts_and_unjudged_queries_are_left_out(tmp_path, split):
    data = read_beir(folder(tmp_path, split=split))
    assert data.documents == {"d1": "Tea i love tea", "d2": "my cat"}
    assert data.queries == {"q1": "tea"}
    assert data.judgements == {"q1": {"d1": 1.0, "d2": 0.0}}


@pytest.mark.parametrize(
    ("parts", "place", "fault"),
    [
        ({"corpus": CORPUS + "{"}, "corpus.jsonl:3", "not JSON"),
        ({"corpus": CORPUS + CORPUS}, "corpus.jsonl:3", "a second text"),
        ({"corpus": '{"_id": 1, "text": "a"}'}, "corpus.jsonl:1", "no text"),
        ({"queries": '{"_id": "q1", "text": " "}'}, "queries.jsonl:1", "empty"),
        ({"queries": ""}, "queries.jsonl", "no row"),
        ({"qrels": "q1\td9\t1\n"}, "qrels.tsv:1", "no 'd9'"),
        ({"qrels": "q1 d1 1\n"}, "qrels.tsv:1", "1 fields"),
        ({"qrels": "q1\td1\tyes\n"}, "qrels.tsv:1", "no number"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, "qrels.tsv", "no judgement"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, parts, place, fault):
    with pytest.raises(InputError, match=fault) as caught:
        read_beir(folder(tmp_path, **parts))
    assert caught.value.place.endswith(place)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of retrieval data"):
        read_beir(tmp_path)
