"""Models from nothing: from a text to a card and a model that everyone opens, and the same again after a kill."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_presets import CLASSIFIERS, KINDS, OWN_KINDS, options, save_pairs, save_text, sentences, small

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import merge
from lmworks.generate.sampling import SamplingSettings
from lmworks.run import recipe as recipes
from lmworks.run.pipeline import run_recipe
from lmworks.run.setup import set_up
from lmworks.text.tokenizer import Tokenizer


@pytest.fixture(name="text")
def _text(tmp_path):
    return save_text(tmp_path / "text.txt")


def data_of(preset, folder):
    if preset == "transformer-tiny":
        return {"source": str(save_pairs(folder / "pairs.tsv")), "held_out": 6}
    return {"source": str(save_text(folder / "text.txt")), "document": "paragraph", "held_out": 4}


def run_of(preset, folder, **changes):
    values = merge(small(preset), changes)
    return lmworks.pretrain(preset, data_of(preset, folder), out=folder / "run", **values)


@pytest.mark.parametrize("preset", KINDS)
def test_a_run_learns_and_transformers_open_it(preset, tmp_path):
    transformers = pytest.importorskip("transformers")
    run = run_of(preset, tmp_path, train={"steps": 60, "batch_size": 8, "evaluate_every": 30, "learning_rate": 5e-3})
    assert run.stopped == "finished"
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    for key, sign in (("held_out_loss", -1), ("held_out_perplexity", -1), ("held_out_accuracy", 1)):
        assert measures[key]["change"]["value"] * sign > 0, key
    model = run.model
    messages = json.loads((run.folder / "final" / "config.json").read_text())
    kind = getattr(transformers, messages["architectures"][0])
    theirs = kind.from_pretrained(run.folder / "final").eval()
    text = "The cat found a red box."
    assert transformers.AutoTokenizer.from_pretrained(run.folder / "final")(text).input_ids == model.tokenizer.encode(
        text, special=True
    )
    ids = torch.tensor([model.tokenizer.encode(text, special=True)[:20]])
    with torch.no_grad():
        if model.config.architecture == "encoder-decoder":
            ours = model.network(ids[:, :5], memory=model.network.encode(ids)).logits
            output = theirs(input_ids=ids, decoder_input_ids=ids[:, :5])
        else:
            ours, output = model.network(ids).logits, theirs(ids)
    logits = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", OWN_KINDS)
def test_a_model_of_our_own_kinds_learns_and_is_opened_again(preset, tmp_path):
    run = run_of(preset, tmp_path, train={"steps": 60, "batch_size": 8, "evaluate_every": 30, "learning_rate": 1e-2})
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    assert measures["held_out_loss"]["change"]["value"] < -1
    assert measures["held_out_accuracy"]["change"]["value"] > 0.1
    assert run.card["training"]["tokens"] == RunFolder(run.folder).events("start")[0]["plan"]["tokens"]
    model = lmworks.load(run.folder)
    is_recurrent = preset != "transformer-small"
    assert model.config.layer == (preset.removesuffix("-small") if is_recurrent else "attention")
    text = "The cat found"
    assert 0 < model.score([text])[0].nats < 40
    assert len(model.next(text)) == 10
    (reply,) = model.complete([text], SamplingSettings(max_tokens=40))  # beyond the windows of training
    assert reply.usage.completion_tokens == 40 or reply.stop_reason == "end"
    if is_recurrent:
        with pytest.raises(InputError, match="LoRA updates linears, and"):
            lmworks.tune(run.folder, data_of(preset, tmp_path), out=tmp_path / "tuned")
    further = {**small(preset), "method": "full"}
    further = {name: further[name] for name in ("train", "evaluate", "method")}
    again = lmworks.tune(run.folder, data_of(preset, tmp_path), out=tmp_path / "tuned", **further)
    assert again.stopped == "finished"


@pytest.mark.parametrize("preset", CLASSIFIERS)
def test_a_recurrent_or_convolutional_model_classifies(preset, tmp_path):
    rows = [
        {"text": text, "label": "animal" if "cat" in text or "dog" in text else "person"} for text in sentences(200)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": str(tmp_path / "rows.jsonl"), "held_out": 30}
    values = merge(small(preset), {"train": {"steps": 60, "batch_size": 8, "evaluate_every": 60}})
    run = lmworks.pretrain(preset, data, out=tmp_path / "run", task="classify", **values)
    (accuracy,) = (measure for measure in run.card["measures"] if measure["title"] == "Accuracy")
    assert accuracy["after"]["value"] > 0.9
    model = lmworks.load(run.folder / "final")
    assert [answer.label for answer in model.predict(["The cat sold her hat.", "My sister sold her hat."])] == [
        "animal",
        "person",
    ]
    if preset == "cnn-small":
        with pytest.raises(InputError, match="writes no texts"):
            model.generate("The cat")


def test_samples_show_how_the_model_changes(tmp_path):
    run = run_of("tinybert", tmp_path)
    (messages,) = run.card["progress"]
    assert [step for step, _ in messages["answers"]] == [0, 4, 8]
    assert "[MASK]" in messages["prompt"]
    assert "How its answers changed" in (run.folder / "report.html").read_text()


def test_a_persons_own_prompts_are_answered(tmp_path):
    run = run_of("tinybert", tmp_path, evaluate={"prompts": ["The cat [MASK] the moon."]})
    (messages,) = run.card["progress"]
    assert messages["prompt"] == "The cat [MASK] the moon."
    assert all(answer.startswith("The cat ") for _, answer in messages["answers"])


def test_the_tokenizer_is_trained_on_the_training_rows_alone(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"a plain row, number {n}" + chr(0x3B1 + n)}) + "\n" for n in range(20))
    )
    data = {"source": str(tmp_path / "rows.jsonl"), "held_out": 5}
    run = lmworks.pretrain("tinygpt", data, out=tmp_path / "run", **small("tinygpt"))
    known = Tokenizer.open(run.folder / "tokenizer").core.get_vocab()
    assert sum(chr(0x3B1 + n) in known for n in range(20)) == 15


def test_a_tokenizer_that_there_is_serves(tmp_path):
    first = run_of("tinygpt", tmp_path)
    folder = tmp_path / "second"
    folder.mkdir()
    second = run_of("tinygpt", folder, tokenizer={"source": str(first.folder)})
    assert second.model.tokenizer.core.get_vocab() == first.model.tokenizer.core.get_vocab()


def test_the_learning_rate_can_be_found(tmp_path):
    run = run_of("tinygpt", tmp_path, train={"find_learning_rate": True, "evaluate_every": 8})
    (result,) = RunFolder(run.folder).events("rate_finder")
    assert max(e["learning_rate"] for e in RunFolder(run.folder).events("step")) == result["learning_rate"]


def test_a_general_text_is_looked_for_though_nothing_is_forgotten(text, tmp_path):
    values = merge(small("tinygpt"), {"evaluate": {"general": str(tmp_path / "none.txt")}})
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        lmworks.pretrain("tinygpt", str(text), out=tmp_path / "run", **values)


@pytest.mark.parametrize("preset", ["tinygpt", "tinybert"])
def test_a_general_text_that_is_named_is_measured(preset, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("The sky was grey.\n\n" * 60)
    run = run_of(preset, tmp_path, evaluate={"general": str(other)})
    measure = next(measure for measure in run.card["measures"] if measure["key"].startswith("general"))
    assert (measure["title"], measure["detail"]) == ("Another text", "other.txt")
    assert measure["before"]["value"]
    assert measure["after"]["value"]
    assert "forg" not in run.card["summary"]


def test_nothing_held_out_is_nothing_measured(text, tmp_path):
    values = small("tinygpt")
    run = lmworks.pretrain("tinygpt", {"source": str(text), "held_out": 0}, out=tmp_path / "run", **values)
    assert run.card["measures"] == []
    assert run.card["training"]["steps"] == 8


def test_sections_are_given_in_python_as_in_a_recipe(text, tmp_path):
    values = small("tinygpt")
    shape = values.pop("model")
    plan = lmworks.plan("tinygpt", text, model=shape, **values)
    assert plan.parameters < 20_000
    assert lmworks.plan(model="tinygpt", data=text).parameters > plan.parameters
    more = lmworks.plan("tinygpt", text, model=shape, **values, data={"document": "paragraph", "held_out": 20})
    assert more.tokens <= plan.tokens
    run = lmworks.pretrain(preset="tinygpt", data=text, model=shape, out=tmp_path / "run", **values)
    assert run.card["parameters"]["total"] == plan.parameters


def test_sections_that_do_not_fit_are_named_in_python(text):
    for call in (lmworks.tune, lmworks.plan):
        with pytest.raises(InputError, match="is a setting of new models") as caught:
            call("a/model", text, model={"hidden_size": 64})
        assert "lmworks.pretrain" in caught.value.hint
        with pytest.raises(InputError, match="cannot be used here"):
            call("a/model", text, data="other.txt")
    with pytest.raises(InputError, match="data: is missing"):
        lmworks.plan("tinygpt")


def test_a_plan_counts_what_the_run_does(tmp_path):
    for preset in ("tinygpt", "transformer-tiny"):
        folder = tmp_path / preset
        folder.mkdir()
        data = data_of(preset, folder)
        values = merge(small(preset), {"data": data, "train": {"steps": None, "epochs": 1}})
        recipe = recipes.from_preset(preset, values)
        plan = set_up(recipe).plan
        run = lmworks.pretrain(preset, out=folder / "run", **values)
        assert run.card["costs"]["flops"] == pytest.approx(plan.flops["total"], rel=0.02)
        assert run.card["training"]["tokens"] == plan.tokens


def test_a_preset_takes_fewer_words_where_the_text_gives_no_more(text, tmp_path):
    values = small("llama-1m")
    del values["tokenizer"]
    run = lmworks.pretrain("llama-1m", {"source": str(text)}, out=tmp_path / "run", **values)
    assert 256 < run.model.config.vocab_size < 2048
    assert run.model.config.vocab_size == run.model.tokenizer.vocab_size


KILLED = """
import os, signal, sys
from lmworks.base.journal import RunFolder
stage, write = sys.argv[1], RunFolder.write
def kill(self, event, **fields):
    written = write(self, event, **fields)
    at = {"before training": event == "data", "training": event == "step" and fields["step"] == 7,
          "sampling": event == "samples" and fields.get("step") == 4, "evaluation after": event == "session_end"}
    if at[stage]:
        os.kill(os.getpid(), signal.SIGKILL)
    return written
