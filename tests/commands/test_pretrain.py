"""lmworks pretrain, and plan, resume, recipe and report for models from scratch."""

import json

import pytest
from tiny_presets import options, save_pairs, save_text

from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.run import presets


@pytest.fixture(name="text")
def _text(tmp_path):
    return save_text(tmp_path / "text.txt")


def test_pretrain_report_resume_and_what_it_is_used_for(text, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "tinygpt", str(text), "--out", str(run), *options("tinygpt")]) == 0
    output = capsys.readouterr().out
    for word in (
        "parameters",
        "memory",
        "Perplexity",
        "Token accuracy",
        "bits per byte",
        "step 8",
        "report.html",
    ):
        assert word in output
    assert main(["resume", str(run)]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main(["report", str(run), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["run"]["task"]["name"] == "causal"
    assert card["run"]["tokenizer"]["kind"] == "char"
    assert main(["generate", str(run), "The", "--max-tokens", "4"]) == 0
    assert main(["next", "The", "--model", str(run)]) == 0
    assert main(["score", str(run), "The cat."]) == 0


def test_a_preset_written_out_changed_and_trained(text, tmp_path, capsys):
    mine = tmp_path / "my.yaml"
    assert main(["recipe", "show", "--preset", "tinybert", str(text), *options("tinybert")]) == 0
    mine.write_text(capsys.readouterr().out)
    words = [str(mine), "--train.steps", "3", "--train.evaluate_every", "3", "--out", str(tmp_path / "run")]
    assert main(["pretrain", *words]) == 0
    assert len(RunFolder(tmp_path / "run").events("step")) == 3
    capsys.readouterr()
    assert main(["plan", str(mine)]) == 0
    assert "parameters" in capsys.readouterr().out


def test_dry_run_prints_the_recipe_and_writes_nothing(text, tmp_path, capsys):
    words = [
        "pretrain",
        "tinyt5",
        str(text),
        "--dry-run",
        "--model.num_hidden_layers",
        "2",
        "--out",
        str(tmp_path / "x"),
    ]
    assert main(words) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(capsys.readouterr().out)
    assert main(["pretrain", str(recipe), "--dry-run"]) == 0
    assert capsys.readouterr().out == recipe.read_text()
    assert "num_hidden_layers: 2" in recipe.read_text()
    assert not (tmp_path / "x").exists()


def test_plan_knows_presets(text, tmp_path, capsys):
    assert main(["plan", "tinygpt", str(text), "--json", *options("tinygpt")]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 8
    assert main(["plan", "tinygpt", str(text), "--method", "lora", *options("tinygpt")]) == 0
    assert "trained 4,096 (" in capsys.readouterr().out


def test_rows_of_source_and_target(tmp_path, capsys):
    pairs = save_pairs(tmp_path / "pairs.tsv")
    run = tmp_path / "run"
    assert main(["pretrain", "transformer-tiny", str(pairs), "--out", str(run), *options("transformer-tiny")]) == 0
    capsys.readouterr()
    assert main(["translate", "The cat saw the moon.", "--model", str(run), "--max-tokens", "4"]) == 0


def test_every_preset_is_listed_with_its_size(capsys):
    assert main(["recipe", "presets"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n{name} " in output and f"{name}: " in output for name in presets.names())
    assert "124.4 M" in output


def test_the_settings_of_pretrain_are_listed(capsys):
    assert main(["recipe", "list", "--pretrain"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("model.num_hidden_layers", "tokenizer.kind", "task.mask_rate"))
    assert "comparison." not in output
    assert main(["recipe", "schema", "--pretrain"]) == 0
    assert "task" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["tinygtp"], "did you mean tinygpt"),
        (["tinygpt", "--model.num_attention_heads", "5"], "does not divide"),
        (["tinygpt", "--model.num_hidden_layer", "2"], "model.num_hidden_layers"),
        (["tinybert", "--task", "causal"], "task causal trains a decoder"),
        (["tinybert", "--objective.name", "causal"], "--task"),
        (["llama-1m", "--tokenizer.vocab_size", "100000"], "more than the text can fill"),
    ],
)
def test_what_cannot_be_used_is_said(text, tmp_path, capsys, words, output):
    assert main(["pretrain", words[0], str(text), "--out", str(tmp_path / "run"), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert output in error
    assert "hint:" in error
    assert not (tmp_path / "run").exists()


def test_no_data_is_named(capsys):
    assert main(["pretrain", "tinygpt"]) == 2
    assert "no data set is named" in capsys.readouterr().err


def test_a_preset_that_is_to_be_tuned_is_said_to_be_one(text, capsys):
    assert main(["tune", "tinygpt", str(text)]) == 2
    shown = capsys.readouterr().err
    assert "is the preset of a new model" in shown
    assert f"hint: train it: lmworks pretrain tinygpt {text}" in shown
