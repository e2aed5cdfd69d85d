"""What a model costs in use: every kind of model is asked in its own way, apart from its adapter and merged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_model import COMMON, QUESTIONS, save_tiny, settings

import lmworks
from lmworks.adapt import adapters
from lmworks.base.errors import InputError
from lmworks.run.inference import (
    default_inputs,
    inference_speed,
    measure_inference,
    sizes_on_disk,
)

LABELLED = [{"text": f"{word} number {n}", "label": word} for word in ("good", "bad") for n in range(20)]


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module", name="run")
def _run(tiny: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lora"
    return lmworks.tune(str(tiny), QUESTIONS, out=out, **settings(COMMON + " train.steps=2")).folder


def test_an_adapter_is_measured_apart_and_merged(run, tiny):
    result = measure_inference(run, ["What is 3 and 4?", "What?"], new_tokens=5, repeats=2)
    for speed in (result.speed, result.merged):
        assert (speed.kind, speed.inputs, speed.new_tokens) == ("generation", 2, 5)
        assert min(speed.latency, speed.tokens_per_second) > 0
        assert speed.texts_per_second is None
    assert result.note == ""
    assert result.disk == sum(file.stat().st_size for file in (run / "final").iterdir())
    assert result.base_disk == sum(file.stat().st_size for file in tiny.iterdir())
    json.dumps(dataclasses.asdict(result))


def test_an_adapter_that_cannot_be_merged_says_why(tiny, tmp_path):
    options = settings(COMMON + " train.steps=1")
    run = lmworks.tune(str(tiny), QUESTIONS, method="bottleneck", out=tmp_path / "run", **options).folder
    result = measure_inference(run, ["What?"], new_tokens=3, repeats=1)
    assert result.merged is None
    assert "cannot be merged" in result.note
    assert result.speed.tokens_per_second > 0


def test_measuring_leaves_the_model_as_it_was(run):
    model = lmworks.load(run)
    before = [model.generate("What is 3 and 4?", max_tokens=5), *(p.clone() for p in model.network.parameters())]
    inference_speed(model, ["a"], new_tokens=3, repeats=1)
    with adapters.merged(model.network):
        inference_speed(model, ["a"], new_tokens=3, repeats=1)
    assert model.generate("What is 3 and 4?", max_tokens=5) == before[0]
    assert all(torch.equal(old, new) for old, new in zip(before[1:], model.network.parameters(), strict=True))


def test_prompt_tokens_are_those_that_the_run_put_to_the_model(run):
    model = lmworks.load(run)
    ids = model.input_format.prompts_of(["What?"], model.tokenizer)[0].ids
    assert len(ids) > len(model.tokenizer.encode("What?"))  # the chat template's
    assert inference_speed(model, ["What?"], new_tokens=2, repeats=1).prompt_tokens == len(ids)


def test_long_prompts_are_cut_to_the_context(tiny):
    model = lmworks.load(tiny)
    assert inference_speed(model, ["word " * 400], new_tokens=6, repeats=1).prompt_tokens == model.context - 6
    with pytest.raises(InputError, match="no room"):
        inference_speed(model, ["word"], new_tokens=model.context)
    with pytest.raises(InputError, match="nothing to ask"):
        inference_speed(model, [])


def test_a_whole_model_has_nothing_to_merge(tiny):
    result = measure_inference(tiny, ["a b c"], new_tokens=3, repeats=1)
    assert result.merged is result.base_disk is None
    assert result.disk == sizes_on_disk(tiny)[0]


@pytest.mark.parametrize(
    ("task", "data", "kind"),
    [
        ("classify", LABELLED, "classification"),
        ("labels", LABELLED, "labels"),
        ("tag", [{"tokens": ["Ann", "sat"], "tags": ["B-PER", "O"]}] * 12, "tagging"),
        ("extract", [
            {"context": f"Ann has {n} cats.", "question": "How many?",
             "answers": {"text": [str(n)], "answer_start": [8]}} for n in range(20)
        ], "answers"),
    ],
)  # fmt: skip
def test_every_kind_of_model_is_asked_in_its_own_way(task, data, kind, tiny, tmp_path):
    options = settings("train.steps=1 train.batch_size=2 train.threads=1 train.precision=float32 data.held_out=4")
    run = lmworks.tune(str(tiny), data, out=tmp_path / "run", task=task, **options).folder
    result = measure_inference(run, ["Ann sat down.", "Bob too."], repeats=1)
    assert result.speed.kind == result.merged.kind == kind
    assert min(result.speed.latency, result.speed.texts_per_second) > 0
    assert result.speed.tokens_per_second is None


def test_a_prompted_model_needs_its_base(tiny, tmp_path):
    options = settings("train.threads=1 data.held_out=4 prompting.shots=1 prompting.validation=4")
    run = lmworks.tune(str(tiny), LABELLED, method="prompting", task="labels", out=tmp_path / "run", **options).folder
    disk, base_disk = sizes_on_disk(run)
    assert base_disk == sum(file.stat().st_size for file in tiny.iterdir())
    assert disk < base_disk


def test_counts_of_words_are_measured_too(tmp_path):
    result = measure_inference(lmworks.tune("tfidf-logreg", LABELLED, out=tmp_path / "run").folder, ["good"])
    assert (result.speed.kind, result.speed.prompt_tokens, result.merged) == ("classification", None, None)
    assert result.disk > 0


def test_an_ngram_model_generates(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("the sky is blue. the sea is blue.\n" * 40)
    run = lmworks.pretrain("ngram-3", str(book), out=tmp_path / "run").folder
    assert measure_inference(run, ["the sky"], new_tokens=4, repeats=1).speed.kind == "generation"


def test_default_inputs_are_of_the_size_that_is_stated():
    pieces = default_inputs(5, 200)
    assert len(pieces) == 5
    assert all(150 < len(piece.encode()) <= 200 for piece in pieces)
