"""Regression: a head on any backbone gives a text, or a pair of texts, a value, such as how similar the two are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.model.head_requests import SEQUENCE, HeadRequest
from lmworks.tasks.figures import REGRESSION
from lmworks.tasks.with_head import TextHeadTask
from lmworks.text.rows import DataSettings, Row, Table

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Regress(TextHeadTask):
    """Rows of one text or two, with a value; the loss is the squared error."""

    name = "regress"
    learns = "the value of a text"
    kinds = ("values", "pair_values")
    default_for = ("values", "pair_values")
    input_kind = "class"
    head_name = SEQUENCE
    figures = REGRESSION

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest:
        """A head with one output."""
        return HeadRequest(SEQUENCE, 1, "regression")

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row; errors as :meth:`text_examples`."""
        return self.text_examples(table, settings, context)

    def label_of(self, row: Row) -> np.ndarray:
        """(1,) value of a row."""
        return np.array([row.values["value"]])

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """The part ``regression``: see evaluate/regression."""
        from lmworks.evaluate.outputs import head_logits
        from lmworks.evaluate.regression import regression_figures

        predicted = np.concatenate(head_logits(model.network, examples, SEQUENCE))[:, 0]
        return {"regression": regression_figures(predicted, _values(examples))}

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Figures of the same answer for every text: the mean of the values in training."""
        from lmworks.evaluate.regression import regression_figures

        mean = np.full(len(examples), _values(training).mean())
        return {"name": "mean value", "regression": regression_figures(mean, _values(examples))}

    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """The right value and the predicted one."""
        return {"reference": f"{_values([example])[0]:.4g}", "answer": f"{logits[0, 0]:.4g}"}


def _values(examples: Sequence[Example]) -> np.ndarray:
    """(N,) values of the examples."""
    return np.concatenate([example.labels[SEQUENCE].classes for example in examples])[:, 0]
