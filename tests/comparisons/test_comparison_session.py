"""A comparison's state between sessions: what is kept in comparison.json, contenders that are added, sessions that are
killed or stand in each other's way. Nothing is trained."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_comparisons import comparison as finished
from tiny_comparisons import result

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.comparisons import comparison, comparison_data, processes
from lmworks.comparisons.comparison_api import Comparison
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import STATE, Result, State
from lmworks.comparisons.contender_recipes import checked
from lmworks.comparisons.contender_runs import ContenderRuns
from lmworks.comparisons.recommended_recipe import settings_of
from lmworks.text.rows import DataSettings


@pytest.fixture
def folder(tmp_path) -> Path:
    """That of a finished comparison."""
    state = finished(["majority", "lora"])
    assert state.recommendation["name"] == "lora"
    path = tmp_path / "comparison"
    path.mkdir()
    state.write(path)
    return path


@pytest.fixture
def labelled(tmp_path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {n},{['good', 'bad'][n % 2]}\n" for n in range(200)))
    return path


def kill(session: comparison._Session) -> None:
    """Ends a session as a signal does after it has written its state."""
    session._write()
    raise KeyboardInterrupt


class TestSettings:
    def test_a_file_that_is_recognised_by_its_lines_is_read_as_before(self, tmp_path) -> None:
        path = tmp_path / "tagged.txt"
        path.write_text("".join(f"Anna{n} B-PER\nsings O\n\n" for n in range(60)))
        settings = checked(CompareSettings(model="m", source=str(path)))
        train, _, test = comparison_data.divided(settings)
        assert train.kind == "tags"
        State(settings, []).write(tmp_path)
        state = State.read(tmp_path)
        again, _, held_out = comparison_data.divided(state.settings)
        assert comparison_data.digest(again, held_out) == comparison_data.digest(train, test)
        assert "document" not in ContenderRuns(tmp_path, state).data_settings(validation=False)
        assert "document" not in settings_of(tmp_path, finished(["lora"], settings=state.settings), "lora")[1]

    @pytest.mark.parametrize("given", [{}, {"limit": 50}, {"held_out": 0.3}, DataSettings(limit=50)])
    def test_the_size_of_the_test_part_is_kept(self, given, tmp_path) -> None:
        settings = CompareSettings(model="m", source="d", data=given)
        assert settings.data.held_out == (0.3 if given == {"held_out": 0.3} else 0.2)
        State(settings, []).write(tmp_path)
        assert State.read(tmp_path).settings == settings
        assert State.read(tmp_path).settings.data.model_fields_set == settings.data.model_fields_set

    def test_additional_rows_of_another_kind_are_refused_before_anything_is_measured(self, labelled, tmp_path) -> None:
        more = tmp_path / "more.csv"
        more.write_text("prompt,completion\nsay 1,one\n")
        replay = {"method": "lora", "data": {"additional": str(more)}}
        with pytest.raises(InputError, match="kind labels needs") as caught:
            lmworks.compare("m", labelled, methods=["replay"], contender={"replay": replay}, out=tmp_path / "out")
        assert caught.value.hint == "give rows of kind labels, as the others are: with the columns text, label"
        assert not (tmp_path / "out").exists()

    def test_the_validation_part_is_set_by_the_comparison(self, labelled, tmp_path) -> None:
        with pytest.raises(InputError, match="is chosen by the comparison") as caught:
            lmworks.compare("m", labelled, data={"validation": 0.2}, out=tmp_path / "out")
        assert "--validation 0.2" in caught.value.hint

    def test_the_hint_for_a_budget_says_how_it_is_written(self, tmp_path, capsys) -> None:
        assert main(["compare", "m", "rows.csv", "--budget", "a minute", "--out", str(tmp_path / "out")]) == 2
        assert "give budget a value (time: 90s, 20m or 1h" in capsys.readouterr().err


class TestVersions:
    def test_a_file_of_version_1_is_read_under_the_keys_of_today(self, folder) -> None:
        state, path = State.read(folder), folder / "comparison.json"
        state.results[1].measuring_seconds = 12.5
        state.write(folder)
        values = json.loads(path.read_text())
        values["version"] = 1
        values["rows"] = values.pop("row_counts")
        for values_of_result in values["results"]:
            values_of_result["rows"] = values_of_result.pop("numerators")
            values_of_result["weights"] = values_of_result.pop("denominators")
            values_of_result["measuring"] = values_of_result.pop("measuring_seconds")
            for trial in values_of_result["trials"]:
                trial["expected"] = 30.0  # which early files of version 1 have
        path.write_text(json.dumps(values))
        assert State.read(folder) == state
        State.read(folder).write(folder)
        assert json.loads(path.read_text())["version"] == 2

    @pytest.mark.parametrize("version", [None, 0, 3])
    def test_files_of_other_versions_are_refused(self, version, folder) -> None:
        path = folder / "comparison.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
        with pytest.raises(InputError, match="another version of lmworks"):
            State.read(folder)


class TestAdding:
    def test_changes_are_found_whatever_the_spelling(self, folder, monkeypatch) -> None:
        monkeypatch.setattr(comparison._Session, "run", kill)
        words = ["compare", "--add", "last_layers", str(folder), "--contender.last_layers.last_layers.layers", "4"]
        assert main(words) == 130
        added = State.read(folder).results[-1]
        assert (added.name, added.settings["last_layers"]["layers"]) == ("last-layers", 4)

    def test_a_session_that_is_killed_before_its_recommendation_makes_another(self, folder, monkeypatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(comparison._Session, "run", kill)
            with pytest.raises(KeyboardInterrupt):
                comparison.add(folder, "tfidf-logreg")
        state = State.read(folder)
        added = result("tfidf-logreg")
        lora = state.results[1]
        added.numerators, added.value = lora.numerators, lora.value  # as good as LoRA, and simple
        state.results[-1] = added
        state.write(folder)
        assert comparison.resume(folder).recommendation["name"] == "tfidf-logreg"

    @pytest.mark.parametrize(
        ("words", "fault"),
        [
            (["--contender.full.full.layers", "2"], "--contender.full: is another contender"),
            (["more.csv"], "more.csv: is no part of adding"),
        ],
    )
    def test_words_without_a_use_are_errors(self, words, fault, folder, capsys) -> None:
        before = (folder / "comparison.json").read_bytes()
        assert main(["compare", "--add", "bitfit", str(folder), *words]) == 2
        assert fault in capsys.readouterr().err
        assert (folder / "comparison.json").read_bytes() == before

    def test_no_lock_is_left_in_a_folder_of_something_else(self, tmp_path) -> None:
        with pytest.raises(InputError, match="no comparison"):
            comparison.add(tmp_path, "lora")
        assert list(tmp_path.iterdir()) == []


class TestReadOnly:
    """A comparison in a place that may not be written."""

    @pytest.fixture
    def read_only(self, folder, monkeypatch) -> Path:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        def open_(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            return refuse() if set(mode) & set("wax+") else read(path, mode, *arguments, **options)

        read = Path.open
        monkeypatch.setattr(Path, "open", open_)
        for name in ("mkdir", "unlink", "symlink_to"):
            monkeypatch.setattr(Path, name, refuse)
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        return folder

    def test_a_finished_one_is_shown(self, read_only, capsys) -> None:
        before = (read_only / STATE).read_bytes()
        assert main(["compare", "--out", str(read_only)]) == 0
        assert "recommended: LoRA" in capsys.readouterr().out
        assert (read_only / STATE).read_bytes() == before

    def test_one_without_its_recommendation_is_shown_with_it(self, folder, request, capsys) -> None:
        state = State.read(folder)
        state.recommendation = {}
        state.write(folder)
        request.getfixturevalue("read_only")
        assert main(["compare", "--out", str(folder)]) == 0
        assert "recommended: " in capsys.readouterr().out

    def test_an_unfinished_one_is_refused(self, folder, request, capsys) -> None:
        state = State.read(folder)
        state.results[0].state = "open"
        state.write(folder)
        request.getfixturevalue("read_only")
        assert main(["compare", "--out", str(folder)]) == 2
        said = capsys.readouterr().err
        assert f"{folder}: may not be written: Read-only file system" in said
        assert "go on with the copy" in said


class TestTwoProcesses:
    def test_the_state_is_read_when_the_other_has_ended(self, folder, monkeypatch) -> None:
        locked = processes.locked

        @contextlib.contextmanager
        def locked_after_the_other(path: Path) -> Iterator[None]:
            state = State.read(path)
            state.notes.append("of the other process")
            state.write(path)
            with locked(path):
                yield

        monkeypatch.setattr(processes, "locked", locked_after_the_other)
        assert comparison.resume(folder).notes[-1] == "of the other process"

    def test_the_folder_of_the_other_is_not_deleted(self, labelled, tmp_path, monkeypatch) -> None:
        make_folder, out = comparison.make_folder, tmp_path / "out"
        with contextlib.ExitStack() as other:

            def make_after_the_other(path: Path) -> None:
                make_folder(path)
                other.enter_context(processes.locked(path))
                finished(["majority", "lora"]).write(path)

            monkeypatch.setattr(comparison, "make_folder", make_after_the_other)
            with pytest.raises(InputError, match="another process works"):
                lmworks.compare("m", labelled, methods=["tfidf-logreg"], out=out)
        assert [own.name for own in State.read(out).results] == ["majority", "lora"]


@pytest.fixture
def planned(tmp_path, monkeypatch) -> comparison._Session:
    """A session that has planned LoRA and, ten times as slow, full fine-tuning, in a hundred seconds."""
    plan = {
        "task": "classify", "process": 1.0, "start": 1.0, "steps": 50.0, "evaluation": 1.0, "before": 1.0,
        "most_epochs": 3.0, "is_length_set": False, "token": 1e-4, "learning_rate": 1e-4, "note": "measured in a hurry",
    }  # fmt: skip
    results = [Result(name, name, "trained") for name in ("full", "lora")]
    row_counts = {"kind": "labels", "training": 800, "validation": 80, "test": 200, "digest": ""}
    state = State(CompareSettings(model="m", source="d", budget=100.0, rates=1), results, row_counts=row_counts)
    session = comparison._Session(tmp_path, state, print)
    plans = {"full": {**plan, "epoch": 20.0}, "lora": {**plan, "epoch": 2.0}}
    monkeypatch.setattr(session, "_plans", lambda asked: plans)
    session._plan()
    return session


def test_what_makes_plans_unreliable_is_said_once(planned, tmp_path) -> None:
    assert State.read(tmp_path).notes == ["planned times: measured in a hurry"]


@pytest.mark.parametrize(("spent", "state"), [(75.0, "open"), (95.0, "left out")])
def test_one_without_time_waits_until_the_others_are_done(planned, spent, state) -> None:
    full, lora = planned.state.results
    planned.before = 80.0  # of a hundred seconds, and both need 33
    planned._shorten()
    assert (full.state, full.is_postponed, lora.is_postponed) == ("open", True, False)
    assert min(planned.state.results, key=comparison._order) is lora
    lora.state, planned.before = "done", spent
    planned._shorten()
    assert (full.state, full.is_postponed) == (state, state == "left out")


class TestRecommendedRecipe:
    def test_a_dry_run_trains_nothing(self, folder, labelled, tmp_path, capsys) -> None:
        state = finished(["majority", "tfidf-logreg", "lora"])
        state.settings.source = str(labelled)
        for own, settings in zip(state.results, ({}, {"model": "tfidf-logreg"}, {"method": "lora"}), strict=True):
            own.settings = settings
        state.recommendation["name"] = "tfidf-logreg"
        state.write(folder)
        words = ["tune", "--like", str(folder), "--out", str(tmp_path / "run"), "--dry-run"]
        assert main(words) == 0
        assert "model: tfidf-logreg" in capsys.readouterr().out
        state.recommendation["name"] = "lora"
        state.write(folder)
        assert main([*words, "--memory", "3GB"]) == 0
        shown = capsys.readouterr().out
        assert "memory: 3GB" in shown
        comparison_of_recipe = yaml.safe_load(shown)["comparison"]
        lora = state.results[2]
        assert comparison_of_recipe == {
            "folder": str(folder),
            "contender": "LoRA",
            "figure": "accuracy",
            "value": lora.value,
            "interval": lora.interval,
            "rows": len(lora.numerators),
        }
        assert not (tmp_path / "run").exists()

    def test_without_a_recommendation_a_name_is_needed(self, folder) -> None:
        state = State.read(folder)
        state.recommendation = {}
        with pytest.raises(InputError, match="recommends nothing") as caught:
            Comparison(folder, state).run()
        assert "run(NAME)" in caught.value.hint
        assert Comparison(folder, state).run("lora").folder == folder / "lora" / "seed-0"
        state.results[0].state = "open"
        with pytest.raises(InputError, match="no recommendation yet"):
            Comparison(folder, state).run()


@pytest.mark.parametrize(
    "change",
    [
        {"foo": 1},
        {"results": None},
        {"settings": {"rates": "x"}},
        {"row_counts": {}},
        {"recommendation": {"x": 1}},
        {"recommendation": {"name": "ghost", "title": "ghost", "reasons": []}},
        {"measure": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_edited_file_is_refused(change, folder):
    path = folder / STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="is damaged"):
        State.read(folder)


def test_settings_that_a_comparison_chooses_are_refused_of_one_contender_too():
    settings = CompareSettings(model="m", source="s", contender={"lora": {"train": {"steps": 3}}})
    with pytest.raises(InputError, match="is chosen by the comparison") as caught:
        checked(settings)
    assert caught.value.place == "contender.lora.train.steps"
