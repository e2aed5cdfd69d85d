"""Extractive question answering: a head on any backbone finds the span of a context that answers a question."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE, SENTENCE_END
from lmworks.data.examples import Examples, Report, count, count_specials, count_without_loss, note_rows, start_report
from lmworks.evaluate.question_answering import NO_ANSWER, AnsweredQuestion, figures_of_answers, normalize
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.question_windows import (
    EncodedQuestion,
    QuestionWindow,
    encode_questions,
    label_window,
    windows_of,
)
from lmworks.model.head_requests import SPANS, HeadRequest
from lmworks.tasks.figures import LABEL_LOSS, QUESTIONS
from lmworks.tasks.with_head import HeadTask
from lmworks.text.rows import DataSettings, Row, Table

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class LabelledWindow(NamedTuple):
    """What an example is made from: a window over a context, and the right answers to its question.

    Attributes:
        window: the part of the context that the example holds.
        gold: all right answers; empty: the context does not answer the question.
        inputs: how texts became the model's input.
    """

    window: QuestionWindow
    gold: list[str]
    inputs: HeadInputs


class Extract(HeadTask):
    """Rows of question, context and answers."""

    name = "extract"
    learns = "the span of a context that answers a question"
    kinds = ("questions",)
    default_for = ("questions",)
    uses = frozenset({"stride", "max_answer_tokens"})
    input_kind = "span"
    head_name = SPANS
    figures = (*QUESTIONS, LABEL_LOSS)
    has_unanswerable = False  # whether some of its rows have no answer

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest:
        """A head with two outputs: where a span starts, and where it ends."""
        return HeadRequest(SPANS, 2, "span")

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each window over a context: a long context makes several.

        Raises:
            InputError: a row has no answers, or is too long where long rows or contexts are refused (data.on_long,
                task.stride 0).
        """
        inputs, report = self.inputs(settings, context), start_report(table, "question and context")
        items: list[Example] = []
        inexact = 0
        for begin in range(0, len(table), ROWS_AT_ONCE):
            rows = table.rows[begin : begin + ROWS_AT_ONCE]
            pairs = [(row.values["question"], row.values["context"]) for row in rows]
            questions = encode_questions(pairs, [row.place for row in rows], self.tokenizer, inputs)
            for row, question in zip(rows, questions, strict=True):
                built, is_exact = self._windows(row, question, inputs, settings, report)
                items += built
                inexact += not is_exact
        count(items, report)
        count_specials(table.rows, self.tokenizer, report)
        self.count_labels(report, items)
        note_rows(report, "without a token for the answer")
        if inexact:
            report.notes.append(
                f"in {count_of(inexact, 'row')} the answer begins or ends inside a token: what can be found is longer"
            )
        return Examples(items, report)

    def _windows(
        self, row: Row, question: EncodedQuestion, inputs: HeadInputs, settings: DataSettings, report: Report
    ) -> tuple[list[Example], bool]:
        """The windows of a row, and whether its answer begins and ends with tokens."""
        if "answers" not in row.values:
            raise InputError("the row has no answers", row.place, "give the rows a column answers")
        gold = list(row.values["answers"]["text"])
        span, is_exact = None, True
        if gold:
            start = row.values["answers"]["answer_start"][0]
            span = question.token_span(start, start + len(gold[0]))
            if span is None:
                count_without_loss(row, report)
                return [], True
            is_exact = question.characters(*span) == (start, start + len(gold[0].rstrip()))
        else:
            self.has_unanswerable = True
        windows = windows_of(question, inputs, self.settings.stride)
        if question.dropped and not self.accepts_long(row, windows[0], settings, report):
            return [], True
        report.chunked += len(windows) > 1
        built = [label_window(window, SPANS, span) for window in windows]
        return [_with_gold(window, gold, inputs) for window in built], is_exact

    def input_format(self, settings: DataSettings, labels: Sequence[str] = ()) -> InputFormat:
        """The input format with the stride of windows, the longest answer, and the threshold of "no answer"."""
        windows = {
            "stride": self.settings.stride,
            "max_answer_tokens": self.settings.max_answer_tokens,
            "max_tokens": settings.max_tokens,
            "null_threshold": self._threshold,
        }
        return super().input_format(settings).model_copy(update=windows)

    def chosen_format(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """The threshold of "no answer" that gives the best F1 on the held-out rows."""
        threshold = (evaluation.get("questions") or {}).get("best_f1_threshold")
        return {} if threshold is None else {"null_threshold": threshold}

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """The part ``questions``: see evaluate/question_answering."""
        return {"questions": figures_of_answers(self._answered(model, examples), self._threshold)}

    @property
    def _threshold(self) -> float | None:
        """Of the null margin, before :meth:`chosen_format` chooses one; None: every question is answered."""
        return 0.0 if self.has_unanswerable else None

    def _answered(self, model: LanguageModel, examples: Sequence[Example]) -> list[AnsweredQuestion]:
        """The questions of examples with their best spans over all windows of their contexts, held out or not."""
        from lmworks.language_model.find_answers import best_spans

        by_question = _by_question(examples)
        windows = [
            window
            for labelled_window in by_question
            for window in windows_of(labelled_window.window.question, labelled_window.inputs, self.settings.stride)
        ]
        best = best_spans(model.network, windows, self.settings.max_answer_tokens, self.has_unanswerable)
        answered = []
        for labelled_window, (question, span) in zip(by_question, best, strict=True):
            start, end = question.characters(span.first, span.last)
            text = question.context[start:end]
            gold, place = labelled_window.gold, question.place
            answered.append(AnsweredQuestion(question.question, place, gold, text, span.probability, span.null_margin))
        return answered

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Figures of the sentence of each context that shares the most words with the question."""
        answered = []
        for labelled_window in _by_question(examples):
            question = labelled_window.window.question
            text = sentence_of_most_words(question.question, question.context)
            answered.append(AnsweredQuestion(question.question, question.place, labelled_window.gold, text, 0.0, 0.0))
        figures = figures_of_answers(answered)
        kept = {name: value for name, value in figures.items() if not name.startswith(("best", "mistakes"))}
        return {"name": "sentence with most words of the question", "questions": kept}

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """Questions with their right answer and the predicted one."""
        threshold = self._threshold
        return [
            {
                "prompt": row.question,
                "reference": " | ".join(dict.fromkeys(row.gold)) or NO_ANSWER,
                "answer": NO_ANSWER if threshold is not None and row.null_margin > threshold else row.predicted,
            }
            for row in self._answered(model, examples)
        ]

    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """The right answer, and the best span of this window alone."""
        from lmworks.evaluate.answer_spans import best_span

        question, begin, end, _ = _window_of(example).window
        best = best_span([(0, logits)], end - begin, self.settings.max_answer_tokens)
        first, last = question.characters(begin + best.first, begin + best.last)
        return {"reference": " | ".join(_window_of(example).gold) or NO_ANSWER, "answer": question.context[first:last]}


def _with_gold(example: Example, gold: list[str], inputs: HeadInputs) -> Example:
    assert isinstance(example.origin, QuestionWindow)
    return replace(example, origin=LabelledWindow(example.origin, gold, inputs))


def _window_of(example: Example) -> LabelledWindow:
    assert isinstance(example.origin, LabelledWindow), "an example of this task"
    return example.origin


def _by_question(examples: Sequence[Example]) -> list[LabelledWindow]:
    """One window of each question that the examples ask, in their order."""
    return list({id(_window_of(example).window.question): _window_of(example) for example in examples}.values())


def sentence_of_most_words(question: str, context: str) -> str:
    """The sentence of a context that shares the most words with a question, the first of several."""
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(context)), len(context)]
    sentences = [context[begin:end].strip() for begin, end in itertools.pairwise(ends)]
    words = set(normalize(question).split())
    return max(filter(None, sentences), key=lambda sentence: len(words & set(normalize(sentence).split())))
