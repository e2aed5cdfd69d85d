"""The heads that tasks request of a model, by name. Imports no torch and knows no family."""

from __future__ import annotations

from typing import NamedTuple

from lmworks.model.config import HeadConfig, ProblemType

SEQUENCE, TOKENS, SPANS = "sequence_classification", "token_classification", "question_answering"
"""Heads of one text (or a pair), of each token, of a span in a text."""


class HeadRequest(NamedTuple):
    """The head that a task needs.

    Attributes:
        name: SEQUENCE, TOKENS or SPANS.
        size: its outputs.
        problem: what they mean.
        labels: their names.
    """

    name: str
    size: int
    problem: ProblemType
    labels: tuple[str, ...] = ()

    def is_met_by(self, head: HeadConfig | None) -> bool:
        """Whether a model's head is the one that is needed: of the same problem, with all its labels."""
        if head is None or head.problem != self.problem:
            return False
        return set(self.labels) <= set(head.labels) if self.labels else head.size == self.size


def labels_of(head: HeadConfig) -> list[str]:
    """The names of a head's outputs; those of ``transformers`` where it has none."""
    return list(head.labels) or default_labels(head.size)


def default_labels(size: int) -> list[str]:
    """The names that ``transformers`` gives to outputs without a name."""
    return [f"LABEL_{number}" for number in range(size)]
