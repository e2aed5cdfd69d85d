"""Rows of questions, contexts and answers: SQuAD's JSON, Hugging Face's columns, plain answers; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

CONTEXT = "The sky is blue, and the sea is blue too."
QUESTION = "What is the sky?"


def squad(*paragraphs: dict[str, Any]) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Colours", "paragraphs": list(paragraphs)}]}


def asked(question: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": question[:4], "question": question, "answers": listed, **more}


def saved(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return str(path)


def row(**values: Any) -> list[dict[str, Any]]:
    return [{"question": QUESTION, "context": CONTEXT, **values}]


def test_squad_files_of_both_versions_are_recognised_by_their_content(tmp_path: Path) -> None:
    paragraph = {"context": CONTEXT, "qas": [asked(QUESTION, ("blue", 11), ("blue,", 11)), asked("How is the sea?")]}
    table = corpus.read(saved(tmp_path / "one.json", squad(paragraph)))
    assert table.kind == "questions"
    assert table.rows[0].values == {
        "id": "What", "question": QUESTION, "context": CONTEXT,
        "answers": {"text": ["blue", "blue,"], "answer_start": [11, 11]},
    }  # fmt: skip
    assert table.rows[1].values["answers"] == {"text": [], "answer_start": []}
    assert table.rows[1].place.endswith("one.json: row 2")
    second = {"context": CONTEXT, "qas": [asked("Why?", is_impossible=True), asked(QUESTION, ("blue", 11))]}
    impossible = corpus.read(saved(tmp_path / "two.json", squad(second)))
    assert [row.values["answers"]["text"] for row in impossible.rows] == [[], ["blue"]]


@pytest.mark.parametrize(
    "answers",
    [
        {"answers": {"text": ["blue"], "answer_start": [32]}},
        {"answers": [{"text": "blue", "answer_start": 32}]},
        {"answer": "blue", "answer_start": 32},
        {"answer": "blue", "answer_start": "32"},
    ],
)
def test_answers_stand_at_their_places(answers: dict[str, Any]) -> None:
    table = corpus.read(row(**answers))
    assert table.kind == "questions"
    assert table.rows[0].values["answers"] == {"text": ["blue"], "answer_start": [32]}


def test_an_answer_alone_is_searched_and_that_is_said() -> None:
    table = corpus.read(row(answer="blue"), DataSettings(kind="questions"))
    assert table.rows[0].values["answers"] == {"text": ["blue"], "answer_start": [11]}
    assert any("first occurrence" in note for note in table.notes)
    listed = corpus.read(row(answers=["sea", "sky"]), DataSettings(kind="questions"))
    assert listed.rows[0].values["answers"]["answer_start"] == [25, 4]
    assert corpus.read(row(answer="blue")).kind == "completion"  # as before: decoders write it
    placed = corpus.read(row(answer="blue", answer_start=11))
    assert not any("first occurrence" in note for note in placed.notes)


def test_columns_are_named_by_the_settings() -> None:
    rows = [{"q": QUESTION, "c": CONTEXT, "a": "blue"}]
    columns = {"question": "q", "context": "c", "answers": "a"}
    table = corpus.read(rows, DataSettings(columns=columns))
    assert (table.kind, table.rows[0].values["answers"]["text"]) == ("questions", ["blue"])


def test_questions_may_be_read_without_answers() -> None:
    table = corpus.read(row(), DataSettings(kind="questions"))
    assert "answers" not in table.rows[0].values
    assert "the rows have no answers" in table.notes
    with pytest.raises(InputError, match="kind questions needs context"):
        corpus.read([{"question": QUESTION}], DataSettings(kind="questions"))


@pytest.mark.parametrize(
    ("values", "fault", "hint"),
    [
        ({"answers": {"text": ["blue"], "answer_start": [12]}}, "'lue,' is there", "it is at 11"),
        ({"answers": {"text": ["blue"], "answer_start": [30]}}, "not at character 30", "it is at 32"),
        ({"answers": {"text": ["red"], "answer_start": [11]}}, "'red' is not at character 11", "copy the answer"),
        ({"answers": {"text": ["Blue"], "answer_start": [11]}}, "'Blue' is not at", "at 11 stands 'blue'"),
        ({"answers": {"text": ["blue"], "answer_start": [-4]}}, "nothing is there", "it is at 11"),
        ({"answers": {"text": ["blue"], "answer_start": ["x"]}}, "no number of a character", "count characters from 0"),
        ({"answers": {"text": ["blue", "sky"], "answer_start": [11]}}, "2 answers, and 1 places", "leave all"),
        ({"answers": {"text": [" "], "answer_start": [3]}}, "an answer is empty", "write an empty list"),
        ({"answers": {"text": [3], "answer_start": [3]}}, "is a int, not a text", "quote it"),
        ({"answers": {"text": ["blue"], "answer_start": [11]}, "is_impossible": True}, "has answers", "one of the two"),
        ({"answers": {"text": [], "answer_start": []}, "is_impossible": False}, "has no answer", "one of the two"),
    ],
)
def test_answers_that_are_not_in_their_context_are_refused(values: dict[str, Any], fault: str, hint: str) -> None:
    good = row(answers={"text": ["blue"], "answer_start": [11]})
    with pytest.raises(InputError) as error:
        corpus.read([*good, *row(**values)])
    assert error.value.place == "row 2"
    assert fault in error.value.fault
    assert hint in error.value.hint
    assert len(corpus.read([*good, *row(**values)], DataSettings(on_bad_row="skip"))) == 1


def test_an_empty_context_and_bytes_that_are_not_utf8_name_their_row(tmp_path: Path) -> None:
    answers = {"text": ["blue"], "answer_start": [11]}
    with pytest.raises(InputError, match="row 1: field 'context' is empty"):
        corpus.read([{"question": QUESTION, "context": " ", "answers": answers}])
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(row(answers=answers)[0]).encode() + b"\n" + b'{"question": "\xff"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:2"):
        corpus.read(str(path))


def test_a_damaged_squad_file_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bad\.json: article 1, paragraph 1: has no 'context'"):
        corpus.read(saved(tmp_path / "bad.json", squad({"qas": []})))
    with pytest.raises(InputError, match=r"paragraph 1, question 1: has no 'question'"):
        corpus.read(saved(tmp_path / "bad.json", squad({"context": CONTEXT, "qas": [{"id": "1"}]})))


def test_questions_about_one_context_stay_on_one_side() -> None:
    rows = [
        {"question": f"{n}?", "context": f"{n // 4} {CONTEXT}", "answers": {"text": ["sky"], "answer_start": [6]}}
        for n in range(36)
    ]
    train, held_out = corpus.split(corpus.read(rows), DataSettings(held_out=8))
    assert len(held_out) == 8
    assert not {row.values["context"] for row in train.rows} & {row.values["context"] for row in held_out.rows}
    assert "by the hash of their context" in train.notes[-1]
