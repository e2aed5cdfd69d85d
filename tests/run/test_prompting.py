"""A run that trains nothing: the same rows and figures as a trained one, a prompt chosen on rows to train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_model import QUESTIONS, save_questions, save_tiny, settings
from tiny_tokenizers import byte_level
from tokenizers import normalizers

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.data.prompts import Prompt
from lmworks.run import prompting
from lmworks.run.prompt_candidates import _check_labels, draw
from lmworks.text.rows import Row, Table

COLOURS = [{"text": f"the {thing} number {n}", "label": shade} for n in range(20) for thing, shade in
           (("grass", "green"), ("snow", "white"), ("coal", "black"))]  # fmt: skip
SHOTS = {"shots": 3, "validation": 8}


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", context=1024)


@pytest.fixture(scope="module", name="colours")
def _colours(tmp_path_factory) -> Path:
    return save_questions(tmp_path_factory.mktemp("rows") / "colours.jsonl", COLOURS)


def run(model: Path, data: Path, out: Path, method: str = "prompting", task: str | None = None, **given) -> lmworks.Run:
    values = settings()
    values = {**values, "data": {**values["data"], "source": str(data)}}
    if method == "prompting":
        values["train"] = {"threads": 1}
        values["prompting"] = {**SHOTS, **given}
    else:
        values["train"] |= {"steps": 2, "learning_rate": 1e-4}
    if task:
        values["task"] = task
    return lmworks.tune(str(model), values.pop("data"), method=method, out=out, **values)


def evaluations(folder: Path) -> dict[str, dict]:
    return {event["when"]: event for event in RunFolder(folder).events("evaluation")}


@pytest.mark.parametrize("examples", ["random", "nearest"])
def test_labels_are_chosen_by_the_prompt_and_the_opened_result_says_the_same(
    model, colours, tmp_path, examples, capsys
):
    ended = run(model, colours, tmp_path / "run", task="labels", examples=examples, encoder=str(model))
    folder = RunFolder(ended.folder)
    evaluated = evaluations(ended.folder)
    (chosen,) = folder.events("chosen_prompt")
    measured = folder.events("prompt")
    assert [event["number"] for event in measured] == list(range(chosen["candidates"]))
    assert all(event["rows"] == 8 for event in measured)
    best = max(measured, key=lambda event: (event["accuracy"], -event["loss"]))
    assert chosen["number"] == best["number"]
    assert chosen["calibration"] is True
    start, finish = folder.events("start")[0], folder.events("finish")[0]
    assert start["parameters"]["trainable"] == 0
    assert finish["stopped"] == "finished"
    opened = ended.model
    assert torch.equal(opened.network.embed_tokens.weight, lmworks.load(model).network.embed_tokens.weight)
    rows = {sample["prompt"]: sample for sample in folder.events("samples")[-1]["items"]}
    for text, sample in rows.items():
        assert opened.generate(text) == opened.predict([text])[0].label == sample["answer"]
    assert evaluated["before"]["general"] == evaluated["after"]["general"]
    card = ended.card
    assert card["measures"][0]["key"] == "task"
    assert card["prompts"]["number"] == chosen["number"]
    assert "(chosen)" in (ended.folder / "report.html").read_text()
    assert main(["predict", str(ended.folder), str(colours), "--rows", "2"]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_its_figures_are_those_of_a_trained_run_on_the_same_rows(model, colours, tmp_path):
    questions = save_questions(tmp_path / "questions.jsonl")
    for data, task in ((colours, "labels"), (questions, None)):
        ours = evaluations(run(model, data, tmp_path / f"{task}-ours", task=task).folder)
        theirs = evaluations(run(model, data, tmp_path / f"{task}-theirs", "lora", task).folder)
        assert ours["before"]["task"] == theirs["before"]["task"]
        assert ours["before"]["held_out"] == theirs["before"]["held_out"]
        after, trained = ours["after"], theirs["after"]
        assert after.keys() == trained.keys()
        for part in ("task", "held_out", "general"):
            assert after[part].keys() == trained[part].keys()
        assert after["held_out"]["row_tokens"] == trained["held_out"]["row_tokens"]
        assert after["held_out"]["row_bytes"] == trained["held_out"]["row_bytes"]
        assert len(after["task"]["values"]) == len(trained["task"]["values"])
        assert after["task"].get("references") == trained["task"].get("references")


def test_validation_and_examples_are_never_held_out_rows(model, colours, tmp_path, monkeypatch):
    seen: list[Table] = []
    figures = prompting._figures
    monkeypatch.setattr(
        prompting, "_figures", lambda m, t, p, candidates: (seen.append(candidates), figures(m, t, p, candidates))[1]
    )
    run(model, colours, tmp_path / "run", task="labels")
    candidates = seen[0]
    parts = [
        {row.place for row in table.rows} for table in (candidates.validation, candidates.pool, candidates.held_out)
    ]
    assert [len(part) for part in parts] == [8, 44, 8]
    assert len(set.union(*parts)) == 60
    saved = (tmp_path / "run" / "final" / "examples.jsonl").read_text().splitlines()
    texts = {row.values["text"] for row in candidates.pool.rows}
    assert len(saved) == 3
    assert {json.loads(line)["text"] for line in saved} <= texts
    assert {json.loads(line)["label"] for line in saved} == {"black", "green", "white"}


def test_prompts_are_answered_and_the_result_goes_on_as_evaluated(model, tmp_path):
    data = save_questions(tmp_path / "faq.jsonl")
    ended = run(model, data, tmp_path / "run")
    measured = RunFolder(ended.folder).events("prompt")
    assert all("accuracy" not in event for event in measured)
    (chosen,) = RunFolder(ended.folder).events("chosen_prompt")
    assert chosen["number"] == min(measured, key=lambda event: event["loss"])["number"]
    samples = RunFolder(ended.folder).events("samples")[-1]["items"]
    for sample in samples:
        answer = ended.model.generate(sample["prompt"], max_tokens=6).strip()
        assert answer == sample["answer"] == ended.model.chat(
            [{"role": "user", "content": sample["prompt"]}], max_tokens=6
        ).strip()  # fmt: skip
    with pytest.raises(InputError, match="a prompt beside its base"):
        run(ended.folder, data, tmp_path / "again")


def test_conversations_are_asked_after_conversations(model, tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in QUESTIONS
    ]
    ended = run(model, save_questions(tmp_path / "chats.jsonl", chats), tmp_path / "run")
    before, after = (evaluations(ended.folder)[when]["held_out"] for when in ("before", "after"))
    assert before["row_tokens"] == after["row_tokens"]
    assert before["row_nats"] != after["row_nats"]
    (shown,) = ended.model.few_shot.examples.before(["any"])
    said = [turn["content"] for row in shown for turn in row.values["messages"]]
    text = ended.model.tokenizer.decode(ended.model._prompt("What is 3 and 4?", raw=False).ids)
    assert len(said) == 6
    assert all(each in text for each in said)
    assert "What is 3 and 4?" in text


def test_without_examples_and_with_one_template_nothing_is_measured(model, colours, tmp_path):
    templates = tmp_path / "one.txt"
    templates.write_text("Colour of {text}:")
    given = {"shots": 0, "templates": str(templates), "calibration": False}
    ended = run(model, colours, tmp_path / "run", task="labels", **given)
    assert RunFolder(ended.folder).events("prompt") == []
    (prompt,) = ended.model._prompts(["the sky"], raw=False)
    assert isinstance(prompt, Prompt)
    assert ended.model.tokenizer.decode(prompt.ids, skip_special=False) == (
        "<|im_start|>user\nColour of the sky:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.content_free == []


def test_killed_it_goes_on_to_the_same_end(model, colours, tmp_path, monkeypatch):
    whole = run(model, colours, tmp_path / "whole", task="labels")
    figures, calls = prompting._figures, []

    def dies_after_two(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(0)
        return figures(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(prompting, "_figures", dies_after_two)
        with pytest.raises(KeyboardInterrupt):
            run(model, colours, tmp_path / "killed", task="labels")
    assert len(RunFolder(tmp_path / "killed").events("prompt")) == 2
    resumed = lmworks.resume(tmp_path / "killed")
    parts = [
        [{**event, "time": 0} for event in RunFolder(ended.folder).events(kind)]
        for ended in (whole, resumed)
        for kind in ("prompt", "chosen_prompt", "evaluation")
    ]
    assert parts[:3] == parts[3:]


def test_the_plan_says_what_is_read(model, colours):
    values = {"data": {"held_out": 8}, "task": "labels", "prompting": SHOTS}
    plans = [
        lmworks.plan(str(model), str(colours), method="prompting", **{**values, "prompting": {**SHOTS, **more}})
        for more in (
            {},
            {"validation": 16},
            {"examples": "nearest", "encoder": str(model)},
            {"examples": "nearest", "encoder": str(model), "calibration": False},
        )
    ]
    assert all(plan.trainable == plan.steps == 0 for plan in plans)
    assert plans[0].tokens < plans[1].tokens
    assert plans[0].tokens < plans[3].tokens < plans[2].tokens  # content-free texts are asked after each row's examples
    assert plans[0].memory["total"] == sum(size for name, size in plans[0].memory.items() if name != "total")
    assert "trained 0" in "\n".join(plans[0].lines())
    assert "vectors of" in "\n".join(plans[2].lines())


def refused(model: Path, rows: list[dict], folder: Path, task: str | None = "labels", **given) -> InputError:
    data = save_questions(folder / "rows.jsonl", rows)
    with pytest.raises(InputError) as caught:
        run(model, data, folder / "run", task=task, **given)
    assert not (folder / "run").exists()
    return caught.value


def test_labels_that_no_prompt_can_name(model, tmp_path):
    numbers = [{**row, "label": str(n % 2)} for n, row in enumerate(COLOURS)]
    error = refused(model, numbers, tmp_path)
    assert "labels are numbers" in error.fault
    assert "--data.label_names" in error.hint
    assert "'0'" in error.hint


def test_labels_that_a_tokenizer_does_not_tell_apart():
    tokenizer = byte_level()
    tokenizer.core.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="'No' and 'no' are the same tokens"):
        _check_labels(Table("t", "labels", [], labels=["No", "no", "yes"]), tokenizer)
    with pytest.raises(InputError, match="a label is empty"):
        _check_labels(Table("t", "labels", [], labels=[" ", "yes"]), tokenizer)


def test_examples_that_do_not_fit_and_a_hint_that_works(model, tmp_path):
    rows = [{**row, "text": row["text"] + " and more" * 9} for row in COLOURS]
    error = refused(model, rows, tmp_path, shots=30)
    assert "the context is 1024" in error.fault
    shots = int(error.hint.split("--prompting.shots ")[1])
    assert 0 < shots < 30
    assert run(model, tmp_path / "rows.jsonl", tmp_path / "fits", task="labels", shots=shots).stopped == "finished"
    error = refused(model, rows, tmp_path, shots=53)
    assert "52 training rows, and 53 examples" in error.fault
    questions = [{"prompt": row["prompt"] + "?" * 99, "completion": row["completion"]} for row in QUESTIONS]
    error = refused(model, questions, tmp_path, None, shots=9)
    shots = int(error.hint.split("--prompting.shots ")[1])
    assert run(model, tmp_path / "rows.jsonl", tmp_path / "answers", shots=shots).stopped == "finished"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"steps": 3}}, "train.steps.*trains nothing|trains nothing"),
        ({"task": "classify"}, "trains nothing"),
        ({"prompting": {"templates": "none.yaml"}}, "none.yaml"),
    ],
)
def test_what_trains_nothing_has_no_use_for_it(model, colours, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        lmworks.tune(str(model), str(colours), method="prompting", out=tmp_path / "run", **changes)


def test_models_and_rows_that_have_no_prompt(model, colours, tmp_path):
    with pytest.raises(InputError, match="new model"):
        lmworks.pretrain("tinygpt", str(colours), method="prompting")
    texts = save_questions(tmp_path / "texts.jsonl", [{"text": f"text {n}"} for n in range(30)])
    with pytest.raises(InputError, match="not asked about rows of kind text"):
        run(model, texts, tmp_path / "run")
    from tiny_kinds import save_encoder

    with pytest.raises(InputError, match="encoder"):
        run(save_encoder(tmp_path / "encoder"), colours, tmp_path / "run")


def test_examples_are_of_each_label_in_turn_and_fewer_are_the_beginning_of_more():
    rows = [Row({"text": str(n), "label": "common" if n % 5 else "rare"}) for n in range(20)]
    table = Table("t", "labels", rows, labels=["common", "rare"])
    labels = [row.values["label"] for row in draw(table, 12)]
    assert labels[:8].count("rare") == 4
    assert len(labels) == 12
    for shots in range(12):
        assert draw(table, shots) == draw(table, 12)[:shots]
    assert len(draw(table, 100)) == 20
