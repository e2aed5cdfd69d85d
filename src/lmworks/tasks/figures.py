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
        has_varying_denominators: whether the denominators depend on the model too, as those of F1.
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
    has_varying_denominators: bool = False


ANSWERS = Figure("task", "Answers", "task", "value", better="higher")
NUMBERS = Figure(
    "final_number", "Final number right", "numbers", "share", "row_right", "row_weights", "share", "higher"
)
"""Figure of answers whose references all end in a number, as those of GSM8K do."""

LOSS = Figure("held_out_loss", "Loss on held-out rows", "held_out", "loss", "row_nats", "row_tokens", "nats per token")
LABEL_LOSS = Figure("held_out_loss", "Loss", "held_out", "loss", "row_nats", "row_tokens", "nats per label")
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

ENTITIES = (
    Figure(
        "entity_f1",
        "Entity F1",
        "entities",
        "f1",
        "row_right",
        "row_entities",
        better="higher",
        has_varying_denominators=True,
    ),
    Figure("entity_precision", "Entity precision", "entities", "precision", better="higher"),
    Figure("entity_recall", "Entity recall", "entities", "recall", better="higher"),
    Figure("strict_f1", "Entity F1, strict IOB2", "entities", "strict_f1", better="higher"),
    Figure("tag_accuracy", "Words with the right tag", "entities", "accuracy", unit="share", better="higher"),
)
"""Figures of models that tag words (evaluate/entities)."""


QUESTIONS = tuple(
    Figure(key, title, "questions", key, rows, unit="percent", better="higher")
    for key, title, rows in (
        ("f1", "F1", "row_f1"),
        ("exact", "Exact match", "row_exact"),
        ("has_answer_f1", "F1 where there is an answer", ""),
        ("has_answer_exact", "Exact match where there is an answer", ""),
        ("no_answer_f1", "Right where there is no answer", ""),
        ("best_f1", "F1 at the threshold that is best for these rows", ""),
    )
)
"""Figures of answers that are spans of a context (evaluate/question_answering)."""


REGRESSION = (
    Figure("pearson", "Pearson correlation", "regression", "pearson", better="higher"),
    Figure("spearman", "Spearman correlation", "regression", "spearman", better="higher"),
    Figure("squared_error", "Mean squared error", "regression", "squared_error", "row_errors", "row_weights"),
)
"""Figures of tasks that give a text a value (evaluate/regression)."""


def head_accuracy(name: str) -> Figure:
    """The accuracy of a classification head."""
    title = f"{name.replace('_', ' ').capitalize()}: accuracy"
    return Figure(f"{name}_accuracy", title, "held_out", f"{name}_accuracy", unit="share", better="higher")
