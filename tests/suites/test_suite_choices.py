"""What a decoder is sent, and what it answers: the ids are those that were meant, their likelihoods the network's."""

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
from lmworks.suites.choices import PER_BYTE, PER_TOKEN
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.evaluation import Prepared, asked_again, prepare, run_benchmark
from lmworks.suites.form import MAIN
from lmworks.suites.registry import choose
from lmworks.suites.settings import SuiteSettings

ROWS = [
    {"query": "Question: Who are you?", "choices": ["nobody", "the sea and the sky", "I am"], "gold": 0},
    {"query": "Question: What is blue?", "choices": ["the sky", "it is you"], "gold": 0},
    {"query": "Question: What is blue?", "choices": ["who", "the sea is blue too"], "gold": 1},
]
PAIRS = [{"sentence_good": "Who are you?", "sentence_bad": "I are you?", "UID": "agreement"}]


def no_encoder(source: str):
    raise AssertionError(f"{source} is not asked for")


@pytest.fixture(scope="module", name="decoder")
def _decoder(tmp_path_factory) -> lmworks.LanguageModel:
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("decoder") / "llama"))


def prepared(folder: Path, name: str = "arc-easy", rows=ROWS, **settings) -> Prepared:
    file = {"arc-easy": "arc_easy.jsonl", "blimp": "blimp.jsonl"}[name]
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(choose(name)[0], folder, SuiteSettings(**settings))


def asked(model, entry: Prepared, embed_by=no_encoder, **settings):
    settings = SuiteSettings(**settings)
    return run_benchmark(asked_again(entry, settings), EvaluatedModel(model), settings, embed_by)


