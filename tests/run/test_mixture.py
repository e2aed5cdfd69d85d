"""Several tasks in one run: heads on one backbone, trained together."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_tasks import bert_like

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
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
        confusion = part["classification"]["confusion"]
        right = [confusion[number][number] for number in range(len(confusion))]
        assert accuracy["after"]["value"] == pytest.approx(sum(right) / sum(map(sum, confusion)))
        train, _ = corpus.split(corpus.read(run.folder / f"{part['name']}-data.jsonl", DataSettings()), DataSettings())
        label = Counter(row.values["label"] for row in train.rows).most_common(1)[0][0]
        commonest = sum(confusion[part["classification"]["labels"].index(label)])
        assert accuracy["before"]["value"] == pytest.approx(commonest / sum(map(sum, confusion)))
    assert parts["animal"]["measures"][0]["rows"] == 8
    assert "colour: accuracy" in run.card["summary"]
    assert "animal: accuracy" in run.card["summary"]


def test_a_step_is_of_one_task_and_its_loss_is_weighted(run: Any) -> None:
    steps = [event for event in journal(run.folder) if event["event"] == "step"]
    for step in steps:
        (name,) = [key for key in ("colour_loss", "animal_loss") if key in step]
        assert step["loss"] == pytest.approx(step[name] * (2.0 if name == "animal_loss" else 1.0))
    assert sum("animal_loss" in step for step in steps) == 2 * 18


def test_the_card_draws_the_loss_of_each_task_by_itself(run: Any) -> None:
    curves = lmworks.report(run.folder)["curves"]["training_by_task"]
    assert set(curves) == {"colour", "animal"}
    assert sum(map(len, curves.values())) == len(RunFolder(run.folder).events("step"))
    assert all(points[0][1] > points[-1][1] for points in curves.values())


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


def mixed(bert: Path, out: Path, **settings: Any) -> Any:
    """A run of a classifier and a tagger."""
    tasks = [{"name": "colour", "data": labelled("blue", 60, 1)}, {"name": "kinds", "data": tagged(40, 3)}]
    return lmworks.tune(bert, **{"tasks": tasks, "out": out, "train": TRAIN, "evaluate": EVALUATE, **settings})


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_head_opens_in_transformers_with_the_same_logits(bert: Path, tmp_path: Path, method: str) -> None:
    run = mixed(bert, tmp_path / "run", method=method)
    kinds = {
        "colour": transformers.AutoModelForSequenceClassification,
        "kinds": transformers.AutoModelForTokenClassification,
    }
    for name, kind in kinds.items():
        assert main(["save", str(run.folder), str(tmp_path / name), "--head", name]) == 0
        theirs, ours = kind.from_pretrained(tmp_path / name).eval(), lmworks.load(run.folder, head=name)
        ids = torch.tensor([ours.tokenizer.encode("the sky is blue", special=True)])
        with torch.no_grad():
            hidden = ours.network.hidden_states(ids)[0]
            own = ours.network.head_logits(ours.config.heads[0].name, hidden[:1] if name == "colour" else hidden)
            expected = theirs(ids).logits
        torch.testing.assert_close(own, expected.reshape(own.shape), atol=1e-5, rtol=1e-4)
        assert sorted(theirs.config.id2label.values()) == sorted(ours.labels)


def test_heads_share_one_backbone(bert: Path, tmp_path: Path) -> None:
    run = mixed(bert, tmp_path / "run", method="full")
    networks = [lmworks.load(run.folder, head=name).network for name in ("colour", "kinds")]
    weights = [dict(network.layers.named_parameters()) for network in networks]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_each_task_stands_beside_itself_trained_alone(bert: Path, tmp_path: Path) -> None:
    run = mixed(bert, tmp_path / "run", alone=True, sampling="equal")
    steps = [event for event in journal(run.folder) if event["event"] == "step"]
    for part in run.card["tasks"]:
        alone = journal(run.folder / "alone" / part["name"])
        own = [event for event in alone if event["event"] == "step"]
        of_task = [event for event in steps if f"{part['name']}_loss" in event]
        assert len(own) == len(of_task)
        first = own[0]["loss"]
        if of_task[0]["step"] == 1:  # the same batch, the same weights but for the head's
            assert first == pytest.approx(of_task[0]["loss"], rel=0.3)
        assert [event["tokens"] for event in own] == [event["tokens"] for event in of_task]
        loss = next(measure for measure in part["alone"]["measures"] if measure["key"] == "held_out_loss")
        assert loss["before"]["value"] != loss["after"]["value"]
        assert (
            loss["rows"]
            == next(e for e in alone if e["event"] == "evaluation" and e["when"] == "after")["held_out"]["rows"]
        )


class Killed(Exception):
    """In place of a signal, in the same process."""


@pytest.mark.parametrize(("method", "alone"), [("lora", True), ("full", False)])
def test_a_killed_run_goes_on_bit_for_bit(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, alone: bool
) -> None:
    settings = {"method": method, "alone": alone, "sampling": "temperature", "temperature": 3.0}
    settings["train"] = {**TRAIN, "steps": 9, "checkpoint_every": 2}
    del settings["train"]["epochs"]
    whole = mixed(bert, tmp_path / "whole", **settings)
    write, killed = RunFolder.write, tmp_path / "killed"

    def ends(self: RunFolder, event: str, **fields: Any) -> dict[str, Any]:
        if event == "step" and fields["step"] == (6 if self.path == killed else 2):
            raise Killed
        return write(self, event, **fields)

    def ends_alone(self: RunFolder, event: str, **fields: Any) -> dict[str, Any]:
        return write(self, event, **fields) if self.path == killed else ends(self, event, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", ends)
        with pytest.raises(Killed):
            mixed(bert, killed, **settings)
        patch.setattr(RunFolder, "write", ends_alone)
        if alone:  # a second time, in the first of the runs alone
            with pytest.raises(Killed):
                lmworks.resume(killed)
    resumed = lmworks.resume(killed)
    runs = ["."] + ["alone/colour", "alone/kinds"] * alone
    for folder in runs:
        first, second = (
            [(event["step"], event["loss"]) for event in journal(run.folder / folder) if event["event"] == "step"]
            for run in (whole, resumed)
        )
        assert first == second
    assert len(first) > 1
    for name in ("colour", "kinds"):
        (file,) = (whole.folder / "final" / name).glob("*model.safetensors")
        assert file.read_bytes() == (killed / "final" / name / file.name).read_bytes()


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
