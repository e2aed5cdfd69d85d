"""Texts that a model writes, last words, entities: what is sent is kept, answers are read as the benchmark says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_kinds import save_both, save_classifier, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.suites.entities import read_entities, tags_of_entities
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.evaluation import BenchmarkResult, prepare, run_benchmark
from lmworks.suites.form import MAIN
from lmworks.suites.registry import choose
from lmworks.suites.settings import SuiteSettings

SUMS = [{"question": f"{n} + {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in range(6)]


@pytest.fixture(scope="module", name="decoder")
def _decoder(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("decoder") / "llama", context=512))


def run(model, name: str, folder: Path, **settings) -> BenchmarkResult:
    chosen = SuiteSettings(**settings)
    return run_benchmark(prepare(choose(name)[0], folder, chosen), EvaluatedModel(model), chosen, lambda source: None)


@pytest.fixture(name="sums")
def _sums(tmp_path) -> Path:
    (tmp_path / "gsm8k").mkdir()
    for split in ("test", "train"):
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return tmp_path


def test_a_text_is_what_the_model_writes_after_the_kept_ids(decoder, sums) -> None:
    result = run(decoder, "gsm8k", sums, shots=0, template="off", max_tokens=8)
    for answer, row in zip(result.answers.rows, SUMS, strict=True):
        prompt = f"Question: {row['question']}\nAnswer:"
        assert answer.record["prompt"] == decoder.tokenizer.encode(prompt)
        expected = decoder.generate(prompt, raw=True, max_tokens=8, stop=["Question:"], details=True)
        assert (answer.record["written"], answer.predictions[MAIN]) == (expected.ids, expected.text.strip())
    assert result.scores[0].title == "right number"
    assert dict(result.scores[0].signature.settings)["max_tokens"] == "8"


def test_examples_show_the_solution_without_its_calculator(decoder, sums) -> None:
    rows = [{"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}]
    (sums / "gsm8k" / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    result = run(decoder, "gsm8k", sums, shots=1, template="off", max_tokens=2)
    prompt = decoder.tokenizer.decode(result.answers.rows[0].record["prompt"])
    assert prompt == "Question: 1 + 1?\nAnswer: It is 2.\n#### 2\n\nQuestion: 0 + 0?\nAnswer:"


def test_texts_are_asked_for_by_the_chat_template_unless_it_is_off(decoder, sums) -> None:
    result = run(decoder, "gsm8k", sums, shots=2, max_tokens=2)
    prompt = decoder.tokenizer.decode(result.answers.rows[0].record["prompt"], skip_special=False)
    assert prompt.endswith("<|im_start|>user\nQuestion: 0 + 0?\nAnswer:<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.count("<|im_start|>assistant\n") == 3
    assert dict(result.scores[0].signature.settings)["template"] == "yes"


def test_right_numbers_are_counted(monkeypatch, decoder, sums) -> None:
    written = iter(["#### 0", "so 2", "4", "none", "It is 8.0.", "3"])
    real = EvaluatedModel.write

    def write(self, prompts, settings):
        from dataclasses import replace

        return [replace(reply, text=next(written)) for reply in real(self, prompts, settings)]

    monkeypatch.setattr(EvaluatedModel, "write", write)
    (score,) = run(decoder, "gsm8k", sums, shots=0, max_tokens=2).scores
    assert score.value == pytest.approx(4 / 6)
    assert score.details["answers_without_number"] == 1


def test_an_encoder_decoder_reads_prompts_as_sources(tmp_path) -> None:
    model = lmworks.load(save_both(tmp_path / "t5"))
    (tmp_path / "pud_en_fr_de.tsv").write_text("id\ten\tfr\tde\n" + "1\ti love tea\tmy tea\tmy cat\n" * 8)
    result = run(model, "pud-en-fr", tmp_path, shots=0, max_tokens=4)
    prompt = "Translate from English into French.\nEnglish: i love tea\nFrench:"
    assert result.answers.rows[0].record["prompt"] == model.tokenizer.encode(prompt, special=True)
    assert [score.title for score in result.scores] == ["chrF2", "BLEU", "TER"]


def test_an_encoder_writes_no_text(sums, tmp_path) -> None:
    with pytest.raises(InputError, match="it writes texts, which no encoder does"):
        run(lmworks.load(save_encoder(tmp_path / "bert")), "gsm8k", sums, shots=0)


def test_last_words_have_the_networks_likelihood(decoder, tmp_path) -> None:
    texts = ["Who are you? I am nobody", "the sky is blue, and the sea is too", "who are you"]
    (tmp_path / "lambada_test_plain_text.txt").write_text("".join(f"{text}\n" for text in texts))
    result = run(decoder, "lambada", tmp_path)
    nats = []
    for answer, text in zip(result.answers.rows, texts, strict=True):
        (request,) = answer.record["requests"]
        prompt, end = request["prompt"], request["options"][0]
        assert decoder.tokenizer.decode([*prompt, *end]) == text
        assert decoder.tokenizer.decode(end) == f" {text.split()[-1]}"
        with torch.no_grad():
            logits = decoder.network(torch.tensor([[*prompt, *end]])).logits[0, len(prompt) - 1 : -1]
        likely = logits.log_softmax(-1)[range(len(end)), end]
        nats.append(-float(likely.sum()))
        assert answer.numbers == {"nats": pytest.approx(nats[-1], abs=1e-3), "words": 1.0}
        assert answer.record["greedy"] == (logits.argmax(-1).tolist() == end)
    perplexity, accuracy = result.scores
    assert perplexity.value == pytest.approx(np.exp(np.mean(nats)), rel=1e-3)
    assert (perplexity.better, accuracy.title) == ("lower", "accuracy")


WORDS = {"person": "person", "creative-work": "creative work"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("person: Ada Lovelace; creative work: Dune", [("person", "Ada Lovelace"), ("creative-work", "Dune")]),
        ("none", []),
        (" Person: Ada ;planet: Mars; person:\nperson: Bob", [("person", "Ada")]),
    ],
)
def test_entities_are_read_from_an_answer(text: str, found: list) -> None:
    assert read_entities(text, WORDS) == found


def test_entities_become_tags_of_the_words_that_they_name() -> None:
    tokens = ["Ada", "met", "Ada", "Lovelace", "."]
    found = [("person", "Ada Lovelace"), ("person", "Ada"), ("person", "Eve")]
    assert tags_of_entities(tokens, found) == (["B-person", "O", "B-person", "I-person", "O"], 1)


@pytest.fixture(name="posts")
def _posts(tmp_path) -> Path:
    text = "Ada\tB-person\nLovelace\tI-person\nwon\tO\n\nOh\tO\n\n" * 4
    for name in ("emerging.test.annotated", "wnut17train.conll"):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_model_that_writes_is_shown_entities(decoder, posts) -> None:
    result = run(decoder, "wnut17", posts, shots=2, max_tokens=4, template="off")
    prompt = decoder.tokenizer.decode(result.answers.rows[0].record["prompt"])
    parts = prompt.split("\n\n")
    assert len(parts) == 3
    assert parts[-1].endswith("Text: Ada Lovelace won\nEntities:")
    for part in parts[:-1]:
        assert part.endswith("Entities: person: Ada Lovelace" if "Ada" in part else "Entities: none")
    assert [score.title for score in result.scores] == ["entity F1"]


def test_a_tagger_answers_by_its_head(posts, tmp_path) -> None:
    keys = {"architectures": ["BertForTokenClassification"]}
    model = lmworks.load(save_classifier(tmp_path / "bert", ["O", "B-person", "I-person"], **keys))
    result = run(model, "wnut17", posts, shots=0)
    assert result.by == "tags of a head"
    expected = [list(tagged.tags) for tagged in model.tag_words([["Ada", "Lovelace", "won"], ["Oh"]])]
    assert [answer.predictions[MAIN] for answer in result.answers.rows[:2]] == expected
    other = lmworks.load(save_classifier(tmp_path / "other", ["O", "B-gene", "I-gene"], **keys))
    with pytest.raises(InputError, match="its head has other tags: gene"):
        run(other, "wnut17", posts, shots=0)
