"""lmworks audit: tables, files, and what it refuses."""

from __future__ import annotations

import json

import pytest
from tiny_model import save_tiny
from tiny_suites import save_crows_pairs, save_winogender

import lmworks
from lmworks.audits import audit_table
from lmworks.base.errors import InputError
from lmworks.commands.main import main


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module", name="suites")
def _suites(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    save_crows_pairs(folder)
    save_winogender(folder)
    return folder


def test_one_model_has_values_with_intervals(tiny, suites, tmp_path, capsys):
    words = ["audit", str(tiny), "--kinds", "bias", "--suite-data", str(suites), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for text in ("CrowS-Pairs, stereotype likelier", "95 % interval", "does not say", "not measured: terms", "50.0 %"):
        assert text in printed
    written = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert written["models"][0]["signature"].startswith("backend:")
    assert (tmp_path / "out" / "audit.html").is_file()


def test_two_models_stand_side_by_side(tiny, suites, tmp_path, capsys):
    other = save_tiny(tmp_path / "other", seed=5)
    words = ["audit", str(tiny), str(other), "--kinds", "bias", "--suite-data", str(suites), "--json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    shown = json.loads(capsys.readouterr().out)
    (section,) = shown["sections"]
    assert len(section["models"]) == 2
    first, second = ({f["name"]: f["value"] for f in part["figures"]} for part in section["models"])
    for name, change in section["changes"].items():
        assert change[0] == pytest.approx(second[name] - first[name], abs=1e-9)
        assert change[1] <= change[0] + 1e-9


def test_the_same_model_twice_differs_in_nothing(tiny, suites):
    result = lmworks.audit(tiny, tiny, kinds="bias", suite_data=str(suites))
    assert {change[0] for change in result.sections[0].changes().values()} == {0.0}
    (table,) = audit_table.sections(result)[0].tables
    assert all("chance" in row[3] for row in table.rows)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "0 models"),
        (["a", "b", "c"], "3 models"),
        (["none-such-model"], "none-such-model"),
        (["MODEL", "--kinds", "biass"], "did you mean bias"),
        (["MODEL", "--kinds", "bias"], "nothing could be measured"),
        (["MODEL", "--rows", "0"], "rows"),
        (["MODEL", "--data.colums", "{}"], "columns"),
        (["--plant", "x.jsonl"], "canaries are written for rows"),
        (["--plant", "x.txt", "--data", "python-help"], "plain text"),
    ],
)
def test_what_cannot_be_audited_is_refused(words, fault, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *(str(tiny) if word == "MODEL" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert "hint:" in error


def test_python_calls_refuse_what_names_no_model():
    with pytest.raises(InputError, match="cannot be used here"):
        lmworks.audit(3)
