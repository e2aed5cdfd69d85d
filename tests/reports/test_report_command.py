"""lmworks report, plan and score from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmworks.commands.main import main
from lmworks.reports import card


def test_report_writes_both_files_and_names_the_page(make_run, capsys: pytest.CaptureFixture[str]) -> None:
    folder: Path = make_run()
    journal = (folder / "journal.jsonl").read_bytes()
    assert main(["report", str(folder)]) == 0
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    assert (folder / "report.html").is_file()
    assert (folder / "journal.jsonl").read_bytes() == journal


def test_report_as_json_is_the_card(make_run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(card.build(folder)))
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == card.build(folder)


def test_what_is_no_run_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "fault"), [(b"\xff\xfe", "not UTF-8"), (b"", "no text to score"), (None, "cannot be read")]
)
def test_score_names_a_bad_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, fault: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["score", "any-model", "--file", str(path)]) == 2
    assert fault in capsys.readouterr().err
