"""Runs of n-gram language models: the same rows, journal, report card and folder as a run of a network.

Such a model trains in seconds: a killed run is begun again. Where a network is evaluated with its random weights,
the uniform distribution is: before anything was counted, every token is equally likely.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.energy import EnergyMeter
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.journal import RunFolder
from lmworks.baselines.ngram import NgramModel
from lmworks.data.batch import Example
from lmworks.data.documents import Document, encode_documents
from lmworks.evaluate.scoring import perplexity
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.evaluate.text_windows import bits_per_byte
from lmworks.language_model.ngram import NgramLanguageModel
from lmworks.run import contamination, ngram_recipe, quick_runs
from lmworks.run.evaluation import spread, sum_adjacent
from lmworks.run.ngram_recipe import NgramRecipe, SampleSettings
from lmworks.run.result import Run, Say
from lmworks.run.source import tokenizer_of_new
from lmworks.tasks.causal import Causal
from lmworks.tasks.generation import continue_texts
from lmworks.text import corpus
from lmworks.text.rows import Table, option
from lmworks.text.tokenizer import Tokenizer

STYLE = "gpt2"
"""Whose special tokens a new tokenizer gets: one that ends a text, and stands before it as context."""
WINDOW = 256
"""Tokens of a held-out text that are one row of the figures: an interval needs several rows."""
SHOWN = 64
"""Tokens of a held-out text of which the first half is continued."""


@dataclass
class Setup:
    """Everything that a run needs.

    Attributes:
        recipe: its settings.
        tokenizer: opened, or trained on the training rows.
        tokenizer_event: its entry in the journal.
        train, held_out: texts as token ids.
        tables: the rows of both.
        notes: for the user.
    """

    recipe: NgramRecipe
    tokenizer: Tokenizer
    tokenizer_event: dict[str, Any]
    train: list[Document]
    held_out: list[Document]
    tables: tuple[Table, Table]
    notes: list[str] = field(default_factory=list)

    def train_model(self, order: int) -> NgramModel:
        """An n-gram model of the training texts, in an order of its own."""
        return NgramModel.train(
            [document.ids for document in self.train],
            order,
            self.tokenizer.highest_id + 1,
            begin_id=begin_id(self.tokenizer),
            end_id=end_id(self.tokenizer),
            smoothing=self.recipe.ngram.smoothing,
            discount=self.recipe.ngram.discount,
        )


def begin_id(tokenizer: Tokenizer) -> int | None:
    """The token that stands before a text as context: what the tokenizer adds, else its BOS token."""
    return tokenizer.opening[-1] if tokenizer.opening else tokenizer.bos_id


def end_id(tokenizer: Tokenizer) -> int | None:
    """The token that ends a text: what the tokenizer adds, else its EOS token."""
    return tokenizer.closing[0] if tokenizer.closing else tokenizer.eos_id


def run_recipe(recipe: NgramRecipe, say: Say | None = None, rows: list[dict[str, Any]] | None = None) -> Run:
    """Start a new run; see run/quick_runs."""
    return quick_runs.start(recipe, set_up, _run_stages, say, rows)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Finish a run that was killed: it is begun again."""
    return quick_runs.begin_again(folder, lambda path: ngram_recipe.resolve(path, {}), set_up, _run_stages, say)


def is_ngram_run(folder: str | Path) -> bool:
    """Whether a run folder is one of an n-gram model."""
    recipe = Path(folder) / "recipe.yaml"
    return recipe.is_file() and ngram_recipe.is_ngram(str(recipe))


def set_up(recipe: NgramRecipe, rows: list[dict[str, Any]] | None = None) -> Setup:
    """Read the texts, divide them, and encode them.

    Raises:
        InputError: they cannot be read, or are no texts.
    """
    table = corpus.read(recipe.data.source if rows is None else rows, recipe.data)
    if table.kind != "text":
        hint = f"name the column of the text: {option('columns', {'text': 'COLUMN'})} {option('kind', 'text')}"
        raise InputError(f"{recipe.model} learns texts, and these are rows of kind {table.kind}", table.name, hint)
    train_rows, held_out_rows = corpus.split(table, recipe.data)
    found = contamination.check(train_rows, held_out_rows, recipe.data)
    tokenizer, event, notes = tokenizer_of_new(recipe.tokenizer, train_rows, STYLE)
    train, held_out = (
        [document for document in encode_documents(part.rows, tokenizer) if len(document)]
        for part in (train_rows, held_out_rows)
    )
    if not train:
        raise InputError("no text has a token to train on", table.name, "give texts that are not empty")
    counts = [count_of(sum(map(len, part)), "token") for part in (train, held_out)]
    notes = [*train_rows.notes, *found, *notes, f"{counts[0]} to train on, {counts[1]} held out"]
    unknown = sum(int((document.ids == tokenizer.unk_id).sum()) for document in held_out)
    if tokenizer.unk_id is not None and unknown:
        notes.append(
            f"{count_of(unknown, 'held-out token')} unknown to the tokenizer: what they stand for is not predicted, so "
            "bits per byte cannot be compared with those of a tokenizer that knows all characters"
        )
    return Setup(recipe, tokenizer, event, train, held_out, (train_rows, held_out_rows), notes)


