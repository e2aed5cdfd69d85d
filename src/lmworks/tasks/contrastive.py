"""Contrastive learning of pairs of texts: a model's vector of a text is to be nearest to that of its own partner.

The loss is model/contrastive: InfoNCE with the other texts of the step as negatives, and hard negatives where the rows
have some, or where the model mines them (run/mined_negatives).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import CONTRASTIVE, Example
from lmworks.data.examples import Examples, Report, count, limit_of, note_rows, start_report
from lmworks.data.pairs import pair_example
from lmworks.data.sequences import SIDES
from lmworks.model.config import ModelConfig
from lmworks.tasks.figures import PAIR_ACCURACY, PAIR_LOSS
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Row, Table, option

if TYPE_CHECKING:
    from lmworks.generate.text_vectors import Pooling
    from lmworks.language_model.model import LanguageModel

MINING = ("mining_range_min", "mining_range_max", "mining_margin", "mining_max_score")
"""Settings of mined negatives (run/mined_negatives)."""


def pooling_for(settings: TaskSettings, model: ModelConfig) -> Pooling:
    """The pooling of a model's vectors: ``auto`` is ``last`` of a decoder and ``mean`` of others."""
    if settings.pooling == "auto":
        return "last" if model.architecture == "decoder" else "mean"
    return settings.pooling


class Contrastive(Task):
    """Rows of source and target, or prompt and completion; with ``negative``: triplets."""

    name = "contrastive"
    learns = "which texts belong together"
    architectures = ("encoder", "decoder")
    kinds = ("pairs", "completion")
    default_for = ()  # chosen by name
    uses = frozenset({"pooling", "scale", "mined_negatives", *MINING})
    figures = (PAIR_ACCURACY, PAIR_LOSS)
    needs_language_head = False
    whole_steps = True

    def __init__(self, settings: TaskSettings, *parts: Any) -> None:
        """See :class:`Task`.

        Raises:
            InputError: settings of mined negatives, where none are mined.
        """
        if not settings.mined_negatives and (unused := next((n for n in settings.changed() if n in MINING), None)):
            hint = "say how many negatives each row gets: --task.mined_negatives 1"
            raise InputError("nothing is mined, so it says nothing", f"task.{unused}", hint)
        super().__init__(settings, *parts)
        self.pooling = pooling_for(settings, self.model)

    @property
    def losses(self) -> tuple[str, ...]:
        """The loss of vectors of texts, which needs no head."""
        return (CONTRASTIVE,)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row.

        Raises:
            InputError: a text is too long where long rows are refused (data.on_long), or the limit has no room for one.
        """
        limit = limit_of(settings, context)
        extra = len(self.tokenizer.opening) + len(self.tokenizer.closing)
        if limit <= extra:
            raise InputError(f"{limit} tokens have no room for a text", "data.max_tokens", f"at least {extra + 1}")
        report = start_report(table, "contrastive")
        fields = SIDES[table.kind]
        texts = [[*(row.values[field] for field in fields), *row.values.get("negatives", [])] for row in table.rows]
        ids = iter(self.tokenizer.encode_whole([text for of_row in texts for text in of_row]))
        items = []
        for row, of_row in zip(table.rows, texts, strict=True):
            example = self._example(row, [next(ids) for _ in of_row], limit, settings.on_long, report)
            if example is not None:
                items.append(example)
        count(items, report)
        report.loss_tokens = sum(len(example) for example in items)  # each is a part of a text's vector
        note_rows(report, "without a token on one side")
        return Examples(items, report)

    def _example(self, row: Row, texts: list[list[int]], limit: int, on_long: str, report: Report) -> Example | None:
        """The example of a row, or None where it is left out."""
        dropped = sum(max(len(text) - limit, 0) for text in texts)
        if dropped and on_long == "stop":
            fault = f"a text is {max(map(len, texts))} tokens long; the limit is {limit}"
            raise InputError(fault, row.place, f"shorten it, or cut it: {option('on_long', 'cut')}")
        if dropped and on_long == "skip":
            report.too_long += 1
            return None
        report.truncated += bool(dropped)
        report.dropped_tokens += dropped
        closing = self.tokenizer.closing
        cut = [text if len(text) <= limit else text[: limit - len(closing)] + closing for text in texts]
        arrays = [np.array(text, dtype=np.int32) for text in cut]
        return pair_example(arrays, self.pooling, self.settings.scale, row.place, dropped)

    def finish(self, model: LanguageModel) -> None:
        """The trained model makes vectors as it was trained."""
        from lmworks.families.sentence_pooling import SentencePooling

        mode = "lasttoken" if self.pooling == "last" else self.pooling
        model.pooling = replace(model.pooling or SentencePooling(), modes=(mode,))
        if model.tokenizer.pad_id is None:  # sentence-transformers pads the texts of a batch
            model.tokenizer.pad_id = model.tokenizer.eos_id
