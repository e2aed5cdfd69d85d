"""Sources x methods x tasks: each combination learns, is measured by its own figures, and its result opens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import save_questions, save_tiny
from tiny_presets import save_pairs, save_text, sentences, small

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.settings import merge
from lmworks.commands.main import main

TRAIN = {
    "steps": 16, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32", "threads": 1, "warmup": 0,
    "schedule": "constant", "evaluate_every": 16,
}  # fmt: skip
SETTINGS = {"lora": {"lora": {"target_modules": "all-linear"}}, "last_layers": {"last_layers": {"layers": 1}}}
EVALUATE = {"task_rows": 4, "max_tokens": 4, "general_bytes": 600, "samples": 1}
ENCODER, T5, BART, DECODER = "tinybert", "tinyt5", "bart-base", "llama-1m"


@pytest.fixture(scope="module", name="models")
def _models(tmp_path_factory):
    """A new model of each architecture, after a few steps."""
    folder = tmp_path_factory.mktemp("models")
    text = save_text(folder / "text.txt")
    result = {}
    for preset in (ENCODER, T5, BART, DECODER):
        data = {"source": str(text), "document": "paragraph", "held_out": 2}
        values = merge(small(preset), {"train": {"steps": 2, "evaluate_every": 2}})
        result[preset] = str(lmworks.pretrain(preset, data, out=folder / preset, **values).folder)
    return result


def save_rows(kind, folder):
    """A file of rows of a kind."""
    if kind == "text":
        return {"source": str(save_text(folder / "rows.txt")), "document": "paragraph", "held_out": 4}
    if kind == "pairs":
        return {"source": str(save_pairs(folder / "rows.tsv", 48)), "held_out": 6}
    if kind == "labels":
        rows = [{"text": text, "label": "feline" if "cat" in text else "other"} for text in sentences(48)]
    else:
        rows = [{"prompt": text, "completion": text.lower()} for text in sentences(48)]
    return {"source": str(save_questions(folder / "rows.jsonl", rows)), "held_out": 6}


@pytest.mark.parametrize(
    ("source", "method", "kind", "task", "figures"),
    [
        (ENCODER, "lora", "text", "masked", {"held_out_perplexity", "held_out_accuracy", "general_loss"}),
        (ENCODER, "full", "text", "masked", {"general_loss"}),
        (T5, "lora", "text", "spans", {"held_out_perplexity", "general_loss"}),
        (T5, "full", "pairs", "seq2seq", {"task", "held_out_bits", "general_loss"}),
        (T5, "lora", "completion", "seq2seq", {"task"}),
        (T5, "full", "labels", "seq2seq", {"task"}),
        (ENCODER, "lora", "labels", "classify", {"accuracy", "macro_f1", "roc_auc", "calibration_error"}),
        (DECODER, "lora", "labels", "classify", {"accuracy"}),
        (BART, "lora", "labels", "classify", {"accuracy"}),
        (T5, "full", "labels", "classify", {"accuracy"}),
        (BART, "full", "text", "denoising", {"general_loss"}),
        (BART, "lora", "pairs", "seq2seq", {"task", "general_loss"}),
        (DECODER, "lora", "pairs", "instructions", {"task", "held_out_bits", "general_bits"}),
        (DECODER, "last_layers", "text", "causal", {"held_out_perplexity", "general_bits"}),
    ],
)
def test_a_model_that_is_opened_learns(models, tmp_path, source, method, kind, task, figures):
    group = SETTINGS.get(method, {})
    data = save_rows(kind, tmp_path)
    chosen = {"task": task} if (kind, task) == ("labels", "seq2seq") else {}  # all others are chosen by the rows
    run = lmworks.tune(
        models[source], data, method=method, out=tmp_path / "run", train=TRAIN, evaluate=EVALUATE, **group, **chosen
    )
    card = run.card
    assert (card["run"]["task"]["name"], card["run"]["method"]) == (task, method)
    measures = {measure["key"]: measure for measure in card["measures"]}
    assert figures <= set(measures)
    steps = [event["loss"] for event in RunFolder(run.folder).events("step")]
    if task == "classify":  # a new head knows nothing that a few held-out rows would show
        assert steps[-1] < 0.8 * steps[0]
    else:
        assert measures["held_out_loss"]["change"]["value"] < 0
    headline = next((key for key in ("task", "accuracy") if key in figures), "held_out_loss")
    assert next(iter(measures)) == headline
    assert card["samples"][0]["after"] is not None
    planned = RunFolder(run.folder).events("start")[0]["plan"]
    vary = 0.01 if task == "denoising" else 0  # the lengths of what it hides are random
    assert card["training"]["steps"] == planned["steps"]
    assert card["training"]["tokens"] == pytest.approx(planned["tokens"], rel=vary, abs=0)
    assert run.model.config.architecture == lmworks.load(models[source]).config.architecture


@pytest.mark.parametrize("method", ["lora", "last_layers", "full"])
def test_any_method_trains_a_new_model(method, tmp_path):
    values = {**small("tinygpt"), **SETTINGS.get(method, {})}
    text = str(save_text(tmp_path / "text.txt"))
    run = lmworks.pretrain("tinygpt", text, method=method, out=tmp_path / "run", **values)
    assert (run.folder / "final" / "model.safetensors").is_file()  # whole: no other file has its weights
    assert run.card["parameters"]["trainable"] <= run.card["parameters"]["total"]
    assert run.model.generate("The cat", max_tokens=3)


def test_a_preset_takes_another_task_of_its_architecture(tmp_path):
    data = save_rows("pairs", tmp_path)
    run = lmworks.pretrain("tinyt5", data, task="seq2seq", out=tmp_path / "run", **small("tinyt5"))
    recipe = (run.folder / "recipe.yaml").read_text()
    assert "name: seq2seq" in recipe
    assert "windows: chunks" in recipe  # the preset's own setting was of its task


def test_labels_of_texts_are_left_alone_by_a_task_that_is_asked_for(models, tmp_path):
    data = save_rows("labels", tmp_path)
    run = lmworks.tune(models[ENCODER], data, task="masked", out=tmp_path / "run", train=TRAIN, evaluate=EVALUATE)
    assert run.card["run"]["task"]["name"] == "masked"


def test_prompts_of_a_person_are_answered_by_an_opened_model_too(models, tmp_path):
    evaluate = {**EVALUATE, "prompts": ["The cat [MASK] the moon."]}
    data = save_rows("text", tmp_path)
    run = lmworks.tune(models[ENCODER], data, out=tmp_path / "run", train=TRAIN, evaluate=evaluate)
    assert run.card["samples"][0]["after"].startswith("The cat ")


KILLED = """
import os, signal, sys
from lmworks.base.journal import RunFolder
write = RunFolder.write
def kill(self, event, **fields):
    written = write(self, event, **fields)
    if event == "step" and fields["step"] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return written
