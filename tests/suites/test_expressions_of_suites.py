"""Expressions over rows: their values, their errors, what the sandbox keeps out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.suites.evaluation import prepare
from lmworks.suites.expressions import evaluate, fault_of, render
from lmworks.suites.registry import choose
from lmworks.suites.settings import SuiteSettings

DOCS = Path(__file__).parents[2] / "docs" / "evaluating.md"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b", 1),
        ("row['a b']", "x"),
        ("listed | map(attribute='t') | list", ["p", "q"]),
        ("'one [two] three' | sub('\\\\[.*?\\\\] ', '')", "one three"),
        ("'Ada met Bob' | parts([{'start': 0, 'end': 2}, {'start': 8, 'end': 10}])", ["Ada", "Bob"]),
    ],
)
def test_values(text: str, value: object) -> None:
    values = {"a": {"b": 1}, "row": {"a b": "x"}, "listed": [{"t": "p"}, {"t": "q"}]}
    assert evaluate(text, values, "f:1") == value
    assert render("{{ " + text + " }}!\n", values, "f:1") == f"{value}!\n"


@pytest.mark.parametrize("text", ["nothing", "a.nothing", "a + 'x'", "[1][3]", "().__class__.__bases__"])
def test_what_cannot_be_computed_is_an_error_with_its_row(text: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate(text, {"a": 1}, "f:7")
    assert error.value.place == "f:7"
    with pytest.raises(InputError):
        render("{{ " + text + " }}", {"a": 1}, "f:7")


def test_faults_of_the_syntax() -> None:
    assert fault_of("a +", False)
    assert fault_of("{{ a", True)
    assert fault_of("a", False) is None


def test_the_suite_of_the_documentation_is_one(tmp_path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    (tmp_path / "my.yaml").write_text(block)
    (tmp_path / "returns").mkdir()
    row = '{"question": "Who pays?", "answers": ["you", "we"], "answer": "we"}\n'
    (tmp_path / "returns" / "test.jsonl").write_text(row)
    (chosen,) = choose(str(tmp_path / "my.yaml"))
    (question,) = prepare(chosen, tmp_path, SuiteSettings()).questions
    assert question.prompts == ["Question: Who pays?\nAnswer:"]
    assert (question.options, question.references) == (["you", "we"], [1])
