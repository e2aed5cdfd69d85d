"""Sequence classification: a head on any backbone gives a text one of its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.base.figures import count_of, list_names
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE
from lmworks.data.examples import Examples, Report, count, count_specials, count_without_loss, note_rows, start_report
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.model.task_heads import SEQUENCE, HeadRequest
from lmworks.tasks.figures import CLASSIFICATION, LABEL_LOSS
from lmworks.tasks.with_head import HeadTask
from lmworks.text.rows import DataSettings, Row, Table

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

FEWEST_EXAMPLES = 5  # of a class; of fewer, hardly any is held out


class Classify(HeadTask):
    """Rows of text and label."""

    name = "classify"
    learns = "the label of a text"
    kinds = ("labels",)
    default_for = ("labels",)
    input_kind = "class"
    head_name = SEQUENCE
    figures = (*CLASSIFICATION, LABEL_LOSS)

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest:
        """A head with the table's labels."""
        return HeadRequest(SEQUENCE, len(table.labels), "single_label", tuple(table.labels))

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """A row, an example; texts that are longer than the context are cut, left out or refused (data.on_long)."""
        inputs, report = self.inputs(settings, context), start_report(table, "classify")
        items: list[Example] = []
        for begin in range(0, len(table), ROWS_AT_ONCE):
            rows = table.rows[begin : begin + ROWS_AT_ONCE]
            ids = self.tokenizer.encode_many([row.values["text"] for row in rows])
            built = (self._example(row, part, inputs, settings, report) for row, part in zip(rows, ids, strict=True))
            items += [example for example in built if example is not None]
        count(items, report)
        count_specials(table.rows, self.tokenizer, report)
        self.count_labels(report, items)
        note_rows(report, "without a token")
        report.notes += _rare_labels(table)
        return Examples(items, report, table.labels)

    def _example(
        self, row: Row, ids: list[int], inputs: HeadInputs, settings: DataSettings, report: Report
    ) -> Example | None:
        example = inputs.example([ids], row.place)
        if not len(example.ids):
            count_without_loss(row, report)
            return None
        if example.dropped and not self.accepts_long(row, example, settings, report):
            return None
        labelled = inputs.labelled(example, self.head, self.class_of(row.values["label"], row.place))
        return replace(labelled, origin=row.values["text"])

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """The part ``classification``: see evaluate/classification."""
        from lmworks.evaluate.outputs import head_logits, probabilities

        logits = head_logits(model.network, examples, SEQUENCE)
        return self._figures(probabilities(np.concatenate(logits), self.head), examples)

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """What the shares of the labels in training give: the commonest label for every text."""
        shares = np.bincount([_class_of(example) for example in training], minlength=self.head.size) / len(training)
        return {"name": "commonest label", **self._figures(np.tile(shares, (len(examples), 1)), examples)}

    def _figures(self, rows: np.ndarray, examples: Sequence[Example]) -> dict[str, Any]:
        from lmworks.evaluate.classification import single_label_figures, with_texts

        classes = np.array([_class_of(example) for example in examples])
        figures = single_label_figures(rows, classes, self.head.labels)
        texts, places = [str(example.origin) for example in examples], [example.place for example in examples]
        return {"classification": with_texts(figures, rows, classes, texts, places)}

    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """The right label and the likeliest."""
        return {
            "reference": self.head.labels[_class_of(example)],
            "answer": self.head.labels[int(logits[0].argmax())],
        }


def _class_of(example: Example) -> int:
    return int(example.labels[SEQUENCE].classes[0])


def _rare_labels(table: Table) -> list[str]:
    """A note about labels of few rows: with so few, none may be held out, and little is learned of them."""
    counts = Counter(row.values["label"] for row in table.rows)
    rare = [f"{label} ({counts[label]})" for label in table.labels if 0 < counts[label] < FEWEST_EXAMPLES]
    if not rare:
        return []
    return [f"{count_of(len(rare), 'label')} of fewer than {FEWEST_EXAMPLES} rows: {list_names(rare)}"]
