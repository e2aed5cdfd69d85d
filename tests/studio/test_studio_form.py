"""The form of the tab Start: its fields, the words of the command that it means, and what it refuses."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")

from tiny_model import save_questions, save_tiny

from lmworks.base.errors import InputError
from lmworks.studio import settings_form
from lmworks.studio.folders import Folders
from lmworks.studio.plans import failure_of, read_plan
from lmworks.studio.run_requests import RunBody, RunRequest


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_tiny(home / "work" / "tiny")
    save_questions(home / "work" / "faq.jsonl")
    (home / "secret.jsonl").write_text('{"text": "a secret"}\n')
    return home


@pytest.fixture(name="folders", scope="module")
def _folders(home):
    return Folders([home / "work"])


def request(folders, **values):
    body = {"verb": "tune", "model": "tiny", "data": "faq.jsonl", **values}
    return RunRequest(RunBody.model_validate(body), folders)


# The words of a command


def test_a_form_becomes_the_words_of_a_command(folders):
    settings = {
        "train.epochs": "2",
        "lora.target_modules": "[q_proj, v_proj]",
        "data.prompt": "Question: {prompt}\nAnswer:",
    }
    asked = request(folders, method="lora", task="instructions", name="first", settings=settings)
    asked.check()
    assert asked.words("tune", asked.folder) == [
        *("tune", "tiny", "faq.jsonl", "--method=lora", "--task=instructions", "--out=runs/first", "--train.epochs=2"),
        *("--lora.target_modules=[q_proj, v_proj]", "--data.prompt=Question: {prompt}\nAnswer:"),
    ]


def test_names_that_commands_would_take_for_something_else_are_paths(home, folders):
    for name in ("-rf.jsonl", "python-help", "hub:x"):
        (home / "work" / name).write_text('{"text": "a"}\n')
    assert request(folders, data="-rf.jsonl").data == "./-rf.jsonl"
    assert request(folders, data="python-help").data == "python-help"  # the named one, as on the command line
    for name in ("-rf.jsonl", "python-help", "hub:x"):
        (home / "work" / name).unlink()


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"model": "../tiny"}, "is not in the folders"),
        ({"model": "/etc"}, "is not in the folders"),
        ({"data": "../secret.jsonl"}, "is not in the folders"),
        ({"data": "~/secret.jsonl"}, "is not in the folders"),
        ({"data": "other.yaml"}, "is a recipe"),
        (
            {"model": "tinygpt", "verb": "pretrain", "settings": {"tokenizer.source": "../tiny"}},
            "is not in the folders",
        ),
        ({"settings": {"data.additional": "['faq.jsonl', '../secret.jsonl']"}}, "is not in the folders"),
        ({"settings": {"evaluate.general": "../secret.jsonl"}}, "is not in the folders"),
        ({"settings": {"prompting.templates": "/etc/passwd"}}, "is not in the folders"),
        ({"settings": {"prompting.encoder": "../tiny"}}, "is not in the folders"),
        ({"settings": {"out": "../x"}}, "is no setting of this form"),
        ({"settings": {"tasks": "[{name: a, data: ../secret.jsonl}]"}}, "is no setting of this form"),
        ({"settings": {"train.epoch": "2"}}, "is no setting of this form"),
        (
            {"verb": "compare", "settings": {"contender.x.data.additional": "../secret.jsonl"}},
            "is no setting of this form",
        ),
        ({"verb": "pretrain", "model": "tiny"}, "is no new model"),
    ],
)
def test_nothing_outside_of_the_folders_can_be_named(folders, values, fault):
    with pytest.raises(InputError, match=fault):
        request(folders, **values)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"settings": {"train.epochs": "many"}}, "train.epochs"),
        ({"settings": {"train.steps": "3", "train.epochs": "2"}}, "both say how long"),
        ({"method": "lor"}, "method"),
        ({"task": "causl"}, "did you mean causal"),
        ({"verb": "compare", "settings": {"budget": "soon"}}, "budget"),
        ({"verb": "compare", "method": "lora,nothing"}, "there is no contender"),
        ({"verb": "pretrain", "model": "ngram-3", "settings": {"ngram.order": "-1"}}, "ngram.order"),
        ({"model": "tfidf-nb", "settings": {"tfidf.C": "2"}}, "naive_bayes does not use it"),
    ],
)
def test_settings_are_checked_as_the_command_checks_them(folders, values, fault):
    with pytest.raises(InputError) as refused:
        request(folders, **values).check()
    assert fault in str(refused.value)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", " ", "x" * 200, "a\nb"])
def test_names_of_folders_stay_in_their_place(folders, name):
    asked = request(folders, name=name)
    if name.strip():
        with pytest.raises(InputError, match="is no name for the folder"):
            asked.folder  # noqa: B018
    else:
        assert asked.folder.parent == folders.first / "runs"


def test_runs_do_not_leave_the_folder_by_a_link(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / "runs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "work" / "a.txt").write_text("text")
    asked = request(Folders([tmp_path / "work"]), model="smollm2-135m-instruct", data="a.txt", name="x")
    with pytest.raises(InputError, match="is not in the folders"):
        asked.folder  # noqa: B018


# The form


@pytest.mark.parametrize(
    ("verb", "model"),
    [("tune", "any"), ("tune", "tfidf-nb"), ("pretrain", "tinygpt"), ("pretrain", "ngram-3"), ("compare", "any")],
)
def test_each_field_of_a_form_is_a_setting_of_its_command(folders, verb, model):
    rows = settings_form.settings_of(verb, model)
    fields = [field for group in settings_form.groups(rows) for field in group["fields"]]
    assert len(fields) == len({field["name"] for field in fields}) > 5
    own = model if model != "any" else "tiny"
    for field in fields:
        if field["choices"]:
            request(folders, verb=verb, model=own, settings={field["name"]: field["choices"][-1]})
        assert field["help"] or field["name"].startswith("model."), field["name"]
    asked = {name: field["default"] for field in fields if (name := field["name"]).startswith(("data.", "train."))}
    for name, default in asked.items():
        if default not in (None, "null", "[]", "{}") and name not in settings_form.SOURCES and name != "train.epochs":
            request(folders, verb=verb, model=own, settings={name: default}).check()


def test_settings_that_name_files_are_known_as_such():
    """What a form hands on as it is names no file: a new setting that does must be among SOURCES."""
    forms = [
        ("tune", "any"),
        ("tune", "tfidf-nb"),
        ("pretrain", "tinygpt"),
        ("pretrain", "ngram-3"),
        ("compare", "any"),
    ]
    rows = {row.name: row for form in forms for row in settings_form.settings_of(*form)}
    words = re.compile(r"\b([Ff]iles?|folder|[Mm]odel (or|whose)|path)\b")
    texts = {name for name, row in rows.items() if re.search(r"\bstr\b", row.kind) and words.search(row.help)}
    harmless = {"data.document", "data.format", "data.columns", "data.split", "data.subset"}
    assert texts - harmless == set(settings_form.SOURCES)


def test_a_form_begins_with_what_holds_for_its_model():
    defaults = {row.name: row.default for row in settings_form.settings_of("pretrain", "tinybert")}
    others = {row.name: row.default for row in settings_form.settings_of("pretrain", "tinygpt")}
    assert defaults["model.architecture"] == "encoder"
    assert others["model.architecture"] == "decoder"
    compared = {row.name: row.default for row in settings_form.settings_of("compare", "any")}
    assert (compared["data.held_out"], compared["data.held_out_max"]) == ("0.2", "1000")  # more than of a single run
    assert {row.name: row.default for row in settings_form.settings_of("tune", "tfidf-logreg")}["tfidf.C"] == "10.0"
    assert not any(row.name.startswith("model.") for row in settings_form.settings_of("tune", "any"))


def test_the_plan_is_read_from_its_lines():
    text = (
        "note one\nparameters  1 M, trained 2\nmemory      3 GB (weights 2 GB)\n            within 4 GB\n"
        "disk        5 MB\n"
    )
    assert read_plan(text) == {
        "rows": [["parameters", "1 M, trained 2"], ["memory", "3 GB (weights 2 GB); within 4 GB"], ["disk", "5 MB"]],
        "notes": ["note one"],
    }
    assert failure_of(["opening", "error: x: is wrong", "  hint: mend it"]) == "x: is wrong\nhint: mend it"
    assert failure_of(["Traceback", "ValueError: odd", ""]) == "ValueError: odd"
    assert failure_of([]) == "it ended without a word"
