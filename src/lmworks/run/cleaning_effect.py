"""What each step of cleaning is worth: a classifier trained with and without it, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.baselines.tfidf import TextClassifier
from lmworks.baselines.tfidf_settings import settings_of
from lmworks.evaluate.metrics import FEWEST_ROWS, Interval, paired_difference
from lmworks.run.classical import labelled_rows
from lmworks.text.rows import DataSettings, option


class Effect(NamedTuple):
    """A classifier with some steps of cleaning, beside the one without any.

    Attributes:
        steps: of cleaning.
        ngrams: how many are counted.
        accuracy: on the held-out rows.
        change: of the accuracy, with its 95 % bootstrap interval over pairs of rows; None for the one without steps.
    """

    steps: tuple[str, ...]
    ngrams: int
    accuracy: float
    change: Interval | None


def cleaning_effects(
    source: Any,
    steps: Sequence[str],
    settings: DataSettings,
    preset: str = "tfidf-logreg",
    each: Callable[[Effect], None] = lambda effect: None,
) -> list[Effect]:
    """Train without cleaning, with each step alone, and with all steps.

    Args:
        source: rows of texts and labels, as of text/corpus.read.
        steps: of cleaning, in their order.
        settings: how the rows are read and divided.
        preset: of the classifier (baselines/tfidf_settings).
        each: called with each effect as soon as it is measured.

    Raises:
        InputError: the rows have no labels, or too few are held out.
    """
    train, held_out = labelled_rows(source, settings)
    if len(held_out) < FEWEST_ROWS:
        fault = f"{len(held_out)} held-out rows are too few to measure a change"
        raise InputError(fault, train.name, option("held_out", 0.2))
    texts, labels = ([row.values[name] for row in train.rows] for name in ("text", "label"))
    others, right = ([row.values[name] for row in held_out.rows] for name in ("text", "label"))
    variants = [(), *((step,) for step in steps), *([tuple(steps)] if len(steps) > 1 else [])]
    effects: list[Effect] = []
    without: list[float] = []
    for variant in variants:
        model = TextClassifier.fit(texts, labels, settings_of(preset, {"cleaning": variant}))
        predicted = model.predict(others)
        hits = [float(prediction.label == label) for prediction, label in zip(predicted, right, strict=True)]
        without = without or hits
        change = paired_difference(without, hits) if variant else None
        effects.append(Effect(variant, len(model.vocabulary), sum(hits) / len(hits), change))
        each(effects[-1])
    return effects
