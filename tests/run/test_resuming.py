"""What a run that goes on keeps of its recipe, and what it refuses."""

import pytest
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.base.notation import read_yaml
from lmworks.kernels import matmul
from lmworks.kernels.product_shapes import FORWARD, ProductShape
from lmworks.train.loop import _Training


class Killed(Exception):
    """In place of a signal, in the same process."""


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def kill_at(step, monkeypatch, model, data, out, **train):
    """A run that ends at a step, with a checkpoint of each step before."""
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= {"checkpoint_every": 1, "steps": 6, **train}
    write = RunFolder.write

    def ends(self, event, **fields):
        if event == "step" and fields["step"] == step:
            raise Killed
        return write(self, event, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", ends)
        with pytest.raises(Killed):
            lmworks.tune(str(model), given, out=out, **values)


def test_the_budget_of_memory_holds_and_is_said(model, tmp_path, monkeypatch):
    kill_at(4, monkeypatch, model, save_questions(tmp_path / "faq.jsonl"), tmp_path / "run", memory="6GB")
    budgets, lines = [], []
    steps = _Training._steps

    def watch(self, stop_requested):
        budgets.append(self.settings.trim_above)
        steps(self, stop_requested)

    monkeypatch.setattr(_Training, "_steps", watch)
    assert lmworks.resume(tmp_path / "run", lines.append).stopped == "finished"
    assert budgets == [round(0.9 * 6e9)]
    assert any("within 6.00 GB: activation checkpointing (recompute) of 0 of 2 blocks" in line for line in lines)


def test_relative_paths_are_those_of_the_folder_in_which_the_run_began(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    save_questions(model.parent / "faq.jsonl")
    kill_at(4, monkeypatch, "tiny", "faq.jsonl", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert lmworks.resume("run").stopped == "finished"


def test_other_data_are_refused_by_the_name_of_the_file(model, tmp_path, monkeypatch):
    data = save_questions(tmp_path / "faq.jsonl")
    kill_at(4, monkeypatch, model, data, tmp_path / "run")
    data.write_text(data.read_text().replace("What is", "How much is"))
    with pytest.raises(InputError, match=r"faq\.jsonl") as caught:
        lmworks.resume(tmp_path / "run")
    assert "data" in caught.value.fault
    data.write_text(data.read_text().replace("How much is", "What is"))
    assert lmworks.resume(tmp_path / "run").stopped == "finished"


def test_the_recipe_of_another_version_is_said_with_a_way_that_works(model, tmp_path, monkeypatch):
    data = save_questions(tmp_path / "faq.jsonl")
    kill_at(4, monkeypatch, model, data, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("\ntask:", "\nobjective:"))
    assert "objective" in read_yaml(recipe)
    with pytest.raises(InputError, match="cannot be read") as caught:
        lmworks.resume(tmp_path / "run")
    assert f"lmworks tune {model} {data}" in caught.value.hint


def test_places_that_cannot_hold_a_run_are_refused_before_the_model_is_opened(model, tmp_path, monkeypatch):
    data = str(save_questions(tmp_path / "faq.jsonl"))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    monkeypatch.setattr("lmworks.run.pipeline.set_up", None)
    for out, fault, hint in (
        ("link", "is a link to .*gone", "make the folder"),
        ("full", "not empty", "another --out"),
        ("full/notes.txt/run", "notes.txt is a file", "another --out"),
    ):
        with pytest.raises(InputError, match=fault) as caught:
            lmworks.tune(str(model), data, out=tmp_path / out)
        assert hint in caught.value.hint
        assert "resume" not in caught.value.hint
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="may not be written"):
        lmworks.tune(str(model), data, out=tmp_path / "new" / "run")


def test_a_run_killed_before_its_report_has_one_after_resume(model, tmp_path):
    lines, values = [], settings()
    given = {"source": str(save_questions(tmp_path / "faq.jsonl")), **values.pop("data")}
    values["train"]["steps"] = 2
    run = lmworks.tune(str(model), given, out=tmp_path / "run", **values)
    with pytest.raises(InputError, match="not empty") as caught:
        lmworks.tune(str(model), given, out=tmp_path / "run", **values)
    assert "resume" not in caught.value.hint
    for name in ("report.html", "report.json"):
        (run.folder / name).unlink()
    lmworks.resume(run.folder, lines.append)
    assert "has finished already" in lines[0]
    assert (run.folder / "report.html").is_file()
    assert (run.folder / "report.json").is_file()


def test_a_resumed_run_is_evaluated_by_the_providers_that_it_began_with(model, tmp_path, monkeypatch):
    provider = matmul.available("float32")[-1]
    began_with = {str(ProductShape("float32", FORWARD, 64, 64, 512)): provider}
    values = settings()
    given = {"source": str(save_questions(tmp_path / "faq.jsonl")), **values.pop("data")}
    values["train"]["steps"] = 2
    seen, original = [], matmul.providers

    def providers(choice):
        seen.append(choice)
        return original(choice)

    monkeypatch.setattr(matmul, "providers", providers)
    monkeypatch.setattr("lmworks.run.setup.evaluation_providers", lambda network: began_with)
    with monkeypatch.context() as patch:
        patch.setattr("lmworks.run.pipeline.train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lmworks.tune(str(model), given, out=tmp_path / "run", **values)
    monkeypatch.setattr("lmworks.run.setup.evaluation_providers", lambda network: pytest.fail("chosen again"))
    seen.clear()
    lmworks.resume(tmp_path / "run")
    assert seen[0] == began_with


def test_a_run_interrupted_while_it_is_measured_says_how_to_go_on(model, tmp_path, monkeypatch):
    data, lines = save_questions(tmp_path / "faq.jsonl"), []
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"]["steps"] = 2

    def interrupt(evaluation):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmworks.run.evaluation.Evaluation.run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lmworks.tune(str(model), given, out=tmp_path / "run", say=lines.append, **values)
    assert lines[-1].endswith(f"go on with: lmworks resume {tmp_path / 'run'}")
    assert lmworks.resume(tmp_path / "run").stopped == "finished"
