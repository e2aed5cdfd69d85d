"""A model that a run trained is asked in the words of that run; a classifier chooses its labels."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from tiny_model import save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.prompts import prompts
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.input_format import FILE, InputFormat
from lmworks.tasks.registry import TASKS
from lmworks.tasks.settings import TaskSettings
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

COLOURS = [{"note": f"the {thing} number {n}", "shade": shade} for n in range(20) for thing, shade in
           (("grass", "green"), ("snow", "white"), ("coal", "black"))]  # fmt: skip
COLUMNS = {"columns": {"text": "note", "label": "shade"}}


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tuned(model: Path, folder: Path, rows: list[dict], task: str = "auto", **data) -> lmworks.LanguageModel:
    values = settings()
    values["data"] |= {"source": str(write(folder / "rows.jsonl", rows)), **data}
    values["train"] |= {"learning_rate": 1e-2, "steps": 6}
    return lmworks.tune(str(model), values.pop("data"), task=task, out=folder / "run", **values).model


@pytest.fixture(scope="module", name="classifier")
def _classifier(model, tmp_path_factory) -> lmworks.LanguageModel:
    return tuned(model, tmp_path_factory.mktemp("classifier"), COLOURS, "labels", system="Say the colour.", **COLUMNS)


def test_a_classifier_says_the_likeliest_label_wherever_it_is_asked(classifier, tmp_path):
    model, text = classifier, "the coal number 3"
    table = corpus.read(write(tmp_path / "one.jsonl", COLOURS[:3]), DataSettings(**COLUMNS))
    table.rows[0].values["text"] = text
    (wanted,) = choose_labels(
        partial(choice_likelihoods, model.network),
        prompts(table, model.tokenizer, DataSettings(system="Say the colour.", **COLUMNS))[:1],
    )
    assert wanted.text in ("black", "green", "white")
    assert sum(wanted.label_probabilities.values()) == pytest.approx(1)
    assert model.chat([{"role": "user", "content": text}]) == wanted.text
    assert model.generate(text) == wanted.text
    assert model.generate([text, text]) == [wanted.text] * 2
    assert "".join(model.chat([{"role": "user", "content": text}], stream=True)) == wanted.text
    details = model.generate(text, details=True)
    assert details.label_probabilities == pytest.approx(wanted.label_probabilities)
    assert details.usage.prompt_tokens == wanted.usage.prompt_tokens > 0
    raw = model.generate(text, raw=True, max_tokens=5)
    (reply,) = complete(
        model.stepper(), model.tokenizer, [model.tokenizer.encode(text, special=True)], SamplingSettings(max_tokens=5)
    )
    assert raw == reply.text


def test_it_is_kept_when_the_model_is_saved_and_others_open_the_folder(classifier, tmp_path):
    from transformers import AutoModelForCausalLM

    saved = classifier.save(tmp_path / "saved")
    again = lmworks.load(saved)
    assert again.input_format == classifier.input_format
    assert again.input_format.labels == ("black", "green", "white")
    assert again.generate("the snow number 2") == classifier.generate("the snow number 2")
    AutoModelForCausalLM.from_pretrained(saved)
    classifier.save(saved, overwrite=True)


def test_the_answers_of_the_report_are_those_of_the_opened_model(classifier):
    run = RunFolder(Path(classifier.source))
    (samples,) = [event["items"] for event in run.events("samples") if event["when"] == "after"]
    for sample in samples:
        text = sample["prompt"].split("\n\nAnswer with")[0]
        assert classifier.generate(text) == sample["answer"]


def test_a_pattern_and_a_system_message_stand_in_every_chat(model, tmp_path):
    rows = [{"asked": f"What is {n}?", "said": f"It is {n}."} for n in range(40)]
    given = {"columns": {"completion": "said"}, "prompt": "Question: {asked}", "system": "Be brief."}
    opened = tuned(model, tmp_path, rows, **given)
    (wanted, *_) = prompts(corpus.read(rows, DataSettings(**given)), opened.tokenizer, DataSettings(**given))
    message = [{"role": "user", "content": "What is 0?"}]
    assert opened._conversation(message, raw=False).ids == wanted.ids
    assert opened._prompt("What is 0?", raw=False).ids == wanted.ids
    assert opened._prompt({"asked": "What is 0?"}, raw=False).ids == wanted.ids
    output = [{"role": "system", "content": "Be long."}, *message]
    assert "Be long" in opened.tokenizer.decode(opened._conversation(output, raw=False).ids)
    assert opened._conversation(message, raw=True).ids != wanted.ids


def test_without_a_template_the_line_after_the_prompt_is_there(model, tmp_path):
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(40)]
    opened = tuned(model, tmp_path, rows, template="off")
    asked = opened._conversation([{"role": "user", "content": "What is 7?"}], raw=False)
    assert opened.tokenizer.decode(asked.ids) == "What is 7?\n"


def test_patterns_of_several_columns():
    form = InputFormat(task="instructions", kind="prompt", prompt="{title}: {body}")
    assert form.fill({"title": "A", "body": "b"}) == "A: b"
    assert form.fill('{"title": "A", "body": "b"}') == "A: b"
    with pytest.raises(InputError, match="built from title and body"):
        form.fill("A: b")
    with pytest.raises(InputError, match="needs body"):
        form.fill({"title": "A"})


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"labels": []}')
    with pytest.raises(InputError, match=FILE.replace(".", r"\.")):
        InputFormat.read(tmp_path)
    assert InputFormat.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("task", "kind"),
    [("labels", "label"), ("instructions", "prompt"), ("seq2seq", "source"), ("causal", "text"), ("chat", "text")],
)
def test_a_file_that_names_its_task_alone_still_opens(tmp_path, task, kind):
    (tmp_path / FILE).write_text(json.dumps({"task": task}))
    read = InputFormat.read(tmp_path)
    assert (read.task, read.kind) == (task, kind)
    assert TASKS[task].input_kind == kind
    read.save(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["kind"] == kind


@pytest.mark.parametrize("name", TASKS)
def test_a_run_writes_how_its_task_is_asked(name):
    task = TASKS[name].__new__(TASKS[name])
    task.settings = TaskSettings(name=name, prefix="to French: " if "prefix" in TASKS[name].uses else "")
    form = task.input_format(DataSettings(system="Be brief.", prompt="{a}"), ["no", "yes"])
    assert (form.task, form.kind, form.system, form.prompt) == (name, task.input_kind, "Be brief.", "{a}")
    assert form.labels == (("no", "yes") if form.kind == "label" else ())
    assert form.prefix == task.settings.prefix
