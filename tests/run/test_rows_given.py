"""Rows given in Python: a run learns them as it learns the same rows in a file, keeps them, and finds them again."""

import json
import shutil

import pytest
from tiny_model import QUESTIONS, save_questions, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.run.setup import set_up
from lmworks.run.source import recipe_of


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


def losses(folder):
    return [event["loss"] for event in RunFolder(folder).events("step")]


def test_rows_are_learned_as_those_of_a_file(model, tmp_path):
    pandas = pytest.importorskip("pandas")
    values = settings()
    data = values.pop("data")
    values["train"]["steps"] = 3
    sources = {"file": str(save_questions(tmp_path / "faq.jsonl")), "list": QUESTIONS}
    sources["frame"] = pandas.DataFrame(QUESTIONS)
    for name, source in sources.items():
        lmworks.tune(model, {"source": source, **data}, out=tmp_path / name, **values)
    assert losses(tmp_path / "list") == losses(tmp_path / "frame") == losses(tmp_path / "file")
    lines = (tmp_path / "list" / "data.jsonl").read_text().split("\n")
    assert [json.loads(line) for line in lines if line] == QUESTIONS


def test_a_run_that_goes_on_finds_its_rows_where_the_folder_is(model, tmp_path):
    values = settings()
    values.pop("data")
    values["train"]["steps"] = 1
    lmworks.tune(model, QUESTIONS, out=tmp_path / "run", **values)
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    setup = set_up(recipe_of(RunFolder(moved)))
    assert setup.recipe.data.source == str(tmp_path / "moved" / "data.jsonl")
    asked = {row["prompt"] for row in QUESTIONS}
    assert len(setup.train) + len(setup.held_out) == len(asked)


def test_a_bad_row_is_named_and_nothing_is_written(model, tmp_path):
    with pytest.raises(InputError, match="row 61: field 'completion' is null"):
        lmworks.tune(model, [*QUESTIONS, {"prompt": "a", "completion": None}], out=tmp_path / "run", **settings(""))
    with pytest.raises(InputError, match="row 1: a str, not a dictionary"):
        lmworks.tune(model, {"a", "b"}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("ending", "counted"), [("{}.", True), ("\n#### {}", True), ("{} or so", False)])
def test_answers_that_end_in_numbers_are_matched_by_the_number(model, tmp_path, ending, counted):
    rows = [{"prompt": f"What is {n} and 1?", "completion": f"It is {ending.format(n + 1)}"} for n in range(40)]
    values = settings()
    values.pop("data")
    values["train"]["steps"] = 1
    run = lmworks.tune(model, rows, out=tmp_path / "run", **values)
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    assert ("final_number" in measures) is counted
    assert "task" in measures
    if counted:
        assert measures["final_number"]["after"]["value"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert measures["final_number"]["rows"] == 4
