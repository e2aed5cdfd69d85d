"""Runs of n-gram models: the folder, the card, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.run import ngram_recipe

WORDS = ["cat", "dog", "mat", "house", "garden"]


def lines(count=60):
    rng = np.random.default_rng(0)
    return [
        f"the {rng.choice(WORDS)} is in the {rng.choice(WORDS)} and the {rng.choice(WORDS)} is not."
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lines.txt"
    path.write_text("\n\n".join(lines()))
    return path


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name in ngram_recipe.PRESETS:
        made[name] = lmworks.pretrain(
            name, {"source": str(text), "document": "paragraph"}, tokenizer={"kind": "char"}, out=folder / name
        )
    return made


def bits(run):
    return next(m["after"]["value"] for m in run.card["measures"] if m["key"] == "held_out_bits")


def test_each_order_is_worth_something(runs):
    found = [bits(runs[name]) for name in ("uniform", "unigram", "ngram-3", "ngram-5")]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.5 * found[0]


def test_the_figures_are_those_of_the_saved_model(runs, text):
    run = runs["ngram-5"]
    model = lmworks.load(run.folder)
    event = RunFolder(run.folder).events("evaluation")[-1]["held_out"]
    start = RunFolder(run.folder).events("data")[0]
    assert start["rows"] + start["held_out"] == 60
    assert event["bits_per_byte"] == pytest.approx(sum(event["row_nats"]) / np.log(2) / sum(event["row_bytes"]))
    assert event["tokens"] == sum(event["row_bytes"]) + start["held_out"]  # characters, and an end each
    training = sum(score.nats for score in model.score(lines()))
    assert training / sum(score.tokens for score in model.score(lines())) < event["loss"]


def test_the_card_has_its_parameters_samples_and_no_advice(runs):
    card = runs["ngram-3"].card
    assert card["run"]["state"] == "finished"
    assert card["advice"] == []
    assert card["parameters"]["total"] == lmworks.load(runs["ngram-3"].folder).ngram.parameters
    assert len(card["samples"]) in (2, 3)  # two of the texts may begin alike
    assert all(sample["before"] is not None and sample["after"] for sample in card["samples"])
    assert (runs["ngram-3"].folder / "report.html").is_file()


def test_a_killed_run_is_begun_again(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs["ngram-3"].folder, folder)
    journal = folder / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if json.loads(line)["event"] in ("start", "data")]
    journal.write_text("\n".join(kept) + "\n")
    shutil.rmtree(folder / "final")
    with pytest.raises(InputError, match="lmworks resume"):
        lmworks.load(folder)
    assert bits(lmworks.resume(folder)) == pytest.approx(bits(runs["ngram-3"]))
    said = []
    lmworks.resume(folder, said.append)
    assert "has finished already" in said[0]


def test_the_command_trains_generates_and_scores(text, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["pretrain", "ngram_3", str(text), "--out", str(run), "--tokenizer.kind", "word", "--ngram.order", "4"]
    assert main(words) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert lmworks.load(run).ngram.order == 4
    assert main(["generate", str(run), "the cat is", "--max-tokens", "4"]) == 0
    assert main(["score", str(run), "the cat is in the house"]) == 0
    assert main(["pretrain", "ngram-5", str(text), "--dry-run"]) == 0
    assert "order: 5" in capsys.readouterr().out


def test_rows_in_python_are_kept(tmp_path):
    rows = [{"text": line} for line in lines(30)]
    run = lmworks.pretrain("ngram-3", rows, tokenizer={"kind": "char"}, out=tmp_path / "run", ngram={"order": 2})
    assert run.model.ngram.order == 2
    assert run.model.generate("the ", max_tokens=5, temperature=0.5)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["pretrain", "ngram-5", "{text}", "--train.steps", "4"], "train"),
        (["pretrain", "ngram-5", "{text}", "--method", "lora"], "method"),
        (["pretrain", "ngram-5", "{text}", "--ngram.order", "12"], "ngram.order"),
        (["pretrain", "ngram-5", "{text}", "--ngram.orders", "3"], "did you mean"),
        (["pretrain", "ngram-5", "{text}", "--ngram", "3"], "group of settings"),
        (["tune", "ngram-5", "{text}"], "lmworks pretrain ngram-5"),
        (["plan", "ngram-5", "{text}"], "lmworks pretrain ngram-5"),
        (["pretrain", "ngram-5", "python-help"], "learns texts"),
        (["pretrain", "ngram-5"], "DATA"),
        (["pretrain", "5-gram", "{text}"], "did you mean ngram-3 or ngram-5?"),
    ],
)
def test_what_cannot_be_used_is_named(words, fault, text, capsys):
    assert main([word.format(text=text) for word in words]) == 2
    assert fault in capsys.readouterr().err


def test_an_unfinished_folder_is_refused(runs, text):
    with pytest.raises(InputError, match="already and not empty"):
        lmworks.pretrain("ngram-5", str(text), out=runs["ngram-5"].folder)