def _run_stages(run: RunFolder, setup: Setup, say: Say) -> Run:
    started, meter = time.monotonic(), EnergyMeter()
    meter.start()
    recipe = setup.recipe
    if not run.events("start"):
        method = recipe.ngram.smoothing if recipe.ngram.order else "uniform"
        event = quick_runs.start_event(recipe, method, {"name": Causal.name})
        run.write("start", **event, tokenizer=setup.tokenizer_event)
        run.write("data", **_data_event(setup))
    if recipe.ngram.order:
        _evaluate(run, "before", setup.train_model(0), setup)
    say(f"counting n-grams up to order {recipe.ngram.order} into {run.path}")
    began = time.monotonic()
    model = setup.train_model(recipe.ngram.order)
    seconds = time.monotonic() - began
    run.write("step", step=1, tokens=sum(map(len, setup.train)), seconds=seconds)
    shutil.rmtree(run.final, ignore_errors=True)  # of a killed session
    NgramLanguageModel(model, setup.tokenizer, recipe.model).save(run.final)
    _evaluate(run, "after", model, setup)
    return quick_runs.finish(run, started, meter, model.parameters, training_seconds=seconds, discounts=model.discounts)


def _evaluate(run: RunFolder, when: str, model: NgramModel, setup: Setup) -> None:
    """Write samples and figures of the held-out texts into the journal."""
    language_model = NgramLanguageModel(model, setup.tokenizer, setup.recipe.model)
    step = int(when == "after")
    items = samples(language_model, setup.held_out, setup.recipe.evaluate)
    run.write("samples", when=when, step=step, items=items)
    figures = {"held_out": held_out_figures(model, setup.held_out)} if setup.held_out else {}
    run.write("evaluation", when=when, step=step, **figures)


def held_out_figures(model: NgramModel, documents: Sequence[Document]) -> dict[str, Any]:
    """Nats, tokens and bytes of texts, as of a network's run: each token of a text and the one that ends it.

    Args:
        model: it predicts the first token of a text too.
        documents: without special tokens around them.
    """
    nats, tokens, sizes = [], [], []
    end = [] if model.end_id is None else [model.end_id]
    for document in documents:
        costs = -model.log_probabilities(np.concatenate([document.ids, end]).astype(np.int64))
        for begin in range(0, len(costs), WINDOW):
            stop = min(begin + WINDOW, len(costs))
            nats.append(float(costs[begin:stop].sum()))
            tokens.append(stop - begin)
            sizes.append(document.bytes(min(begin, len(document)), min(stop, len(document))))
    parts = {"nats": nats, "tokens": tokens, "bytes": sizes}
    rows = {f"row_{name}": sum_adjacent(np.array(values)).tolist() for name, values in parts.items()}
    loss = math.fsum(nats) / sum(tokens)
    return {
        "rows": len(rows["row_nats"]),
        "loss": loss,
        "bits_per_byte": bits_per_byte(math.fsum(nats), sum(sizes)),
        "perplexity": perplexity(loss),
        "tokens": sum(tokens),
        **rows,
    }


def samples(model: NgramLanguageModel, documents: Sequence[Document], settings: SampleSettings) -> list[dict[str, Any]]:
    """Continuations of the settings' prompts, or else of held-out texts."""
    sampling = settings.model_dump(include={"max_tokens", "temperature", "top_k"})
    if settings.prompts:
        return [{"prompt": text, "answer": model.generate(text, **sampling)} for text in settings.prompts]
    examples = [
        Example(document.ids[:SHOWN], np.ones(len(document.ids[:SHOWN]), dtype=bool), document.place)
        for document in documents
    ]
    return continue_texts(model, spread(examples, settings.samples), EvaluateSettings(**sampling))


def _data_event(setup: Setup) -> dict[str, Any]:
    train, held_out = setup.tables
    return {
        "rows": len(train),
        "examples": len(setup.train),
        "tokens": sum(map(len, setup.train)),
        "skipped": len(train.skipped),
        "held_out": len(held_out),
        "notes": setup.notes,
    }
