"""Whole runs: from a model and a file to a card, a model that everyone opens, and the same again after a kill."""

import json
import subprocess
import sys

import pytest
import torch
from tiny_model import options, save_questions, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(name="data")
def _data(tmp_path):
    return save_questions(tmp_path / "faq.jsonl")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_learns_and_its_card_says_so(model, data, tmp_path, method):
    rates = {"learning_rate": 5e-3, "epochs": 2}
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= rates
    run = lmworks.tune(str(model), given, method=method, out=tmp_path / "run", **values)
    assert run.stopped == "finished"
    card = run.card
    measures = {measure["key"]: measure for measure in card["measures"]}
    assert measures["held_out_loss"]["verdict"] == "better"
    assert measures["held_out_loss"]["after"]["value"] < measures["held_out_loss"]["before"]["value"]
    assert measures["task"]["rows"] == 6
    assert card["run"]["state"] == "finished"
    assert card["data"]["held_out"] == 8
    assert card["training"]["steps"] == 2 * 13
    assert json.loads((tmp_path / "run" / "report.json").read_text())["measures"] == card["measures"]
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()


def test_the_result_opens_here_and_in_transformers_and_peft_alike(model, data, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"]["learning_rate"] = 1e-2
    run = lmworks.tune(str(model), given, out=tmp_path / "run", **values)
    merged = run.model.save(tmp_path / "merged")
    ids = torch.tensor([run.model.tokenizer.encode("What is 7 and 7?")])
    with torch.no_grad():
        ours = run.model.network(ids).logits
        base = lmworks.load(str(model)).network(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        whole = AutoModelForCausalLM.from_pretrained(model)
        adapted = peft.PeftModel.from_pretrained(whole, run.folder / "final")(ids).logits
        again = lmworks.load(str(merged)).network(ids).logits
    assert (ours - base).abs().max() > 1e-3
    for other in (theirs, adapted, again):
        torch.testing.assert_close(other, ours, atol=1e-4, rtol=1e-4)


def test_the_prompt_of_training_is_the_prompt_of_the_chat(model, data, tmp_path):
    from lmworks.data.answers import answer_examples
    from lmworks.text import chat, corpus
    from lmworks.text.rows import DataSettings

    tokenizer = lmworks.load(str(model)).tokenizer
    table = corpus.read(str(data))
    created = answer_examples(table, tokenizer, DataSettings(), 256)
    for row, example in zip(table.rows, created, strict=True):
        ids, _ = chat.encode(tokenizer, [{"role": "user", "content": row.values["prompt"]}], reply=True)
        assert example.ids[: len(ids)].tolist() == ids
        assert not example.loss[: len(ids)].any()
        assert example.loss[len(ids)]


def test_full_tuning_in_more_steps_stops_early_and_keeps_the_best(model, data, tmp_path):
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= {"learning_rate": 0.3, "epochs": 6, "evaluate_every": 5, "patience": 2, "schedule": "constant"}
    run = lmworks.tune(str(model), given, method="full", out=tmp_path / "run", **values)
    events = RunFolder(run.folder)
    seen = [event["held_out"]["loss"] for event in events.events("evaluation") if event["when"] == "step"]
    after = next(event for event in events.events("evaluation") if event["when"] == "after")
    assert run.stopped == "early"
    assert after["held_out"]["loss"] == pytest.approx(min(seen), rel=1e-5)


@pytest.mark.parametrize("stage", ["before training", "training", "evaluation after"])
def test_a_run_killed_in_any_stage_goes_on(model, data, tmp_path, stage):
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    whole = lmworks.tune(str(model), given, out=tmp_path / "whole", **values)
    command = [sys.executable, "-c", KILLED, stage, str(model), str(data), str(tmp_path / "killed"), *options()]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    resumed = lmworks.resume(tmp_path / "killed")
    output = [[(e["step"], e["loss"]) for e in RunFolder(run.folder).events("step")] for run in (resumed, whole)]
    assert output[0] == output[1]
    assert not RunFolder(resumed.folder).events("divergence")
    figures = [[m["after"]["value"] for m in run.card["measures"]] for run in (resumed, whole)]
    assert figures[0] == figures[1]


KILLED = """
import os, signal, sys
from lmworks.base.journal import RunFolder
stage, write = sys.argv[1], RunFolder.write
def kill(self, event, **fields):
    written = write(self, event, **fields)
    at = {"before training": event == "data", "training": event == "step" and fields["step"] == 7,
          "evaluation after": event == "session_end"}
    if at[stage]:
        os.kill(os.getpid(), signal.SIGKILL)
    return written
RunFolder.write = kill
from lmworks.commands.main import main
main(["tune", sys.argv[2], sys.argv[3], "--out", sys.argv[4], *sys.argv[5:]])
"""


class TestCommands:
    def test_tune_report_resume_and_chat(self, model, data, tmp_path, capsys):
        run = tmp_path / "run"
        assert main(["tune", str(model), str(data), "--out", str(run), *options()]) == 0
        output = capsys.readouterr().out
        assert "report.html" in output
        assert "held out" in output
        assert main(["resume", str(run)]) == 0
        assert "finished already" in capsys.readouterr().out
        assert main(["report", str(run)]) == 0
        assert main(["chat", str(run), "--ask", "What is 3 and 3?", "--max-tokens", "4"]) == 0
        assert main(["generate", str(run), "What", "Who", "--max-tokens", "3"]) == 0
        assert main(["score", str(run), "What is it?"]) == 0
        assert main(["next", "What", "--model", str(run), "--top", "3"]) == 0
        assert main(["save", str(run), str(tmp_path / "saved")]) == 0
        assert (tmp_path / "saved" / "model.safetensors").is_file()

    def test_dry_run_prints_the_recipe_and_writes_nothing(self, model, data, tmp_path, capsys):
        words = [
            "tune",
            str(model),
            str(data),
            "--dry-run",
            "--train.learning_rate",
            "2e-4",
            "--out",
            str(tmp_path / "x"),
        ]
        assert main(words) == 0
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(capsys.readouterr().out)
        assert main(["tune", str(recipe), "--dry-run"]) == 0
        assert capsys.readouterr().out == recipe.read_text()
        assert "learning_rate: 0.0002" in recipe.read_text()
        assert not (tmp_path / "x").exists()

    def test_plan_says_what_it_needs(self, model, data, capsys):
        assert main(["plan", str(model), str(data), *options()]) == 0
        output = capsys.readouterr().out
        assert all(word in output for word in ("parameters", "memory", "time", "disk"))

    def test_recipe_schema_is_json(self, capsys):
        assert main(["recipe", "schema"]) == 0
        assert json.loads(capsys.readouterr().out)["properties"]["train"]


class TestErrors:
    """Exit code 2, the place and the hint, and nothing half-written."""

    @pytest.mark.parametrize(
        ("content", "output"),
        [
            (b"", "empty"),
            (b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "comp', "faq.jsonl:2"),
            (b'{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n', "faq.jsonl:2"),
            ('{"prompt": "é", "completion": "b"}\n'.encode("latin-1"), "faq.jsonl:1"),
            (b'{"one": "a", "two": "b"}\n', "columns"),
        ],
    )
    def test_bad_data(self, model, tmp_path, capsys, content, output):
        path = tmp_path / "faq.jsonl"
        path.write_bytes(content)
        assert main(["tune", str(model), str(path), "--out", str(tmp_path / "run"), *options()]) == 2
        error = capsys.readouterr().err
        assert output in error
        assert "hint:" in error
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("words", "output"),
        [
            (["--train.learning_rat", "1"], "train.learning_rate"),
            (["--data.max_tokens", "9999"], "context is 256"),
            (["--lora.target_modules", "nothing"], "lora.target_modules"),
            (["--train.epochs", "-1"], "train.epochs"),
        ],
    )
    def test_bad_settings(self, model, data, tmp_path, capsys, words, output):
        assert main(["tune", str(model), str(data), "--out", str(tmp_path / "run"), *options(), *words]) == 2
        assert output in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_an_existing_run_is_not_overwritten(self, model, data, tmp_path, capsys):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine").write_text("x")
        assert main(["tune", str(model), str(data), "--out", str(tmp_path / "run"), *options()]) == 2
        assert "resume" not in capsys.readouterr().err  # it is no run
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]
        (tmp_path / "run" / "journal.jsonl").write_text("")
        assert main(["tune", str(model), str(data), "--out", str(tmp_path / "run"), *options()]) == 2
        assert "lmworks resume" in capsys.readouterr().err

    def test_data_that_changed_is_not_resumed(self, model, data, tmp_path):
        command = [sys.executable, "-c", KILLED, "training", str(model), str(data), str(tmp_path / "run"), *options()]
        subprocess.run([*command, "--train.checkpoint_every", "2"], check=False, capture_output=True)
        save_questions(data, [{"prompt": "Who?", "completion": f"I, {n}"} for n in range(60)])
        with pytest.raises(InputError, match="data"):
            lmworks.resume(tmp_path / "run")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_damaged_model(self, data, tmp_path, capsys, name):
        folder = save_tiny(tmp_path / "model")
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
        assert main(["tune", str(folder), str(data), *options()]) == 2
        assert name in capsys.readouterr().err

    def test_nan_stops_and_says_so(self, model, data, tmp_path, capsys):
        words = [
            "--train.learning_rate",
            "1e30",
            "--train.max_grad_norm",
            "0",
            "--train.warmup",
            "0",
            "--method",
            "full",
        ]
        assert main(["tune", str(model), str(data), "--out", str(tmp_path / "run"), *options(), *words]) == 2
        assert "not a finite number" in capsys.readouterr().err
        assert RunFolder(tmp_path / "run").events("failure")
