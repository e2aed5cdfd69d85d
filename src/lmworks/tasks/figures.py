"""The figures of an evaluation: where each stands in the journal, and what it is called. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from lmworks.base.figures import NATS_PER_BIT


class Figure(NamedTuple):
    """A figure of the evaluations before and after training.

    Attributes:
        key: under which the card keeps it.
        title: what a person reads.
        part: the part of an ``evaluation`` event that has it: held_out, general, task or numbers.
        name: its name there.
        numerators, denominators: its parts by row there; empty where no rows are kept.
        unit: "nats per token" ...
        better: "lower" or "higher".
        divisor: of the numerators, where they have another unit than the figure.
        title_of_new: what a person reads of a new model, where it is something else.
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


def of_head(name: str) -> Figure:
    """The accuracy of a classification head."""
    title = f"{name.replace('_', ' ').capitalize()}: accuracy"
    return Figure(f"{name}_accuracy", title, "held_out", f"{name}_accuracy", unit="share", better="higher")
