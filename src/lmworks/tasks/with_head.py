"""What tasks of models with a head share: a backbone reads a text, and the head's outputs are the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.data.batch import Example
from lmworks.data.documents import ROWS_AT_ONCE
from lmworks.data.examples import Examples, Report, count, count_specials, count_without_loss, note_rows, start_report
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.model.config import HeadConfig
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Row, Table, option

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class HeadTask(Task):
    """A head on any backbone learns the answers of rows.

    Class attributes:
        head_name: the head that it trains (model/head_requests).
    """

    architectures = ("encoder", "decoder", "encoder-decoder")
    needs_language_head = False
    head_name: ClassVar[str]

    @property
    def losses(self) -> tuple[str, ...]:
        """The head's loss alone."""
        return (self.head_name,)

    @property
    def head(self) -> HeadConfig:
        """The model's head."""
        head = self.model.head(self.head_name)
        assert head is not None, "checked by __init__"
        return head

    def inputs(self, settings: DataSettings, context: int) -> HeadInputs:
        """How texts become the model's input.

        Args:
            settings: of the data; ``max_tokens`` bounds an input too.
            context: tokens of the longest input.

        Raises:
            InputError: the tokenizer lacks a token, or the context has no room for a text.
        """
        limit = min(context, settings.max_tokens or context)
        return HeadInputs.of(self.tokenizer, self.model, self.decoder_start, limit)

    def class_of(self, label: str, place: str) -> int:
        """The number of a label.

        Raises:
            InputError: the head does not know it.
        """
        try:
            return self.head.labels.index(label)
        except ValueError:
            fault = f"{label!r} is not one of the model's labels ({list_names(self.head.labels)})"
            raise InputError(fault, place, "correct the row, or begin with a model without this head") from None

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """Texts with their right label and the predicted one."""
        from lmworks.evaluate.outputs import head_logits

        logits = head_logits(model.network, examples, self.head_name)
        return [
            {"prompt": self.shown_text(example), **self.shown_answers(example, row)}
            for example, row in zip(examples, logits, strict=True)
        ]

    def shown_text(self, example: Example) -> str:
        """The text of an example, for a person."""
        return str(example.origin)

    @abstractmethod
    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """``reference`` and ``answer`` of an example, for a person; ``logits``: (N, C) of its places."""

    @abstractmethod
    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """See :meth:`Task.figures_of`."""

    def accepts_long(self, row: Row, example: Example, settings: DataSettings, report: Report) -> bool:
        """Whether an example that was cut is kept (data.on_long); the report counts it either way.

        Raises:
            InputError: rows that are too long are to stop the run.
        """
        if settings.on_long == "stop":
            fault = f"{example.dropped} tokens more than fit"
            hint = f"raise data.max_tokens, shorten the row, or cut it: {option('on_long', 'cut')}"
            raise InputError(fault, row.place, hint)
        if settings.on_long == "skip":
            report.too_long += 1
            return False
        report.truncated += 1
        report.dropped_tokens += example.dropped
        return True

    def count_labels(self, report: Report, items: Sequence[Example]) -> None:
        """Report the number of labels as the number of tokens with loss."""
        report.loss_tokens = sum(labels.weight for example in items for labels in example.labels.values())


class TextHeadTask(HeadTask):
    """A head learns the label of a text, or of a pair of texts."""

    def text_examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row: one text or two, and a label.

        Raises:
            InputError: a row has a label that the head does not know, or is too long where long rows are refused
                (data.on_long).
        """
        inputs, report = self.inputs(settings, context), start_report(table, self.name)
        items: list[Example] = []
        for begin in range(0, len(table), ROWS_AT_ONCE):
            rows = table.rows[begin : begin + ROWS_AT_ONCE]
            parts = inputs.encode(self.tokenizer, [row.texts for row in rows])
            built = (self._labelled(row, part, inputs, settings, report) for row, part in zip(rows, parts, strict=True))
            items += [example for example in built if example is not None]
        count(items, report)
        count_specials(table.rows, self.tokenizer, report)
        self.count_labels(report, items)
        note_rows(report, "without a token")
        return Examples(items, report, table.labels)

    def _labelled(
        self, row: Row, parts: Sequence[Sequence[int]], inputs: HeadInputs, settings: DataSettings, report: Report
    ) -> Example | None:
        """A row's example; None: it is left out, which the report counts."""
        example = inputs.example(parts, row.place)
        if not len(example.ids):
            count_without_loss(row, report)
            return None
        if example.dropped and not self.accepts_long(row, example, settings, report):
            return None
        return replace(inputs.with_label(example, self.head, self.label_of(row)), origin=" · ".join(row.texts))

    @abstractmethod
    def label_of(self, row: Row) -> int | np.ndarray:
        """The label of a row as the head gives it: a class, or (C,) labels or values.

        Raises:
            InputError: the head does not know it.
        """
