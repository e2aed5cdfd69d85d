"""The rows of a comparison: too few of them, one label alone, and fewer of them where time is short."""

from __future__ import annotations

from pathlib import Path

import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.settings import parse_overrides
from lmworks.comparisons import comparison_data
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.contender_recipes import measured_notes
from lmworks.comparisons.contender_runs import run_times_of


@pytest.fixture
def labelled(tmp_path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {n},{['good', 'bad'][n % 2]}\n" for n in range(200)))
    return path


class TestTestPart:
    def test_rows_that_are_not_measured_are_said(self) -> None:
        settings = CompareSettings(model="m", source="d")
        (note,) = measured_notes(settings, "completion", 1000)
        assert "100 of 1,000 test rows; --evaluate.task_rows" in note
        assert measured_notes(settings, "completion", 100) == []
        assert measured_notes(settings, "labels", 1000) == []
        all_rows = CompareSettings(model="m", source="d", evaluate={"task_rows": 1000})
        assert measured_notes(all_rows, "completion", 1000) == []
        assert "200 test examples" in measured_notes(settings, "text", 1000)[0]

    def test_too_few_that_are_measured_are_refused(self, tmp_path) -> None:
        data = tmp_path / "rows.csv"
        data.write_text("prompt,completion\n" + "".join(f"say {n},it is {n} now\n" for n in range(200)))
        with pytest.raises(InputError, match="10 rows are measured") as caught:
            lmworks.compare("m", data, evaluate={"task_rows": 10}, out=tmp_path / "out")
        assert "--evaluate.task_rows 40:" in caught.value.hint

    def test_few_examples_that_are_asked_for_are_refused(self, labelled, tmp_path) -> None:
        with pytest.raises(InputError, match="12 rows are measured") as caught:
            lmworks.compare("m", labelled, evaluate={"measured": 12}, out=tmp_path / "out")
        assert "--evaluate.measured 40:" in caught.value.hint

    def test_one_label_alone_is_refused(self, tmp_path) -> None:
        data = tmp_path / "rows.csv"
        data.write_text("text,label\n" + "".join(f"film {n},good\n" for n in range(200)))
        with pytest.raises(InputError, match="every row to train on has the label 'good'"):
            lmworks.compare("m", data, methods=["majority", "tfidf-logreg"], out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_one_label_alone_among_the_test_rows_is_refused(self, tmp_path) -> None:
        data = tmp_path / "sorted.csv"  # of another label, one row, which is to train on
        data.write_text("text,label\nfilm,bad\n" + "".join(f"film {n},good\n" for n in range(200)))
        with pytest.raises(InputError, match="every row to test with has the label 'good'") as caught:
            lmworks.compare("m", data, methods=["majority", "tfidf-logreg"], out=tmp_path / "out")
        assert "sorted by label" in caught.value.hint

    def test_the_hint_for_one_long_text_works(self, tmp_path) -> None:
        data = tmp_path / "book.txt"
        data.write_text("\n\n".join(f"This is paragraph {n}. It is as long as others are." for n in range(200)))
        with pytest.raises(InputError, match="too few to tell anything apart") as caught:
            lmworks.compare("m", data, out=tmp_path / "out")
        assert "--data.document paragraph" in caught.value.hint
        settings = CompareSettings(model="m", source=str(data), data={"document": "paragraph"})
        assert len(comparison_data.divided(settings)[2]) == 40

    def test_the_hint_for_few_rows_holds_out_no_more_than_there_are(self, labelled, tmp_path) -> None:
        with pytest.raises(InputError, match="too few to tell") as caught:
            lmworks.compare("m", labelled, data={"held_out": 10, "held_out_max": 50}, out=tmp_path / "out")
        assert "--data.held_out 100 --data.held_out_max 100" in caught.value.hint
        with pytest.raises(InputError, match="too few to tell") as caught:
            lmworks.compare("m", labelled, data={"limit": 60}, out=tmp_path / "out")
        assert "--data.held_out" not in caught.value.hint


class TestCheaper:
    """Options that make a comparison cheaper, which a budget too small is answered with."""

    @pytest.mark.parametrize(
        ("kind", "columns", "given", "expected"),
        [
            ("labels", "text,label", [], ["--data.held_out 200", "--data.limit 1000"]),
            ("labels", "text,label", ["--data.held_out", "30"], ["--data.held_out 20", "--data.limit 1000"]),
            ("completion", "prompt,completion", [], ["--evaluate.task_rows 50", "--data.limit 1000", "--canaries 0"]),
            ("completion", "prompt,completion", ["--canaries", "0"], ["--evaluate.task_rows 50", "--data.limit 1000"]),
            (
                "completion",
                "prompt,completion",
                ["--data.limit", "300", "--evaluate.task_rows", "20"],
                ["--canaries 0"],
            ),
        ],
    )
    def test_they_leave_enough_to_compare_by(self, kind, columns, given, expected, tmp_path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text(f"{columns}\n" + "".join(f"film {n},{['good', 'bad'][n % 2]} one\n" for n in range(2000)))

        def settings_with(words: list[str]) -> CompareSettings:
            values = {"model": "m", "source": str(path), **parse_overrides(words)}
            return CompareSettings.model_validate(values)

        settings = settings_with(given)
        train, _, test = comparison_data.divided(settings)
        assert train.kind == kind
        options = comparison_data.cheaper_options(settings, {"kind": kind, "training": len(train), "test": len(test)})
        assert options == expected
        cheaper = settings_with([*given, *(word for option in options for word in option.split())])
        comparison_data.refuse_few(cheaper, kind, len(comparison_data.divided(cheaper)[2]))

    def test_without_canaries_less_is_planned(self) -> None:
        plan = {
            "process": 1.0, "start": 1.0, "epoch": 2.0, "steps": 50.0, "evaluation": 1.0, "before": 1.0,
            "most_epochs": 3.0, "is_length_set": False, "token": 1e-3,
        }  # fmt: skip
        own, row_counts = Result("lora", "LoRA", "trained", plan=plan), {"training": 800, "validation": 80, "test": 200}
        measuring = {
            (kind, canaries): run_times_of(
                own,
                State(
                    CompareSettings(model="m", source="d", canaries=canaries),
                    [own],
                    row_counts={**row_counts, "kind": kind},
                ),
            ).measuring
            for kind in ("completion", "labels")
            for canaries in (0, 4)
        }
        assert measuring["completion", 0] < measuring["completion", 4]
        assert measuring["labels", 0] == measuring["labels", 4] < measuring["completion", 0]
