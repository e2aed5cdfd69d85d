"""The published table: its metrics are those of the libraries, its arms train the same weights on the same texts."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import published_adaptation as published
import published_arms
import published_work as work
import pytest
import text_metrics
import torch
from tiny_model import save_tiny
from tiny_presets import sentences

import lmworks
from lmworks.families.folder import open_tokenizer
from lmworks.run import forgetting

REFERENCES = [
    "The cat saw the moon.\nA dog found three apples.",
    "My sister likes the river.",
    "café au lait , s'il vous plaît",
]
PREDICTIONS = ["The cat saw the river.\nA dog sold three apples.", "My sister likes the river.", "milk and tea too"]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", context=1024)


@pytest.fixture(name="text", scope="module")
def _text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dice = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    paragraphs = [" ".join(sentences(dice.randint(1, 20), seed)) for seed in range(40)]
    path.write_text("\n\n".join([*paragraphs, "Über naïve 🦊 façades. " * 20]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(name="folder", scope="module")
def _folder(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    work.prepare(model, str(text), folder, trained=20, held_out=8)
    return folder


def test_stretches_are_the_whole_text_in_pieces_of_the_length_asked_for(model: Path, text: Path) -> None:
    tokenizer, whole = open_tokenizer(model), text.read_text(encoding="utf-8")
    stretches = list(work.split_texts(tokenizer, [whole]))
    assert "".join(stretches) == whole
    lengths = [len(tokenizer.encode(stretch)) for stretch in stretches]
    assert max(lengths) <= work.TEXT_TOKENS - 1  # and the end of the text
    assert min(lengths[:-1]) > work.TEXT_TOKENS // 2


def test_parts_share_no_document(folder: Path, model: Path) -> None:
    tokenizer, held_out = open_tokenizer(model), work.held_out_ids(folder)
    assert (len(work.training_texts(folder)), len(held_out["validation"]), len(held_out["test"])) == (20, 4, 4)
    texts = {tokenizer.decode(ids) for part in held_out.values() for ids in part}
    assert not texts & set(work.training_texts(folder))


def test_rows_of_other_kinds_are_refused(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    with pytest.raises(SystemExit, match="kind completion"):
        work.prepare(model, str(rows), tmp_path / "work")


def test_predictions_are_those_of_transformers_for_one_text_at_a_time(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(model).eval()
    opened = lmworks.load(model)
    texts = [list(range(12, 12 + length)) for length in (12, 3, 30, 7, 2)]
    plain, padded = text_metrics.predict(opened, texts, width=30)
    for ids, own in zip(texts, plain, strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([ids[:-1]])).logits[0]
        nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
        assert own.nats == pytest.approx(float(nats), rel=1e-5)
        assert (own.tokens, own.reference) == (len(ids) - 1, opened.tokenizer.decode(ids[1:]))
        assert own.text == opened.tokenizer.decode(logits.argmax(-1).tolist())
    end = opened.tokenizer.piece(opened.tokenizer.eos_id)
    assert [own.tokens for own in padded] == [29] * 5
    assert [own.reference.count(end) for own in padded] == [30 - len(ids) for ids in texts]
    assert padded[2].nats == pytest.approx(plain[2].nats)
    expected = math.exp(sum(own.nats for own in plain) / sum(len(ids) - 1 for ids in texts))
    assert text_metrics.perplexity(plain) == pytest.approx(expected)


def test_bleu_is_that_of_nltk() -> None:
    pytest.importorskip("nltk")
    from nltk.translate.bleu_score import corpus_bleu
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    split = Tokenizer13a()
    texts, references = ([split(text).split() for text in side] for side in (PREDICTIONS, REFERENCES))
    figures = text_metrics.bleu(PREDICTIONS, REFERENCES)
    assert figures["bleu"] == pytest.approx(corpus_bleu([[own] for own in references], texts))
    assert [figures[f"bleu{n}"] for n in range(1, 5)] == pytest.approx([16 / 22, 12 / 19, 8 / 16, 4 / 13])
    assert text_metrics.bleu(REFERENCES, REFERENCES)["bleu"] == pytest.approx(1)


def test_rouge_counts_what_both_have() -> None:
    pytest.importorskip("rouge_score")
    figures = text_metrics.rouge(["the cat saw the river"], ["the cat saw a dog"])
    assert figures == pytest.approx({"rouge1": 3 / 5, "rouge2": 2 / 4, "rougeL": 3 / 5, "rougeLsum": 3 / 5})
    lines = text_metrics.rouge(["b c\na"], ["a\nb c"])
    assert (lines["rougeL"], lines["rougeLsum"]) == (pytest.approx(2 / 3), 1)


def test_a_text_one_token_late_has_most_of_its_words(model: Path) -> None:
    pytest.importorskip("rouge_score")
    tokenizer = open_tokenizer(model)
    figures = text_metrics.late_figures(tokenizer, [tokenizer.encode("the cat saw a dog in a house")])
    assert figures["bleu1"] == pytest.approx(6 / 8)  # "the" and "hous" beside "he" and "house"
    assert figures["rouge1"] == pytest.approx(6 / 8)


def test_published_arms_come_first_and_none_twice() -> None:
    names = [arm.name for arm in published.arms_of([1e-4, 1e-3], [2e-4], peers=True)]
    assert names == ["full 0.0002", "LoRA 0.0001", "LoRA 0.001", "Trainer full 0.0002", "Trainer + PEFT LoRA 0.0001"]


def figures(perplexity: float, validation: float, seconds: float, peak: float) -> list[dict[str, Any]]:
    parts = {"library": 4e8, "weights": 5e8}
    own = {"perplexity": perplexity, "validation_perplexity": validation, "seconds": seconds, "peak_gb": peak}
    return [{**own, "flops": 1e12 * seconds, "peak_parts": parts}]


def test_judged_at_the_published_rates_and_at_the_chosen_ones() -> None:
    chosen = published.arms_of([1e-3, 1e-2], [], peers=False)
    rounds = {
        "full 0.0002": figures(20.0, 21.0, 100.0, 2.0),
        "LoRA 0.0001": figures(30.0, 31.0, 74.0, 1.1),
        "LoRA 0.001": figures(20.5, 21.5, 76.0, 0.9),
        "LoRA 0.01": figures(20.1, 25.0, 76.0, 0.9),  # the best on test texts is not looked for
    }
    lines, explained = published.judge_all(rounds, chosen)
    assert [(line.measured, line.reached) for line in lines] == [
        (1.5, False), (0.55, False), (0.74, True), (1.025, True), (0.45, True), (0.76, False),
    ]  # fmt: skip
    assert explained[0] == "time: LoRA needs 0.74 of full's FLOPs and took 0.74 of its time"
    assert explained[-1] == "perplexity of LoRA by learning rate: 0.0001: 30.00, 0.001: 20.50, 0.01: 20.10"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_both_arms_train_the_same_weights_on_the_same_texts(
    model: Path, folder: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    pytest.importorskip("rouge_score")
    monkeypatch.setattr(published_arms, "GENERAL_BYTES", 600)
    monkeypatch.setattr(forgetting, "QUESTIONS", 4)
    monkeypatch.setattr(work, "BATCH", 2)
    ours = published_arms.lmworks_arm(str(model), method, 1e-3, "float32", folder, 0)
    theirs = published_arms.trainer_arm(str(model), method, 1e-3, "float32", folder, 0)
    assert theirs.keys() == ours.keys() - {"flops", "peak_parts"}
    for key in ("steps", "targets", "trained", "padding"):
        assert ours[key] == theirs[key] > 0
    before = published_arms.untouched_arm(str(model), folder)
    assert ours["perplexity"] < before["perplexity"]
    assert theirs["padded_perplexity"] < before["padded_perplexity"]
    results = published.medians({published.UNTOUCHED: [before], "ours": [ours]})
    assert len(published.table(results)) == len(published.forgotten(results)) == 3