def log_probability(model, prompt: list[int], choice: list[int]) -> float:
    """By one forward pass over both."""
    with torch.no_grad():
        logits = model.network(torch.tensor([[*prompt, *choice]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(choice))


def test_likelihoods_are_those_of_the_ids_that_are_kept(decoder, tmp_path) -> None:
    result = asked(decoder, prepared(tmp_path))
    tokenizer = decoder.tokenizer
    for answer, row in zip(result.answers.rows, ROWS, strict=True):
        (request,) = answer.record["requests"]
        assert tokenizer.decode(request["prompt"]) == f"{row['query']}\nAnswer:"
        assert [tokenizer.decode(ids) for ids in request["options"]] == [f" {text}" for text in row["choices"]]
        expected = [log_probability(decoder, request["prompt"], ids) for ids in request["options"]]
        assert request["log_likelihoods"] == pytest.approx(expected, abs=1e-3)
        sizes = [len(text) for text in row["choices"]], [len(ids) for ids in request["options"]]
        by_size = [int(np.argmax(np.array(expected) / size)) for size in sizes]
        assert answer.predictions == {MAIN: int(np.argmax(expected)), PER_BYTE: by_size[0], PER_TOKEN: by_size[1]}


def test_scores_say_how_they_came_about(decoder, tmp_path) -> None:
    result = asked(decoder, prepared(tmp_path))
    assert [score.title for score in result.scores] == ["accuracy", "accuracy per byte", "accuracy per token"]
    settings = dict(result.scores[0].signature.settings)
    known = {"suite": "arc-easy", "split": "test", "shots": "0", "by": "likelihood", "template": "no", "bos": "auto"}
    assert known.items() <= settings.items()
    right = [answer.predictions[MAIN] in answer.references for answer in result.answers.rows]
    assert result.scores[0].value == pytest.approx(np.mean(right))
    other = asked(decoder, prepared(tmp_path, rows=ROWS[:2]))
    assert other.scores[0].signature != result.scores[0].signature


def test_listed_options_are_answered_by_letters(decoder, tmp_path) -> None:
    entry = prepared(tmp_path)
    first = asked(decoder, entry, letters=True).answers.rows[0]
    (request,) = first.record["requests"]
    prompt = "Question: Who are you?\nA. nobody\nB. the sea and the sky\nC. I am\nAnswer:"
    assert decoder.tokenizer.decode(request["prompt"]) == prompt
    assert [decoder.tokenizer.decode(ids) for ids in request["options"]] == [" A", " B", " C"]
    moved = asked(decoder, entry, letters=True, rotation=1).answers.rows[0]
    assert moved.question.prompts == ["Question: Who are you?\nA. the sea and the sky\nB. I am\nC. nobody\nAnswer:"]
    assert (first.references, moved.references) == ([0], [2])
    assert moved.question.names == ["1", "2", "0"]


def test_a_bos_token_stands_where_it_was_asked_for(decoder, tmp_path) -> None:
    entry, tokenizer = prepared(tmp_path), decoder.tokenizer
    assert tokenizer.opening == []
    plain, with_bos = (
        asked(decoder, entry, bos=bos).answers.rows[0].record["requests"][0]["prompt"] for bos in ("auto", "on")
    )
    assert with_bos == [tokenizer.bos_id, *plain]
    assert asked(decoder, entry, bos="off").answers.rows[0].record["requests"][0]["prompt"] == plain


def test_the_chat_template_is_used_where_it_was_asked_for(decoder, tmp_path) -> None:
    result = asked(decoder, prepared(tmp_path), template="on")
    (request,) = result.answers.rows[0].record["requests"]
    written = decoder.tokenizer.decode(request["prompt"], skip_special=False)
    assert written == "<|im_start|>user\nQuestion: Who are you?\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    assert decoder.tokenizer.decode(request["options"][0]) == "nobody"


def test_whole_texts_are_scored_after_bos_or_from_their_second_token(decoder, tmp_path) -> None:
    entry, tokenizer = prepared(tmp_path, "blimp", PAIRS), decoder.tokenizer
    (request,) = asked(decoder, entry).answers.rows[0].record["requests"]
    assert request["prompt"] == [tokenizer.bos_id]
    assert [tokenizer.decode(ids) for ids in request["options"]] == ["Who are you?", "I are you?"]
    requests = asked(decoder, entry, bos="off").answers.rows[0].record["requests"]
    whole = [[*part["prompt"], *part["options"][0]] for part in requests]
    assert [tokenizer.decode(ids) for ids in whole] == ["Who are you?", "I are you?"]
    assert all(len(part["prompt"]) == 1 for part in requests)


def test_examples_stand_before_the_question(decoder, tmp_path) -> None:
    entry = prepared(tmp_path, shots=1)
    (shown,) = entry.examples
    assert [question.item.number for question in entry.questions] == [n for n in range(3) if n != shown.item.number]
    result = run_benchmark(entry, EvaluatedModel(decoder), SuiteSettings(shots=1), no_encoder)
    answer = result.answers.rows[0]
    right = shown.options[shown.references[0]]
    text = f"{shown.prompts[0]} {right}\n\n{answer.question.prompts[0]}"
    assert decoder.tokenizer.decode(answer.record["requests"][0]["prompt"]) == text
    assert "1 rows are drawn" in result.notes[0]
    turns = run_benchmark(entry, EvaluatedModel(decoder), SuiteSettings(shots=1, template="on"), no_encoder)
    written = decoder.tokenizer.decode(turns.answers.rows[0].record["requests"][0]["prompt"], skip_special=False)
    assert written.count("<|im_start|>assistant\n") == 2
    assert f"<|im_start|>assistant\n{right}<|im_end|>" in written


def test_the_nearest_examples_are_shown(decoder, tmp_path) -> None:
    rows = [{"query": f"Question: {text}", "choices": ["a", "b"], "gold": 0} for text in ("sea", "sky", "sea?", "sky?")]
    entry = prepared(tmp_path, rows=rows, shots=1, shots_from="nearest")

    def embed(texts):
        return np.array([[1.0, 0.0] if "sea" in text else [0.0, 1.0] for text in texts])

    settings = SuiteSettings(shots=1, shots_from="nearest", encoder="by-hand")
    result = run_benchmark(entry, EvaluatedModel(decoder), settings, lambda source: embed)
    kinds = {"sea" in example.prompts[0] for example in entry.examples}
    for answer in result.answers.rows:
        prompt = decoder.tokenizer.decode(answer.record["requests"][0]["prompt"])
        is_sea = "sea" in answer.question.prompts[0]
        if is_sea in kinds:
            assert ("sea" in prompt.split("\n\n")[0]) == is_sea


def test_more_examples_than_there_are_is_an_error(decoder, tmp_path) -> None:
    entry = prepared(tmp_path, shots=1)
    with pytest.raises(InputError, match="5 examples are to be shown, and there are 1"):
        run_benchmark(entry, EvaluatedModel(decoder), SuiteSettings(shots=5), no_encoder)


def test_a_long_prompt_loses_its_beginning_and_this_is_counted(tmp_path) -> None:
    model = lmworks.load(save_tiny(tmp_path / "short", context=40))
    rows = [{"query": "Question: " + "who are you? " * 30, "choices": ["nobody", "the sea"], "gold": 0}]
    result = asked(model, prepared(tmp_path, rows=rows))
    (request,) = result.answers.rows[0].record["requests"]
    longest = max(len(ids) for ids in request["options"])
    assert len(request["prompt"]) + longest == 40
    assert model.tokenizer.decode(request["prompt"]).endswith("\nAnswer:")
    assert any("cut at the beginning" in note for note in result.notes)


def test_the_native_engine_gives_the_same(decoder, tmp_path) -> None:
    prepared_model = lmworks.load(decoder.source).prepare("float32")
    entry = prepared(tmp_path)
    ours, theirs = (asked(model, entry).answers.rows for model in (prepared_model, decoder))
    for first, second in zip(ours, theirs, strict=True):
        one, two = (answer.record["requests"][0] for answer in (first, second))
        assert one["prompt"] == two["prompt"]
        assert one["log_likelihoods"] == pytest.approx(two["log_likelihoods"], abs=1e-3)


def test_a_masked_encoder_answers_by_pseudo_likelihood(tmp_path) -> None:
    model = lmworks.load(save_encoder(tmp_path / "bert"))
    rows = [{"query": "Question: my cat", "choices": ["tea", "salad in"], "gold": 0}]
    result = asked(model, prepared(tmp_path, rows=rows))
    assert result.by == "pseudo-likelihood"
    from lmworks.evaluate.multiple_choice import likeliest_choices
    from lmworks.text.multiple_choice import ChoiceQuestion

    question = ChoiceQuestion("Question: my cat\nAnswer:", (" tea", " salad in"), 0, "")
    nats = result.answers.rows[0].record["requests"][0]["log_likelihoods"]
    per_byte = int(np.argmax(np.array(nats) / [4, 9]))
    assert per_byte == likeliest_choices(model.network, model.tokenizer, [question])[0]


def test_a_sentence_encoder_answers_by_vectors(tmp_path) -> None:
    model = lmworks.load(save_classifier(tmp_path / "bert", ["x", "y"]))
    rows = [{"query": "Question: my cat", "choices": ["fresh tea", "my cat"], "gold": 1}]
    result = asked(model, prepared(tmp_path, rows=rows))
    (answer,) = result.answers.rows
    assert (result.by, answer.predictions) == ("vectors", {MAIN: 1})
    vectors = model.embed(["my cat", "fresh tea", "my cat"], normalize=True).numpy()
    assert answer.record["cosines"] == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=1e-5)
    assert answer.record["query"] == model.tokenizer.encode("my cat", special=True)
    assert [score.title for score in result.scores] == ["accuracy"]
    with pytest.raises(InputError, match="likelihoods of texts"):
        asked(model, prepared(tmp_path, "blimp", PAIRS))


def test_a_classifier_of_the_benchmarks_labels_answers_by_its_head(tmp_path) -> None:
    model = lmworks.load(save_classifier(tmp_path / "bert", ["not_entailment", "entailment"]))
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "dev.tsv").write_text(
        "index\tsentence1\tsentence2\tlabel\n1\ti love tea\tmy tea\tentailment\n2\tmy cat\tfresh\tnot_entailment\n"
    )
    entry = prepare(choose("rte")[0], tmp_path, SuiteSettings())
    result = asked(model, entry)
    expected = model.predict([["i love tea", "my tea"], ["my cat", "fresh"]])
    names = ["entailment", "not_entailment"]
    assert result.by == "classifier"
    assert [names[answer.predictions[MAIN]] for answer in result.answers.rows] == [entry.label for entry in expected]
    assert result.answers.rows[0].record["input"] == model.tokenizer.core.encode("i love tea", "my tea").ids


def test_an_encoder_decoder_is_not_asked_for_options(tmp_path) -> None:
    model = lmworks.load(save_both(tmp_path / "t5"))
    with pytest.raises(InputError, match="options are asked of decoders and encoders"):
        asked(model, prepared(tmp_path))


def test_whole_texts_have_no_examples_before_them(decoder, tmp_path) -> None:
    entry = prepared(tmp_path, "blimp", PAIRS * 3, shots=1)
    assert (len(entry.questions), entry.examples) == (3, [])


def test_a_signature_tells_other_examples_apart(decoder, tmp_path) -> None:
    results = []
    for seed in (0, 0, 5):
        settings = SuiteSettings(shots=1, seed=seed)
        entry = prepared(tmp_path, rows=ROWS * 3, shots=1)
        results.append(run_benchmark(entry, EvaluatedModel(decoder), settings, no_encoder))
    first, same, _ = (str(result.scores[0].signature) for result in results)
    assert first == same
    assert "|examples:fixed " in first
