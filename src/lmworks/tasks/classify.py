"""Sequence classification: a head on any backbone gives a text, or a pair of texts, one label or any number of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.base.figures import count_of, list_names
from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.model.config import ProblemType
from lmworks.model.head_requests import SEQUENCE, HeadRequest
from lmworks.tasks.figures import CLASSIFICATION, LABEL_LOSS
from lmworks.tasks.with_head import TextHeadTask
from lmworks.text.labels import FEWEST_ROWS, rare_labels
from lmworks.text.rows import DataSettings, Row, Table

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Classify(TextHeadTask):
    """Rows of one text or two, with a label or a list of labels."""

    name = "classify"
    learns = "the label of a text"
    kinds = ("labels", "pair_labels", "multi_labels")
    default_for = ("labels", "pair_labels", "multi_labels")
    input_kind = "class"
    head_name = SEQUENCE
    figures = (*CLASSIFICATION, LABEL_LOSS)

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest:
        """A head with the table's labels."""
        problem: ProblemType = "multi_label" if table.kind == "multi_labels" else "single_label"
        return HeadRequest(SEQUENCE, len(table.labels), problem, tuple(table.labels))

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row; errors as :meth:`text_examples`."""
        examples = self.text_examples(table, settings, context)
        examples.report.notes += _note_of_rare_labels(table)
        return examples

    def label_of(self, row: Row) -> int | np.ndarray:
        """The class of a row, or 1 for each of its labels and 0 for the others."""
        if "labels" not in row.values:
            return self.class_of(row.values["label"], row.place)
        has = np.zeros(self.head.size)
        has[[self.class_of(label, row.place) for label in row.values["labels"]]] = 1.0
        return has

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """The part ``classification``: see evaluate/classification."""
        from lmworks.evaluate.outputs import head_logits, probabilities

        logits = head_logits(model.network, examples, SEQUENCE)
        return self._figures(probabilities(np.concatenate(logits), self.head), examples)

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Figures of the same answer for every text: the shares of the labels in training."""
        shares = self._labels(training).mean(axis=0)
        name = "labels of most texts" if self.head.problem == "multi_label" else "commonest label"
        return {"name": name, **self._figures(np.tile(shares, (len(examples), 1)), examples)}

    def _labels(self, examples: Sequence[Example]) -> np.ndarray:
        """(N, C) bool: the labels of each example."""
        labels = np.concatenate([example.labels[SEQUENCE].classes for example in examples])
        return labels > 0.5 if labels.ndim > 1 else labels[:, None] == np.arange(self.head.size)

    def _figures(self, probabilities: np.ndarray, examples: Sequence[Example]) -> dict[str, Any]:
        from lmworks.evaluate.classification import multi_label_figures, single_label_figures, with_texts

        labels = self._labels(examples)
        if self.head.problem == "multi_label":
            figures = multi_label_figures(probabilities, labels, self.head.labels)
        else:
            labels = labels.argmax(axis=1)
            figures = single_label_figures(probabilities, labels, self.head.labels)
        texts, places = [str(example.origin) for example in examples], [example.place for example in examples]
        return {"classification": with_texts(figures, probabilities, labels, texts, places)}

    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """The right labels and the predicted ones."""
        named, (right,) = np.array(self.head.labels, dtype=object), self._labels([example])
        predicted = logits[0] > 0 if self.head.problem == "multi_label" else logits[0] == logits[0].max()
        return {"reference": ", ".join(named[right]) or "none", "answer": ", ".join(named[predicted]) or "none"}


def _note_of_rare_labels(table: Table) -> list[str]:
    """A note about labels of few rows: of these, none may be held out, and little is learned of them."""
    counts = Counter(label for row in table.rows for label in row.values.get("labels", [row.values.get("label")]))
    rare = rare_labels(counts, table.labels)
    if not rare:
        return []
    return [f"{count_of(len(rare), 'label')} of fewer than {FEWEST_ROWS} rows: {list_names(rare)}"]