RunFolder.write = kill
from lmworks.commands.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("source", "kind"), [(ENCODER, "text"), (T5, "pairs")])
def test_a_killed_run_goes_on_bit_for_bit(models, tmp_path, source, kind):
    data = save_rows(kind, tmp_path)
    whole = lmworks.tune(models[source], data, out=tmp_path / "whole", train=TRAIN, evaluate=EVALUATE)
    options = [f"--{name}={value}" for name, value in data.items() if name != "source"]
    options = [option.replace("--", "--data.") for option in options]
    options += [f"--train.{name}={value}" for name, value in TRAIN.items()]
    options += [f"--evaluate.{name}={value}" for name, value in EVALUATE.items()]
    words = ["tune", models[source], data["source"], "--out", str(tmp_path / "killed"), *options]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words, "--train.checkpoint_every=3"], check=False)
    assert killed.returncode == -9
    resumed = lmworks.resume(tmp_path / "killed")
    losses = [[(e["step"], e["loss"]) for e in RunFolder(run.folder).events("step")] for run in (resumed, whole)]
    assert losses[0] == losses[1]
    figures = [[m["after"]["value"] for m in run.card["measures"]] for run in (resumed, whole)]
    assert figures[0] == figures[1]


class TestRefusals:
    """What cannot be trained is said before weights are opened: the model's file of weights is not there."""

    @pytest.fixture(name="hollow")
    def _hollow(self, models, tmp_path):
        folder = tmp_path / "hollow"
        shutil.copytree(f"{models[ENCODER]}/final", folder)
        (folder / "model.safetensors").unlink()
        return str(folder)

    @pytest.mark.parametrize(
        ("kind", "words", "messages"),
        [
            ("completion", [], "does not learn rows of kind completion"),
            ("pairs", ["--task", "seq2seq"], "task seq2seq trains an encoder-decoder"),
            ("text", ["--task", "maskd"], "did you mean masked?"),
            ("text", ["--task", "masked", "--task.prefix", "x"], "task masked does not use it"),
            ("text", ["--task.windos", "random"], "did you mean task.windows?"),
            ("text", ["--lora.target_modules", "nothing"], "lora.target_modules"),
            ("text", ["--model.hidden_size", "64"], "is a setting of new models"),
            ("text", ["--tokenizer.kind", "char"], "is a setting of new models"),
        ],
    )
    def test_of_an_encoder(self, hollow, tmp_path, capsys, kind, words, messages):
        data = save_rows(kind, tmp_path)["source"]
        assert main(["tune", hollow, data, "--out", str(tmp_path / "run"), *words]) == 2
        error = capsys.readouterr().err
        assert messages in error
        assert "hint:" in error
        assert not (tmp_path / "run").exists()

    def test_a_model_that_only_embeds_learns_no_texts(self, hollow, tmp_path):
        file = Path(hollow, "config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": ["BertModel"]}))
        with pytest.raises(InputError, match="only embeds") as refusal:
            lmworks.tune(hollow, save_rows("text", tmp_path), out=tmp_path / "run")
        assert "smollm2-135m-instruct" in refusal.value.hint

    def test_an_adapter_as_the_source_and_its_hint_works_when_obeyed(self, models, tmp_path, capsys):
        values = {"train": {**TRAIN, "steps": 2}, "evaluate": EVALUATE}
        run = lmworks.tune(models[DECODER], save_rows("pairs", tmp_path), out=tmp_path / "run", **values)
        with pytest.raises(InputError, match="is an adapter") as refusal:
            lmworks.tune(str(run.folder), save_rows("pairs", tmp_path), out=tmp_path / "second", **values)
        assert not (tmp_path / "second").exists()
        words = refusal.value.hint.partition("lmworks save ")[2].partition(",")[0].split()
        assert main(["save", words[0], str(tmp_path / "whole")]) == 0
        lmworks.tune(str(tmp_path / "whole"), save_rows("pairs", tmp_path), out=tmp_path / "second", **values)

    def test_settings_given_to_resume_are_refused(self, models, capsys):
        assert main(["resume", models[DECODER], "--train.steps", "9"]) == 2
        assert "--train.steps" in capsys.readouterr().err


def test_held_out_prompts_without_room_are_left_out_and_named(tmp_path):
    """They stop no run: they are rows with a file and line."""
    rows = [{"prompt": f"Say {n}?", "completion": f"{n}."} for n in range(40)]
    rows += [{"prompt": f"{n} " * 200, "completion": "long"} for n in range(40)]
    model = save_tiny(tmp_path / "model")
    data = {"source": str(save_questions(tmp_path / "rows.jsonl", rows)), "held_out": 20, "allow_no_loss": True}
    messages = []
    run = lmworks.tune(
        str(model), data, out=tmp_path / "run", train=TRAIN, evaluate={**EVALUATE, "task_rows": 20}, say=messages.append
    )
    (note,) = [line for line in messages if "are not asked" in line]
    assert "rows.jsonl:" in note
    asked = run.card["measures"][0]["rows"]
    assert 0 < asked < 20
    assert json.loads((run.folder / "journal.jsonl").read_text().splitlines()[1])["notes"]
