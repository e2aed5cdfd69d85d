"""Answers of a model with a head for spans to the questions of a file; and, where the rows have answers, how good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.evaluate.question_answering import AnsweredQuestion, figures_of_answers
from lmworks.language_model.find_answers import SpanAnswer
from lmworks.language_model.model import LanguageModel
from lmworks.run.predict_file import PREDICTION, PROBABILITY, settings_for, write_columns
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Table

START, END = "prediction_start", "prediction_end"
"""Columns of the first character of the answer in its context, and of the one after its last."""


@dataclass
class Answers:
    """What a model answers to the questions of a table.

    Attributes:
        table: rows of kind questions.
        predicted: an answer for each row.
        figures: exact match and F1 (evaluate/question_answering); None where the rows have no answers.
    """

    table: Table
    predicted: list[SpanAnswer]
    figures: dict[str, Any] | None


def answers_settings(model: str | Path, source: str, given: Mapping[str, Any], head: str | None = None) -> DataSettings:
    """How the rows are read: as questions, with or without answers; arguments as of predict_file.settings_for."""
    return settings_for(model, source, {"kind": "questions", **given}, head)


def answer_rows(model: LanguageModel, source: Any, settings: DataSettings) -> Answers:
    """Answer the question of each row.

    Args:
        model: with a head for spans.
        source: as of text/corpus.read.
        settings: how to read it.

    Raises:
        InputError: the rows cannot be read, or are no questions about contexts.
    """
    table = corpus.read(source, settings)
    pairs = [(row.values["question"], row.values["context"]) for row in table.rows]
    predicted = model.answer_questions(pairs, [row.place for row in table.rows])
    if not all("answers" in row.values for row in table.rows):
        return Answers(table, predicted, None)
    answered = [
        AnsweredQuestion(
            row.values["question"], row.place, row.values["answers"]["text"], answer.text, answer.probability, 0.0
        )
        for row, answer in zip(table.rows, predicted, strict=True)
    ]
    figures = figures_of_answers(answered)
    return Answers(table, predicted, {key: value for key, value in figures.items() if not key.startswith("best")})


def write_answers(answers: Answers, source: Any, settings: DataSettings, out: str | Path) -> Path:
    """Write the rows with their answers: all columns of the source, the answer, its probability and its characters.

    Raises:
        InputError: the name of the file says no format, or the place cannot be written.
    """
    added = [
        {PREDICTION: answer.text, PROBABILITY: answer.probability, START: answer.start, END: answer.end}
        for answer in answers.predicted
    ]
    return write_columns(answers.table, added, source, settings, out)
