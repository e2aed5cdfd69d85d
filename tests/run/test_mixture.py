"""Several tasks in one run: heads on one backbone, trained together."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_tasks import bert_like

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

WORDS = ("sky", "sea", "blue", "cat", "tree", "bird", "weather", "nobody", "tomorrow", "old", "nice")
TRAIN: dict[str, Any] = {"epochs": 2, "threads": 1, "precision": "float32", "learning_rate": 0.02, "batch_size": 4}
EVALUATE = {"general_bytes": 100, "samples": 1}


def texts(count: int, seed: int) -> list[str]:
    """Different texts of a few words."""
    words = random.Random(seed)
    return [" ".join(words.choices(WORDS, k=6)) for _ in range(count)]


def labelled(word: str, count: int, seed: int) -> list[dict[str, str]]:
    """Texts with a label that says whether a word is in them."""
    return [{"text": text, "label": word if word in text.split() else f"no {word}"} for text in texts(count, seed)]


def tagged(count: int, seed: int) -> list[dict[str, list[str]]]:
    """Words, of which two kinds are entities."""
    kinds = {"cat": "B-ANIMAL", "bird": "B-ANIMAL", "tree": "B-PLANT"}
    return [
        {"tokens": text.split(), "tags": [kinds.get(word, "O") for word in text.split()]} for text in texts(count, seed)
    ]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = bert_like()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=64, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def tune(bert: Path, out: Path, **settings: Any) -> Any:
    """A run of two tasks."""
    tasks = [
        {"name": "colour", "data": labelled("blue", 60, 1)},
        {"name": "animal", "data": labelled("cat", 80, 2), "weight": 2.0},
    ]
    return lmworks.tune(bert, **{"tasks": tasks, "out": out, "train": TRAIN, "evaluate": EVALUATE, **settings})


@pytest.fixture(scope="module")
def run(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two tasks by LoRA."""
    return tune(bert, tmp_path_factory.mktemp("runs") / "run")


def test_the_card_has_the_figures_of_each_task(run: Any) -> None:
    parts = {part["name"]: part for part in run.card["tasks"]}
    assert list(parts) == ["colour", "animal"]
    for part in parts.values():
        accuracy = part["measures"][0]
        assert accuracy["key"] == "accuracy"
        assert accuracy["before"]["value"] is not None
        assert part["classification"] is not None
    assert parts["animal"]["measures"][0]["rows"] == 8
    assert "colour: accuracy" in run.card["summary"]
    assert "animal: accuracy" in run.card["summary"]


def test_a_step_is_of_one_task_and_its_loss_is_weighted(run: Any) -> None:
    steps = [event for event in journal(run.folder) if event["event"] == "step"]
    for step in steps:
        (name,) = [key for key in ("colour_loss", "animal_loss") if key in step]
        assert step["loss"] == pytest.approx(step[name] * (2.0 if name == "animal_loss" else 1.0))
    assert sum("animal_loss" in step for step in steps) == 2 * 18


def test_each_head_gives_the_loss_of_the_card(run: Any) -> None:
    parts = {part["name"]: part for part in run.card["tasks"]}
    for name in ("colour", "animal"):
        table = corpus.read(run.folder / f"{name}-data.jsonl", DataSettings())
        _, held_out = corpus.split(table, DataSettings())
        model = lmworks.load(run.folder, head=name)
        predicted = model.predict([row.values["text"] for row in held_out.rows])
        pairs = zip(predicted, held_out.rows, strict=True)
        nats = [-math.log(each.probabilities[row.values["label"]]) for each, row in pairs]
        loss = next(measure for measure in parts[name]["measures"] if measure["key"] == "held_out_loss")
        assert loss["after"]["value"] == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_a_run_of_several_heads_needs_the_name_of_one(run: Any) -> None:
    with pytest.raises(InputError, match="colour, animal"):
        lmworks.load(run.folder)
    with pytest.raises(InputError, match="no head 'spam'"):
        lmworks.load(run.folder, head="spam")


def journal(folder: Path) -> list[dict[str, Any]]:
    """The journal of a run."""
    return list(RunFolder(folder).events())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": [{"name": "a", "data": "x.csv"}, {"name": "a", "data": "y.csv"}]}, "entry 1 has this name too"),
        ({"tasks": [{"name": "a", "data": "x.csv", "weight": 0}]}, "weight"),
        ({"tasks": [{"name": "a b", "data": "x.csv"}]}, "name"),
        ({"tasks": [{"name": "language", "data": "x.csv"}]}, "a loss has this name"),
        ({"sampling": "temperature", "temperature": 0}, "temperature"),
        ({"temperature": 2.0}, "proportional sampling does not use it"),
        ({"tasks": [{"name": "a", "data": "x.csv"}], "data": "y.csv"}, "data set of its own"),
        ({"tasks": [{"name": "a", "data": [{"text": "one"}] * 9, "task": "masked"}]}, "trains no head|language head"),
        ({"tasks": [], "data": [{"text": "one", "label": "a"}], "alone": True}, "is a setting of several tasks"),
    ],
)
def test_what_cannot_be_is_refused(bert: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(bert, tmp_path / "run", **change)
