"""Defaults that depend on the data: how long an opened model is trained, and how much is evaluated.

They depend only on data and settings, so that the same file gives the same run on any machine.
"""

from __future__ import annotations

import math

from lmworks.base.figures import count_of
from lmworks.data.examples import Examples
from lmworks.evaluate.metrics import FEWEST_ROWS
from lmworks.evaluate.settings import GENERAL_BYTES, EvaluateSettings
from lmworks.run.recipe import Recipe
from lmworks.text import corpus
from lmworks.text.rows import Table
from lmworks.train.settings import TrainSettings

ENOUGH_STEPS = 100  # optimizer steps; a file with fewer steps per epoch is trained for several epochs
MOST_EPOCHS = 12  # a pattern of 63 questions and answers was learned exactly in 12 epochs, and not in one
PATIENCE = 2  # evaluations without a lower held-out loss after which training stops
WHOLE_TOKENS = 40_000  # training tokens from which on a run is not short: everything is evaluated
# What the shortest run evaluates at least: a fraction of the default answers and general text; held-out tokens.
LEAST_FRACTION, LEAST_TOKENS = 0.25, 12_000


def settle_length(recipe: Recipe, examples: Examples, held_out: int) -> list[str]:
    """Choose the length of training if neither epochs nor steps were set: until the held-out loss stops falling.

    Args:
        recipe: its training settings are changed.
        examples: to train on.
        held_out: number of held-out examples; without any, one epoch is trained.

    Returns:
        Notes for the user.
    """
    train = recipe.train
    if train.patience is not None and not held_out:
        return ["no rows are held out: training never stops early (train.patience)"]
    if recipe.is_new or not held_out or {"epochs", "steps"} & train.model_fields_set:
        return []
    epochs = min(MOST_EPOCHS, math.ceil(ENOUGH_STEPS / train.steps_per_epoch(len(examples))))
    if epochs == 1:
        return []
    train.epochs = float(epochs)
    if train.patience is None:
        train.patience = PATIENCE
    return [
        f"a small file: trained until the held-out loss stops falling, at most {epochs} epochs "
        f"(train.epochs; train.patience {train.patience})"
    ]


def settle_evaluation(recipe: Recipe, examples: Examples, held_out: Examples, writes: bool = True) -> list[str]:
    """Choose how much is evaluated where the settings leave it open: less for a short run.

    Args:
        recipe: its evaluation settings are changed.
        examples: to train on.
        held_out: examples never trained on.
        writes: whether the model writes answers and can forget a text: not where it learns a head of its own.

    Returns:
        Notes for the user.
    """
    evaluate, trained = recipe.evaluate, trained_tokens(examples, recipe.train)
    fraction = 1.0 if recipe.is_new else min(1.0, max(LEAST_FRACTION, trained / WHOLE_TOKENS))
    noted = ("task_rows", "general_bytes", "measured") if writes else ("measured",)
    open_fields = [name for name in noted if getattr(evaluate, name) is None]
    evaluate.resolve(recipe.is_new, fraction)
    if fraction == 1.0:
        return []
    if evaluate.measured is None:
        evaluate.measured = _num_evaluated(held_out, max(LEAST_TOKENS, trained // 2))
    note = _note(evaluate, open_fields, held_out)
    return [note] if note else []


def note_few_held_out(recipe: Recipe, held_out: Examples, table: Table, is_divided_inside: bool) -> list[str]:
    """A note if so few held-out examples are evaluated that no change will be tested, and what gives more.

    Args:
        recipe: with its evaluation settled.
        held_out: all held-out examples.
        table: all rows, to train on and held out.
        is_divided_inside: whether the held-out examples are the ends of the texts to train on.
    """
    evaluated = min(recipe.evaluate.measured or len(held_out), len(held_out))
    if not 0 < evaluated < FEWEST_ROWS:
        return []
    if len(held_out) >= FEWEST_ROWS:
        more = f"--evaluate.measured {FEWEST_ROWS} evaluates enough"
    elif is_divided_inside:
        more = "give more text"
    else:
        more = _options_for_enough(recipe, table) or "give more rows"
    return [f"{count_of(evaluated, 'held-out example')}: better or worse is said from {FEWEST_ROWS} on; {more}"]


def _options_for_enough(recipe: Recipe, table: Table) -> str:
    """Options that hold out as many of these rows as a verdict needs; empty where the rows are too few for it."""
    settings = recipe.data.model_copy(update={"held_out": float(FEWEST_ROWS), "held_out_max": FEWEST_ROWS})
    if len(table) < 2 * FEWEST_ROWS or len(corpus.split(table, settings)[1]) < FEWEST_ROWS:
        return ""
    options = [f"--data.held_out {FEWEST_ROWS}"]
    if recipe.data.held_out_max < FEWEST_ROWS:
        options.append(f"--data.held_out_max {FEWEST_ROWS}")
    if recipe.evaluate.measured is not None and recipe.evaluate.measured < FEWEST_ROWS:
        options.append(f"--evaluate.measured {FEWEST_ROWS}")
    return f"{' '.join(options)} holds out enough"


def trained_tokens(examples: Examples, train: TrainSettings) -> int:
    """Total tokens that a run trains on, if it does not stop early."""
    epochs = train.epochs if train.steps is None else train.steps / train.steps_per_epoch(len(examples))
    return round(examples.report.tokens * epochs)


def _num_evaluated(held_out: Examples, tokens: int) -> int | None:
    """Number of held-out examples with about ``tokens`` tokens in total; None: all."""
    whole = max(1, held_out.report.tokens)
    rows = math.ceil(len(held_out) * tokens / whole)
    return rows if 0 < rows < len(held_out) else None


def _note(evaluate: EvaluateSettings, names: list[str], held_out: Examples) -> str:
    """How much is evaluated out of how much, with the settings that change it."""
    parts = []
    if "measured" in names and evaluate.measured is not None:
        parts.append(f"{evaluate.measured} of {len(held_out):,} held-out examples (evaluate.measured)")
    rows, answered = held_out.report.rows, evaluate.task_rows or 0
    if "task_rows" in names and held_out.report.kind != "text" and answered < rows:
        parts.append(f"answers to {answered} of {rows:,} held-out rows (evaluate.task_rows)")
    if "general_bytes" in names:
        size = f"{evaluate.general_bytes:,} of {GENERAL_BYTES:,} bytes"
        parts.append(f"{size} of a text that shows what is forgotten (evaluate.general_bytes)")
    return f"a short run is evaluated on less: {', '.join(parts)}" if parts else ""
