"""fill, next and embed on a tiny encoder: what is printed, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_kinds import save_both, save_encoder

import lmworks
from lmworks.commands.main import main


@pytest.fixture(name="encoder", scope="module")
def _encoder(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def messages(capsys, *words: str) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_blanks_are_printed_as_tables_and_the_text_filled(encoder, capsys):
    text = "i love eating [MASK] in my ___ salad"
    filled = lmworks.load(encoder).fill(text, 3)
    lines = messages(capsys, "fill", text, "--model", encoder, "--top", "3").splitlines()
    assert lines[0] == "blank 1"
    assert lines[-1] == filled.text
    shown = [line.split() for line in lines if "%" in line]
    wanted = [(repr(piece), f"{value:.1%}") for blank in filled for piece, value in blank]
    assert [tuple(row[:2]) for row in shown] == wanted


def test_blanks_as_json(encoder, capsys):
    result = json.loads(messages(capsys, "fill", "i love ___", "--model", encoder, "--top", "2", "--json"))
    assert [len(blank) for blank in result["blanks"]] == [2]
    assert result["text"].startswith("i love")


def test_sentences_are_compared(encoder, capsys):
    words = ("next", "i love tea", "--sentence", "my cat", "--sentence", "fresh salad", "--model", encoder)
    lines = messages(capsys, *words).splitlines()
    model = lmworks.load(encoder)
    for sentence in ("my cat", "fresh salad"):
        wanted = f"{model.next_sentence('i love tea', sentence):.1%}"
        assert any(line.startswith(sentence) and wanted in line for line in lines)


def test_vectors_are_compared_and_written(encoder, capsys, tmp_path, monkeypatch):
    texts = ("i love tea", "my cat")
    vectors = lmworks.load(encoder).prepare().embed(texts)
    shown = messages(capsys, "embed", *texts, "--model", encoder, "--out", tmp_path / "v.npy")
    assert "shape: (2, 32)" in shown
    assert f"{float(vectors[0] @ vectors[1]):.3f}" in shown
    assert np.array_equal(np.load(tmp_path / "v.npy"), vectors.numpy())
    monkeypatch.setattr("sys.stdin", io.StringIO("i love tea\n\nmy cat\n"))
    result = json.loads(messages(capsys, "embed", "-", "--model", encoder, "--json"))
    assert [row["text"] for row in result] == list(texts)
    assert np.allclose([row["vector"] for row in result], vectors)
    shown = messages(capsys, "embed", texts[0], "--model", encoder, "--pooling", "none")
    assert shown.splitlines() == ["(5, 32)  i love tea", "  [CLS] | i | love | tea | [SEP]"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fill", "i love tea"], "write one as [MASK]"),
        (["embed", "i", "--pooling", "none", "--out", "v.npy"], "--pooling mean"),
        (["embed", "i", "--out", "v.txt"], "numpy"),
        (["next", "i love"], "lmworks fill"),
        (["translate", "i love"], "take an encoder-decoder"),
    ],
)
def test_what_cannot_be_is_refused_with_a_mend(encoder, capsys, words, hint):
    assert main([*words, "--model", str(encoder)]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("words", [["generate", "i love"], ["chat", "--ask", "i love"], ["score", "i love"]])
def test_an_encoder_neither_writes_nor_scores(encoder, capsys, words):
    assert main([words[0], str(encoder), *words[1:]]) == 2
    assert "lmworks fill" in capsys.readouterr().err


class TestTranslate:
    @pytest.fixture(name="both", scope="class")
    def _both(self, tmp_path_factory) -> Path:
        return save_both(tmp_path_factory.mktemp("both") / "tiny")

    def test_each_text_is_a_line(self, both, capsys, monkeypatch):
        model = lmworks.load(both)
        texts = ["i love tea", "my cat", "fresh salad"]
        wanted = model.translate(texts, num_beams=2, max_tokens=6)
        options = ("--model", both, "--num_beams", "2", "--max-tokens=6")
        assert messages(capsys, "translate", *texts, *options).splitlines() == wanted
        monkeypatch.setattr("sys.stdin", io.StringIO("i love tea\n\nmy cat\nfresh salad\n"))
        assert messages(capsys, "translate", "-", *options).splitlines() == [wanted[0], "", *wanted[1:]]
        monkeypatch.setattr("sys.stdin", io.StringIO("my cat\n"))
        assert messages(capsys, "translate", *options).splitlines() == wanted[1:2]

    def test_generate_answers_too_and_fill_writes_spans(self, both, capsys):
        model = lmworks.load(both)
        shown = messages(capsys, "generate", both, "i love tea", "--max-tokens", "6")
        assert shown == model.generate("i love tea", max_tokens=6) + "\n"
        shown = messages(capsys, "generate", both, "i love tea", "my cat", "--max-tokens", "6")
        assert shown == "".join(f"{text}\n\n" for text in model.generate(["i love tea", "my cat"], max_tokens=6))
        assert messages(capsys, "fill", "i love ___", "--model", both).splitlines()[-1] == model.fill("i love ___").text

    def test_settings_are_refused_before_the_model_is_opened(self, capsys):
        assert main(["translate", "i", "--model", "nowhere", "--num_beam", "2"]) == 2
        assert "num_beams" in capsys.readouterr().err
