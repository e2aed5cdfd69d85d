"""The interface of the ways in which benchmarks ask (forms), what they share, and what comes of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.base.errors import InputError
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.expressions import evaluate
from lmworks.suites.files import Item
from lmworks.suites.prompts import Shown
from lmworks.suites.settings import SuiteSettings

MAIN = ""
"""The name of a row's prediction where there is one alone."""


@dataclass(frozen=True)
class Question:
    """A row as it is asked.

    Attributes:
        item: the row.
        prompts: one for each option where they differ by it; else one alone.
        options: what may follow; of texts that are written, nothing.
        names: of the options: their labels, else their numbers.
        references: the right answers, at least one: numbers of options, texts, or a number.
        group, pair: by which rows belong together; empty: none.
        texts: what a classifier or a maker of vectors reads.
        context: of the form's own.
    """

    item: Item
    prompts: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)
    group: str = ""
    pair: str = ""
    texts: list[str] = field(default_factory=list)
    context: Any = None


@dataclass(frozen=True)
class Answer:
    """What a model made of a question.

    Attributes:
        question: the row.
        predictions: by the name of the rule that chose it, MAIN first: the number of an option, a text, a value.
        references: what would be right, in the same terms.
        record: what was sent and what came back, as JSON: token ids, likelihoods.
        numbers: by name, what metrics need besides.
    """

    question: Question
    predictions: dict[str, Any]
    references: list[Any]
    record: dict[str, Any]
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """What a model made of a benchmark.

    Attributes:
        by: how: "likelihood", "pseudo-likelihood", "vectors", "classifier", "text".
        rows: in the order of the questions.
        described: of the way in which was asked, for signatures: template, bos, letters.
        notes: what a reader must know, as sentences.
    """

    by: str
    rows: list[Answer]
    described: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Form(ABC):
    """A way in which benchmarks ask."""

    @abstractmethod
    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """The rows as questions; no model is needed.

        Raises:
            InputError: a row lacks something, or its label is none of the benchmark's; with its place.
        """

    @abstractmethod
    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """Why a model cannot be asked, as a phrase; empty: it can."""

    @abstractmethod
    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """Ask a model.

        Args:
            benchmark: whose questions they are.
            questions: of :meth:`questions`.
            shown: the examples before each of them.
            model: without an obstacle.
            settings: of the evaluation.
        """


class FormWithExamples(Form):
    """A form in which examples may stand before a question."""

    @abstractmethod
    def shown(self, benchmark: Benchmark, question: Question) -> Shown:
        """A question with its answer, as a few-shot prompt shows it."""


def belongs(benchmark: Benchmark, item: Item) -> dict[str, Any]:
    """The group and the pair of a row, where the benchmark has some."""
    texts = {"group": benchmark.group, "pair": benchmark.pair}
    return {name: str(evaluate(text, item.values, item.place)) for name, text in texts.items() if text is not None}


def read_texts(benchmark: Benchmark, item: Item) -> list[str]:
    """What a classifier reads of a row.

    Raises:
        InputError: it is no text.
    """
    return [as_text(evaluate(text, item.values, item.place), text, item.place) for text in benchmark.texts]


def as_text(value: Any, expression: str, place: str) -> str:
    """A value that ought to be a text.

    Raises:
        InputError: it is none, or an empty one.
    """
    if not isinstance(value, str) or not value.strip():
        fault = "an empty text" if isinstance(value, str) else f"{value!r}, no text"
        raise InputError(f"{expression} is {fault}", place, "give the file as it was published")
    return value


def as_list(value: Any) -> list[Any]:
    """A list as it is; of anything else a list of it."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
