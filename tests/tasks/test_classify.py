"""Classification by a head: what a run saves is what transformers and peft open, and predictions are theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import save_questions
from tiny_presets import sentences
from tiny_tasks import bert_like, model

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.tasks.classify import Classify
from lmworks.tasks.settings import TaskSettings
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

LABELS = ["animal", "other", "sky"]
TRAIN = {
    "steps": 30, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32", "threads": 1, "warmup": 0,
    "evaluate_every": 30,
}  # fmt: skip
ENCODER, DECODER, BART = "tinybert", "llama-1m", "bart-base"


def label_of(text: str) -> str:
    return "animal" if "cat" in text else "sky" if "moon" in text else "other"


def tuned(model_folder: str, folder: Path, method: str, **groups: Any) -> Any:
    rows = [{"text": text, "label": label_of(text)} for text in sentences(60)]
    data = {"source": str(save_questions(folder / "rows.jsonl", rows)), "held_out": 12}
    settings = {"train": TRAIN, "evaluate": {"samples": 2}, **groups}
    return lmworks.tune(model_folder, data, method=method, out=folder / "run", **settings)


def test_nothing_held_out(models: dict[str, str], tmp_path: Path) -> None:
    """A new head is trained, and predicts, without any figure before or after."""
    rows = [{"text": text, "label": label_of(text)} for text in sentences(40)]
    run = lmworks.tune(
        models[ENCODER], {"source": rows, "held_out": 0}, method="full", out=tmp_path / "run", train=TRAIN
    )
    assert [event.get("classification") for event in RunFolder(run.folder).events("evaluation")] == [None, None]
    assert run.card["training"]["steps"] == TRAIN["steps"]
    losses = [event["loss"] for event in RunFolder(run.folder).events("step")]
    assert losses[-1] < losses[0]
    assert {prediction.label for prediction in run.model.predict(sentences(30))} <= set(LABELS)


def probabilities(predictions: list[Any]) -> np.ndarray:
    return np.array([[prediction.probabilities[label] for label in LABELS] for prediction in predictions])


@pytest.mark.parametrize("preset", [ENCODER, DECODER, BART])
def test_pipelines_of_transformers_give_our_labels(models: dict[str, str], preset: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = tuned(models[preset], tmp_path, "full")
    texts = sentences(6)
    predicted = run.model.predict(texts)
    assert run.model.labels == LABELS
    assert {prediction.label for prediction in lmworks.load(str(run.folder)).predict(texts)} <= set(LABELS)
    pipeline = transformers.pipeline("text-classification", str(run.folder / "final"), top_k=None, device="cpu")
    # our tokenizer's special tokens are written by its post-processor or by theirs, which may differ for a new one
    theirs = pipeline(texts, batch_size=3)
    received = [[{entry["label"]: entry["score"] for entry in scores}[label] for label in LABELS] for scores in theirs]
    np.testing.assert_allclose(probabilities(predicted), received, atol=1e-4)


@pytest.mark.parametrize("preset", [ENCODER, DECODER, BART])
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_peft_opens_the_adapter_with_its_head(
    models: dict[str, str], preset: str, use_dora: bool, tmp_path: Path
) -> None:
    import torch

    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    run = tuned(models[preset], tmp_path, "lora", lora={"use_dora": use_dora})
    final = run.folder / "final"
    config = json.loads((final / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"]
    kind = transformers.AutoModelForSequenceClassification
    pad = run.model.tokenizer.pad_id
    base = kind.from_pretrained(models[preset], num_labels=3, pad_token_id=pad, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, final).eval()
    opened = lmworks.load(str(run.folder))
    texts = sentences(4)
    for text, prediction in zip(texts, opened.predict(texts), strict=True):
        ids = torch.tensor([opened.tokenizer.encode(text, special=True)])
        with torch.no_grad():
            expected = theirs(ids).logits.softmax(-1)[0].tolist()
        assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-4)
    merged = opened.save(tmp_path / "merged")
    np.testing.assert_allclose(
        probabilities(lmworks.load(merged).predict(texts)), probabilities(opened.predict(texts)), atol=1e-5
    )


def test_an_adapter_of_peft_opens_here(models: dict[str, str], tmp_path: Path) -> None:
    import torch

    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    torch.manual_seed(0)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(models[ENCODER], num_labels=3)
    base.save_pretrained(tmp_path / "base")  # with its pooler, which the adapter does not hold
    lmworks.load(models[ENCODER]).tokenizer.save(tmp_path / "base")
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], init_lora_weights=False)
    theirs = peft.get_peft_model(base, settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    opened = lmworks.load(tmp_path / "adapter", base=tmp_path / "base")
    (prediction,) = opened.predict(["The cat climbed the moon."])
    with torch.no_grad():
        ids = torch.tensor([opened.tokenizer.encode("The cat climbed the moon.", special=True)])
        expected = theirs(ids).logits.softmax(-1)[0].tolist()
    assert prediction.probabilities == pytest.approx(
        dict(zip(["LABEL_0", "LABEL_1", "LABEL_2"], expected, strict=True)), abs=1e-4
    )


def test_a_classifier_is_trained_further_with_its_own_head(models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = tuned(models[ENCODER], tmp_path / "first", "full")
    rows = [{"text": text, "label": label_of(text)} for text in sentences(60) if label_of(text) != "sky"]
    again = lmworks.tune(str(first.folder / "final"), rows, method="full", out=tmp_path / "again", train=TRAIN)
    assert again.model.labels == LABELS
    before = next(event for event in RunFolder(again.folder).events("evaluation") if event["when"] == "before")
    assert "name" not in before  # the head is evaluated itself


def test_texts_are_cut_counted_or_refused() -> None:
    config = model("encoder", vocab_size=90, max_position_embeddings=12).model_copy(
        update={"language_head": False, "heads": ()}
    )
    from lmworks.families.bert import BERT
    from lmworks.model.head_requests import SEQUENCE, HeadRequest

    config = BERT.with_head(config, HeadRequest(SEQUENCE, 2, "single_label", ("no", "yes")))
    task = Classify(TaskSettings(name="classify"), bert_like(), config)
    rows = [{"text": "a cat " * 20, "label": "yes"}, {"text": "the sky", "label": "no"}]
    table = corpus.read(rows, DataSettings())
    examples = task.examples(table, DataSettings(), 12)
    assert (examples.report.truncated, len(examples.items[0])) == (1, 12)
    assert examples.items[0].ids[-1] == 3  # the separator stays
    assert len(task.examples(table, DataSettings(on_long="skip"), 12)) == 1
    with pytest.raises(InputError, match="more than fit"):
        task.examples(table, DataSettings(on_long="stop"), 12)
    with pytest.raises(InputError, match="'maybe' is not one of the model's labels"):
        task.examples(corpus.read([{"text": "a", "label": "maybe"}] * 2, DataSettings()), DataSettings(), 12)


def test_two_texts_lose_the_end_of_the_longer_one_first() -> None:
    inputs = HeadInputs.of(bert_like(), model("encoder", vocab_size=90, max_position_embeddings=64), None, 12)
    example = inputs.example([list(range(10, 30)), [40, 41, 42]])
    assert example.ids.tolist() == [2, 10, 11, 12, 13, 14, 15, 3, 40, 41, 42, 3]
    assert example.dropped == 14
    both = inputs.example([list(range(10, 30)), list(range(40, 60))])
    assert (len(both), both.dropped) == (12, 31)
    assert both.ids.tolist().count(3) == 2
