"""Vectors of the rows of files: those of sentence-transformers, in files that others read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from tiny_kinds import save_encoder

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.embeddings.texts import read_texts
from lmworks.embeddings.vectors import embed_texts
from lmworks.families.sentence_pooling import SentencePooling, write_pooling

TEXTS = ["i love tea", "my cat", "fresh fruit salad, apples in tea", "i", "i love eating fresh apples in my salad " * 3]


@pytest.fixture(name="encoder", scope="module")
def _encoder(tmp_path_factory) -> Path:
    """A sentence encoder that reads at most 10 tokens of a text."""
    folder = save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")
    write_pooling(folder, SentencePooling(max_tokens=10), 32)
    return folder


def test_mixed_lengths_give_the_vectors_of_sentence_transformers_and_long_texts_are_cut_as_there(encoder):
    peers = pytest.importorskip("sentence_transformers")
    expected = peers.SentenceTransformer(str(encoder), device="cpu").encode(TEXTS)
    model = lmworks.load(encoder)
    vectors = embed_texts(model, TEXTS)
    np.testing.assert_allclose(vectors.matrix, expected, atol=1e-5, rtol=0)
    assert (vectors.cut, vectors.limit) == (1, 10)
    with pytest.warns(UserWarning, match="1 of 5 texts were cut to 10 tokens"):
        np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5, rtol=0)


def test_the_real_encoder_on_texts_longer_than_it_reads():
    peers = pytest.importorskip("sentence_transformers")
    from lmworks.base.sources import find

    try:
        folder = Path(find("minilm-l6").path)
    except InputError as error:
        pytest.skip(f"the real model is not here: {error}")
    texts = ["The river bank was muddy.", "Hello world! " * 150, "Naïve façade — 東京 🙂", "unhappiness"]
    expected = peers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    vectors = embed_texts(lmworks.load(folder), texts)
    np.testing.assert_allclose(vectors.matrix, expected, atol=1e-5, rtol=0)
    assert vectors.cut == 1


def test_a_file_becomes_a_table_of_texts_places_and_vectors(encoder, tmp_path, capsys):
    data = tmp_path / "rows.csv"
    data.write_text("".join(["text,label\n", *(f"{text.strip()!r},a\n" for text in TEXTS[:2]), "my tea,b\n"]))
    out = tmp_path / "v.parquet"
    assert main(["embed", str(encoder), str(data), "--out", str(out), "--pooling", "last", "--no-normalize"]) == 0
    assert "3 texts in" in capsys.readouterr().err
    table = parquet.read_table(out)
    assert table.column("place").to_pylist() == [f"{data}:{line}" for line in (2, 3, 4)]
    assert table.schema.field("vector").type.list_size == 32
    texts = table.column("text").to_pylist()
    prepared = lmworks.load(encoder).prepare()
    expected = prepared.embed(texts, "lasttoken", normalize=False)
    assert np.array_equal(np.array(table.column("vector").to_pylist(), dtype=np.float32), expected.numpy())
    assert json.loads(table.schema.metadata[b"lmworks"])["pooling"] == "lasttoken"
    assert main(["embed", str(encoder), str(data), "--out", str(tmp_path / "v.npy"), "--pooling", "cls"]) == 0
    assert np.allclose(np.load(tmp_path / "v.npy"), prepared.embed(texts, "first"))


def test_nothing_is_written_when_a_row_cannot_be_read(encoder, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "my tea"}\n{"text": 3}\n')
    assert main(["embed", str(encoder), str(data), "--out", str(tmp_path / "v.npy")]) == 2
    assert f"{data}:2" in capsys.readouterr().err
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["one"], "a model and a file are needed"),
        (["ENCODER", "no-such.csv"], "no-such.csv"),
        (["ENCODER", "ENCODER", "--out", "v.txt"], "neither .npy nor .parquet"),
        (["i", "--model", "ENCODER", "--limit", "3"], "--limit"),
        (["i love tea", "--model", "ENCODER", "--max-tokens", "2"], "give at least 3"),
    ],
)
def test_what_cannot_be_is_refused(encoder, capsys, words, fault):
    assert main(["embed", *(str(encoder) if word == "ENCODER" else word for word in words)]) == 2
    assert fault in capsys.readouterr().err


def test_which_text_of_a_row_is_read(tmp_path):
    plain, pairs = tmp_path / "plain.txt", tmp_path / "pairs.jsonl"
    plain.write_text("one\n\ntwo\nstill two\n")
    rows = read_texts(plain)
    assert (rows.texts, rows.places) == (["one", "two\nstill two"], [f"{plain}:1", f"{plain}:3"])
    plain.write_text("one\ntwo\n")
    assert read_texts(plain).places == [f"{plain}:1", f"{plain}:2"]
    pairs.write_text('{"prompt": "who", "completion": "me"}\n')
    rows = read_texts(pairs)
    assert rows.texts == ["who"]
    assert any("prompt is read" in note for note in rows.notes)
    several = [{"text": f"tea {number}", "labels": ["hot", "green"][: number % 2 + 1]} for number in range(6)]
    assert read_texts(several).labels[:2] == ["hot", "hot, green"]
    two = [{"premise": f"tea {number}", "hypothesis": "hot", "label": "ab"[number % 2]} for number in range(6)]
    rows = read_texts(two)
    assert (rows.texts[0], rows.labels[:2]) == ("tea 0", ["a", "b"])
    assert "of two texts the first is read" in rows.notes
    with pytest.raises(InputError, match="conversation"):
        read_texts([{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}])
