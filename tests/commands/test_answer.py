"""lmworks answer, and predict and data show of questions: where answers stand, how good they are, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from tiny_presets import save_text, small

import lmworks
from lmworks.base.settings import merge
from lmworks.commands.answer import sentence_around
from lmworks.commands.main import main
from lmworks.evaluate.question_answering import scores

TRAIN = {
    "steps": 60, "batch_size": 8, "learning_rate": 1e-2, "precision": "float32", "threads": 1, "warmup": 0,
    "evaluate_every": 60,
}  # fmt: skip
TEXT = "Nobody saw it.\nThen the cat climbed the tree. It rained.\n"


def squad(count: int) -> dict[str, Any]:
    paragraphs = []
    for number in range(count):
        animal = ["cat", "dog", "bird"][number % 3]
        context = f"It rained {number}. Then the {animal} climbed the tree."
        answers = [{"text": animal, "answer_start": context.index(animal)}]
        asked = {"id": f"q{number}", "question": "Who climbed?", "answers": answers}
        paragraphs.append({"context": context, "qas": [asked]})
    return {"data": [{"title": "Animals", "paragraphs": paragraphs}]}


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    text = {"source": str(save_text(folder / "text.txt")), "document": "paragraph", "held_out": 2}
    short = merge(small("tinybert"), {"train": {"steps": 2, "evaluate_every": 2}})
    base = lmworks.pretrain("tinybert", text, out=folder / "base", **short).folder / "final"
    (folder / "squad.json").write_text(json.dumps(squad(48)))
    data = {"source": str(folder / "squad.json"), "held_out": 8}
    return lmworks.tune(base, data, method="full", out=folder / "run", train=TRAIN).folder


def test_answers_are_printed_with_their_place_and_sentence(run: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "story.txt"
    path.write_text(TEXT)
    asked = [
        "answer",
        str(run),
        "--context",
        str(path),
        "--question",
        "Who climbed?",
        "--question",
        "Who ran?",
    ]
    assert main([*asked, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["question"] for answer in answers] == ["Who climbed?", "Who ran?"]
    first = answers[0]
    assert TEXT[first["start"] : first["end"]] == first["answer"]
    assert first["line"] == TEXT[: first["start"]].count("\n") + 1
    assert first["answer"] in first["sentence"]
    assert first["no_answer_probability"] is None
    expected = lmworks.load(run).answer_question("Who climbed?", TEXT)
    assert (first["answer"], first["probability"]) == (expected.text, pytest.approx(expected.probability))
    assert main(asked) == 0
    out = capsys.readouterr().out
    begin = first["start"] - TEXT.rfind("\n", 0, first["start"])
    assert f"{path}:{first['line']}, characters {begin} to {begin + len(first['answer']) - 1}" in out
    assert f"[{first['answer']}]" in out


def test_the_sentence_around_a_span() -> None:
    start = TEXT.index("cat")
    low, high = sentence_around(TEXT, start, start + 3)
    assert TEXT[low:high].strip() == "Then the cat climbed the tree."
    low, high = sentence_around(TEXT, start, TEXT.index("rained"))
    assert TEXT[low:high].strip() == "Then the cat climbed the tree. It rained."
    assert sentence_around(TEXT, 0, 0) == (0, 0)


def test_a_text_or_a_question_that_is_empty_is_refused(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    assert main(["answer", str(run), "--context", str(tmp_path / "empty.txt"), "--question", "Who?"]) == 2
    assert "empty.txt: is empty" in capsys.readouterr().err
    (tmp_path / "story.txt").write_text(TEXT)
    assert main(["answer", str(run), "--context", str(tmp_path / "story.txt"), "--question", " "]) == 2
    assert "the question is empty" in capsys.readouterr().err
    (tmp_path / "story.txt").write_bytes(b"one\n\xff")
    assert main(["answer", str(run), "--context", str(tmp_path / "story.txt"), "--question", "Who?"]) == 2
    assert "story.txt:2" in capsys.readouterr().err


def test_a_text_in_place_of_a_file_is_told_how_to_be_given(run: Path, capsys: Any) -> None:
    assert main(["answer", str(run), "--context", "The cat climbed.", "--question", "Who climbed?"]) != 0
    assert "--context -" in capsys.readouterr().err


def test_questions_of_a_file_are_answered_measured_and_written(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "new.json").write_text(json.dumps(squad(9)))
    assert main(["predict", str(run), str(tmp_path / "new.json"), "--out", str(tmp_path / "out.parquet")]) == 0
    out = capsys.readouterr().out
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"q{number}" for number in range(9)]
    for row in rows:
        assert row["context"][row["prediction_start"] : row["prediction_end"]] == row["prediction"]
    exact = sum(scores(row["prediction"], [row["answers"][0]["text"]])[0] for row in rows) / len(rows)
    assert f"exact match {100 * exact:.3g}" in out
    assert "9 questions, 0 without an answer in its context" in out


def test_questions_without_answers_are_answered_too(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "new.jsonl").write_text(json.dumps({"question": "Who climbed?", "context": TEXT}) + "\n")
    assert main(["predict", str(run), str(tmp_path / "new.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "1 question, 0 without" in out
    assert "exact match" not in out
    (tmp_path / "texts.jsonl").write_text('{"text": "a cat"}\n')
    assert main(["predict", str(run), str(tmp_path / "texts.jsonl")]) == 2
    assert "kind questions needs question and context" in capsys.readouterr().err


def test_data_show_marks_the_answer_in_its_window(run: Path, tmp_path: Path, capsys: Any) -> None:
    context = "The moon rose. " * 12 + "Then the cat climbed the tree."
    row = {"question": "Who climbed?", "context": context}
    row["answers"] = {"text": ["cat"], "answer_start": [context.index("cat")]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    arguments = ["data", "show", str(run), str(tmp_path / "rows.jsonl"), "--task.stride", "4", "--examples", "9"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "this window does not hold the answer, and points to its first token" in out
    assert "'cat'" in out
    assert "texts divided into chunks: 1" in out
    assert "× with the answer" in out
