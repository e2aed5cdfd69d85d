"""The figures that compare the evaluations before and after training: their titles, and their place in the journal.
Imports no torch.
"""

from __future__ import annotations

from typing import NamedTuple

from lmworks.base.figures import NATS_PER_BIT


class Figure(NamedTuple):
    """A figure of an evaluation.

    Attributes:
        key: its key in the report card.
        title: its title in the report card.
        part: the part of an ``evaluation`` event that contains it: held_out, general, task, numbers or
            classification.
        name: its key in that part.
        numerators, denominators: keys of its values by row in that part; without denominators each row counts once.
        unit: "nats per token" ...
        better: "lower" or "higher".
        divisor: of the numerators, which may have another unit than the figure.
        title_of_new: its title for a new model; empty: the same.
    """

    key: str
    title: str
    part: str
    name: str
    numerators: str = ""
    denominators: str = ""
    unit: str = ""
    better: str = "lower"
    divisor: float = 1.0
    title_of_new: str = ""


ANSWERS = Figure("task", "Answers", "task", "value", better="higher")
NUMBERS = Figure(
    "final_number", "Final number right", "numbers", "share", "row_right", "row_weights", "share", "higher"
)
"""Figure of answers whose references all end in a number, as those of GSM8K do."""

LOSS = Figure("held_out_loss", "Loss on held-out rows", "held_out", "loss", "row_nats", "row_tokens", "nats per token")
PERPLEXITY = Figure("held_out_perplexity", "Perplexity", "held_out", "loss", unit="tokens to choose among")
"""The exponential of the loss, which stands before it."""

ACCURACY = Figure(
    "held_out_accuracy", "Token accuracy", "held_out", "accuracy", "row_correct", "row_tokens", "share", "higher"
)
BITS = Figure(
    "held_out_bits",
    LOSS.title,
    "held_out",
    "bits_per_byte",
    "row_nats",
    "row_bytes",
    "bits per byte",
    divisor=NATS_PER_BIT,
)
GENERAL_BITS = Figure(
    "general_bits",
    "Forgetting: another text",
    "general",
    "bits_per_byte",
    "row_nats",
    "row_bytes",
    "bits per byte",
    divisor=NATS_PER_BIT,
    title_of_new="Another text",
)
GENERAL_LOSS = Figure(
    "general_loss",
    "Forgetting: another text",
    "general",
    "loss",
    "row_nats",
    "row_tokens",
    "nats per token",
    title_of_new="Another text",
)

CLASS_ACCURACY = Figure("accuracy", "Accuracy", "classification", "accuracy", "row_correct", better="higher")
CLASSIFICATION = (
    CLASS_ACCURACY,
    Figure("macro_f1", "Macro-F1", "classification", "macro_f1", better="higher"),
    Figure("micro_f1", "Micro-F1", "classification", "micro_f1", better="higher"),
    Figure("roc_auc", "ROC-AUC", "classification", "roc_auc", better="higher"),
    Figure("calibration_error", "Calibration error (ECE)", "classification", "calibration_error"),
)
"""Figures of classifiers (evaluate/classification), for every task that gives a text labels."""

PAIR_LOSS = LOSS._replace(unit="nats per pair")
PAIR_ACCURACY = Figure(
    "contrastive_accuracy",
    "Own partner ranked first",
    "held_out",
    "contrastive_accuracy",
    "row_correct",
    "row_tokens",
    "share",
    "higher",
)
"""Figures of vectors of pairs: each text's partner among those of all held-out rows."""


def of_head(name: str) -> Figure:
    """The accuracy of a classification head."""
    title = f"{name.replace('_', ' ').capitalize()}: accuracy"
    return Figure(f"{name}_accuracy", title, "held_out", f"{name}_accuracy", unit="share", better="higher")
