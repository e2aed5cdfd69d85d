"""Benchmarks of vectors: how similar two texts are, and which documents answer a query."""

from __future__ import annotations

from collections.abc import Sequence

from lmworks.base.errors import InputError
from lmworks.embeddings.search import RANKED, rank
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.expressions import evaluate
from lmworks.suites.files import FOLDER, Item
from lmworks.suites.form import MAIN, Answer, Answers, Form, Question, belongs, read_texts
from lmworks.suites.prompts import Shown
from lmworks.suites.settings import SuiteSettings
from lmworks.text.beir import read_beir


class Similarity(Form):
    """The cosine of two texts' vectors, beside how similar people found them; of a head that gives values its own."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; the reference is a number."""
        return [
            Question(
                item,
                references=[_value(benchmark, item)],
                texts=read_texts(benchmark, item),
                **belongs(benchmark, item),
            )
            for item in items
        ]

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        return ""

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        if model.gives_values:
            return _valued(questions, model)
        texts = list(dict.fromkeys(text for question in questions for text in question.texts))
        numbers = {text: number for number, text in enumerate(texts)}
        vectors, ids = model.vectors(texts), model.text_ids(texts)
        rows = []
        for question in questions:
            first, second = (numbers[text] for text in question.texts)
            cosine = float(vectors[first] @ vectors[second])
            rows.append(Answer(question, {MAIN: cosine}, question.references, {"texts": [ids[first], ids[second]]}))
        return Answers("vectors", rows, notes=model.taken_notes())


def _value(benchmark: Benchmark, item: Item) -> float:
    assert benchmark.value is not None  # the form needs it
    value = evaluate(benchmark.value, item.values, item.place)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{value!r} is no number", item.place, "give the file as it was published") from error


def _valued(questions: Sequence[Question], model: EvaluatedModel) -> Answers:
    inputs = [question.texts for question in questions]
    predictions, ids = model.predict(inputs), model.head_ids(inputs)
    rows = [
        Answer(question, {MAIN: float(prediction.value)}, question.references, {"input": own})
        for question, prediction, own in zip(questions, predictions, ids, strict=True)
    ]
    return Answers("values of a head", rows)


class Retrieval(Form):
    """The documents of a corpus in the order of the cosines of their vectors with a query's."""

    def questions(self, benchmark: Benchmark, items: Sequence[Item], settings: SuiteSettings) -> list[Question]:
        """See :class:`Form`; a question for each judged query, its reference the relevance of documents by id."""
        data = read_beir(items[0].values[FOLDER], settings.split or "test")
        by_name = {str(item.values["_id"]): item for item in items}
        return [
            Question(by_name[name], references=[data.judgements[name]], texts=[text], context=data)
            for name, text in data.queries.items()
            if name in by_name
        ]

    def obstacle(self, benchmark: Benchmark, model: EvaluatedModel) -> str:
        """See :class:`Form`."""
        return ""

    def answers(
        self,
        benchmark: Benchmark,
        questions: Sequence[Question],
        shown: Sequence[Sequence[Shown]],
        model: EvaluatedModel,
        settings: SuiteSettings,
    ) -> Answers:
        """See :class:`Form`."""
        documents = questions[0].context.documents
        matrix = model.vectors(list(documents.values()))
        texts = [question.texts[0] for question in questions]
        names = [str(number) for number in range(len(texts))]
        rankings = rank(names, model.vectors(texts), list(documents), matrix)
        rows = []
        for name, question, ids in zip(names, questions, model.text_ids(texts), strict=True):
            rows.append(Answer(question, {MAIN: rankings[name]}, question.references, {"query": ids}))
        described = {"documents": len(documents), "ranked": RANKED}
        return Answers("vectors", rows, described, model.taken_notes())