RunFolder.write = kill
from lmworks.commands.main import main
main(["pretrain", *sys.argv[2:]])
"""


@pytest.mark.parametrize(
    ("preset", "stage"),
    [
        ("tinygpt", "training"),
        ("tinybert", "before training"),
        ("tinybert", "sampling"),
        ("tinyt5", "training"),
        ("tinyt5", "evaluation after"),
        ("lstm-small", "training"),
    ],
)
def test_a_run_killed_in_any_stage_goes_on_bit_for_bit(preset, stage, text, tmp_path):
    words = [preset, str(text), *options(preset), "--train.checkpoint_every", "3", "--model.hidden_dropout", "0.1"]
    words += ["--data.document", "paragraph", "--data.held_out", "4"]
    assert (
        subprocess.run(command(stage, *words, tmp_path / "killed"), check=False, capture_output=True).returncode == -9
    )
    recipe = recipes.read(tmp_path / "killed" / "recipe.yaml", {"out": str(tmp_path / "whole")})
    whole = run_recipe(recipe)
    resumed = lmworks.resume(tmp_path / "killed")
    messages = [[(e["step"], e["loss"]) for e in RunFolder(run.folder).events("step")] for run in (resumed, whole)]
    assert messages[0] == messages[1]
    assert len(messages[0]) == 8
    assert not RunFolder(resumed.folder).events("divergence")
    figures = [[m["after"]["value"] for m in run.card["measures"]] for run in (resumed, whole)]
    assert figures[0] == figures[1]
    weights = [load_file(run.folder / "final" / "model.safetensors") for run in (resumed, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def command(stage, *words):
    return [sys.executable, "-c", KILLED, stage, *words[:-1], "--out", str(words[-1])]


class TestErrors:
    """What a person can correct is said before anything is written."""

    def refused(self, text, tmp_path, match, preset="tinygpt", **changes):
        values = merge(small(preset), {"data": {"source": str(text)}, **changes})
        with pytest.raises(InputError, match=match) as messages:
            lmworks.pretrain(preset, out=tmp_path / "run", **values)
        assert messages.value.hint
        assert not (tmp_path / "run").exists()
        return messages.value

    def test_a_text_shorter_than_one_context(self, tmp_path):
        short = tmp_path / "short.txt"
        short.write_text("Too short a text.\n")
        messages = self.refused(short, tmp_path, "shorter than one context of 32")
        assert "--model.max_position_embeddings" in messages.hint

    def test_a_vocabulary_that_the_text_cannot_fill(self, text, tmp_path):
        messages = self.refused(
            text, tmp_path, "more than the text can fill", "llama-1m", tokenizer={"vocab_size": 5000}
        )
        assert "--tokenizer.vocab-size" in messages.hint

    def test_an_empty_file(self, tmp_path):
        empty = tmp_path / "empty.txt"
        empty.write_text("")
        self.refused(empty, tmp_path, "empty")

    def test_a_mask_that_the_tokenizer_lacks(self, text, tmp_path):
        first = run_of("tinygpt", tmp_path)
        (tmp_path / "other").mkdir()
        self.refused(text, tmp_path / "other", "mask", "tinybert", tokenizer={"source": str(first.folder)})

    def test_a_row_with_one_side_missing(self, tmp_path):
        pairs = tmp_path / "pairs.tsv"
        pairs.write_text("source\ttarget\nA cat.\tUn chat.\nA dog.\t\n")
        self.refused(pairs, tmp_path, "target", "transformer-tiny")

    def test_a_task_of_another_architecture(self, text, tmp_path):
        self.refused(text, tmp_path, "task masked trains an encoder", task="masked")

    def test_what_the_family_cannot_say(self, text, tmp_path):
        self.refused(text, tmp_path, "cannot say", model={"norm": "rms"})

    def test_a_family_that_there_is_not(self, text, tmp_path):
        self.refused(text, tmp_path, "no family", family="gpt9")
