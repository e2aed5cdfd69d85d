"""Pretrain: a model from nothing, with a tokenizer and an objective of its own, in a run folder as tune's.

The tokenizer is trained on the training rows alone and kept in the run's folder, so a resumed run has the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmworks.adapt import registry
from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data import drawing, objectives
from lmworks.data.batch import Example, count_labels
from lmworks.data.objectives import Examples, Report
from lmworks.evaluate.scoring import DRAWING_SEED
from lmworks.families.registry import FAMILIES
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.opening import load_tokenizer
from lmworks.model import initialization
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.run import pretrain_recipe as scratch
from lmworks.run import stages, tuning
from lmworks.run.examination import Trial, spread
from lmworks.run.footprint import Documents, ProcessMemory
from lmworks.run.plan import make as make_plan
from lmworks.run.pretrain_recipe import PretrainRecipe, TokenizerChoice
from lmworks.run.stages import Run, Say
from lmworks.text import corpus, train_tokenizer
from lmworks.text.rows import Table
from lmworks.text.tokenizer import Tokenizer
from lmworks.text.tokenizer_settings import TokenizerSettings
from lmworks.text.train_tokenizer import TooManyEntries, texts_of

TOKENIZER = "tokenizer"  # the folder in the run's folder


def pretrain(
    preset: str, data: str | dict[str, Any], *, out: str | Path | None = None, say: Say | None = None, **settings: Any
) -> Run:
    """Train a model from nothing.

    Args:
        preset: a name (``lmworks recipe presets`` tells of them), or the path of a recipe (.yaml).
        data: a file, a named data set or ``hub:owner/name``; or a dict of data settings with it as ``source``.
        out: the run's folder; must be new. Default: runs/<time>-<name>.
        say: told each line of progress; default: silent but for the progress of training.
        **settings: what is to be otherwise: ``model={"num_hidden_layers": 2}``, ``train={"steps": 100}``,
            ``tokenizer={"kind": "char"}``, ``objective={...}``.

    Raises:
        InputError: anything about data or settings that cannot be used.
    """
    values = {**settings, "data": data}
    if out is not None:
        values["out"] = str(out)
    is_file = preset.endswith((".yaml", ".yml"))
    return run_recipe(scratch.read(preset, values) if is_file else scratch.of_preset(preset, values), say)


def run_recipe(recipe: PretrainRecipe, say: Say | None = None) -> Run:
    """Start a new run from a recipe."""
    return stages.begin(recipe, prepare, recipe.name, say)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Go on with a run of either kind, pretrain's or tune's, that was killed or stopped.

    On a CPU the losses that follow are those of a run that was never stopped, bit for bit.

    Raises:
        InputError: no run there, or its data or settings are no longer the same.
    """
    if not scratch.is_scratch(str(RunFolder(folder).recipe)):
        return tuning.resume(folder, say)
    return stages.go_on(folder, _recipe_of, prepare, say)


def _recipe_of(run: RunFolder) -> PretrainRecipe:
    recipe = scratch.read(run.recipe)
    recipe.out = str(run.path)
    recipe.tokenizer = TokenizerChoice(source=str(run.path / TOKENIZER))
    return recipe


@dataclass(kw_only=True)
class Prepared(stages.Work):
    """A model to be trained from nothing.

    Attributes:
        told: the recipe.
        objective: what it learns, and what is drawn anew each time.
        tokenizer_told: where the tokenizer comes from, in the journal's words.
    """

    told: PretrainRecipe
    objective: drawing.Objective
    tokenizer_told: dict[str, Any]

    @property
    def recipe(self) -> PretrainRecipe:
        """All settings."""
        return self.told

    def opening(self) -> dict[str, Any]:
        """Model, data, objective and tokenizer."""
        return {
            "model": self.told.name,
            "data": self.told.data.source,
            "method": f"from scratch, {self.told.objective.name}",
            "objective": self.told.objective.model_dump(),
            "tokenizer": self.tokenizer_told,
        }

    def exam(self) -> Trial:
        """Prediction of what is held out, with what is hidden in it drawn once."""
        return Trial(self.model, list(_drawn(self.objective, self.held_out)), self.told.evaluate)

    def unfreeze(self) -> None:
        """Every weight."""
        self.model.network.requires_grad_(True)

    def save(self, folder: Path) -> None:
        """A folder that everyone opens."""
        self.model.save(folder)

    def keep(self, folder: Path) -> None:
        """The tokenizer."""
        self.model.tokenizer.save(folder / TOKENIZER)

    def sampler(self, exam: Any) -> Callable[[Transformer, int], list[dict[str, str]]]:
        """On the way the same texts are continued or filled again and again."""
        return lambda network, step: exam.samples()


def prepare(recipe: PretrainRecipe) -> Prepared:
    """Read the data, train the tokenizer, draw the weights and check that all fit together; nothing is written.

    Raises:
        InputError: they do not.
    """
    family = FAMILIES.get(recipe.family)
    if family is None:
        raise InputError(f"there is no family {recipe.family!r}", "family", f"one of: {', '.join(sorted(FAMILIES))}")
    table = corpus.read(recipe.data.source, recipe.data)
    train_rows, held_out_rows = corpus.split(table, recipe.data)
    tokenizer, told, notes = _tokenizer(recipe, train_rows)
    config = recipe.model.config(tokenizer.vocab_size)
    ids = _special_ids(recipe, tokenizer)
    family.write_config(config, ids)
    objective = drawing.make(recipe.objective, tokenizer, config)
    context = config.max_position_embeddings
    examples = objective.examples(train_rows, recipe.data, context)
    objectives.check(examples.report, recipe.data)
    _refuse_short(examples, config, table)
    held_out = Examples([], Report(table.kind, ""))
    if len(held_out_rows):
        held_out = objective.examples(held_out_rows, recipe.data, context)
        notes += _measured(held_out, recipe.evaluate.measured)
    network = Transformer(config)
    initialization.draw(network, torch.Generator().manual_seed(recipe.train.seed))
    model = LanguageModel(network.eval(), tokenizer, family, recipe.name, recipe.name, hf_config=ids, generation=ids)
    drawn = list(_drawn(objective, examples))
    lengths, sources = zip(*(_lengths(example) for example in drawn), strict=True)
    plan = make_plan(
        config,
        registry.make("full"),
        recipe.train,
        Documents(
            lengths,
            sources=sources if config.architecture == "encoder-decoder" else (),
            loss_tokens=examples.report.loss_tokens,
            labels=count_labels(drawn),
            evaluation_tokens=2 * held_out.report.tokens,
        ),
        ProcessMemory(_beside(network), machine.peak_memory()),
    )
    plan.settle(recipe.train)
    return Prepared(
        settings=recipe.train,
        model=model,
        train=examples,
        held_out=held_out,
        plan=plan,
        notes=[*notes, *examples.report.notes, *stages.long_rows(drawn, recipe.train)],
        draw=objective.draw,
        told=recipe,
        objective=objective,
        tokenizer_told=told,
    )


def _beside(network: Transformer) -> int:
    """Bytes that the process holds beside the weights: libraries, tokenizer, data."""
    machine.release_memory()
    return machine.resident_memory() - sum(weight.nbytes for weight in network.parameters())


def _drawn(objective: drawing.Objective, examples: Examples) -> Iterator[Example]:
    """The examples with what is hidden in them drawn once, the same each time."""
    for row, example in enumerate(examples.items):
        yield objective.measure(example, np.random.default_rng((DRAWING_SEED, row)))


def _measured(held_out: Examples, most: int | None) -> list[str]:
    """Leave only so many held-out examples to be measured, spread evenly, and say so."""
    there = len(held_out)
    if most is None or there <= most:
        return []
    held_out.items = spread(held_out.items, most)
    objectives.count(held_out.items, held_out.report)
    return [f"{most} of {there:,} held-out stretches are measured (evaluate.measured)"]


def _lengths(example: Example) -> tuple[int, int]:
    """Tokens of the decoder (or the only stack) and of the encoder beside it."""
    return example.width, 0 if example.source is None else len(example.source)


def _tokenizer(recipe: PretrainRecipe, rows: Table) -> tuple[Tokenizer, dict[str, Any], list[str]]:
    """The tokenizer that the recipe names, or one trained on these rows; what the journal says of it; and notes."""
    choice = recipe.tokenizer
    if choice.source is not None:
        tokenizer = load_tokenizer(choice.source)
        told = {"source": choice.source, "vocab_size": tokenizer.vocab_size}
        return tokenizer, told, [f"tokenizer of {choice.source}, {tokenizer.vocab_size:,} words"]
    try:
        made, less = _trained(choice, list(texts_of(row.values for row in rows.rows)), recipe.family)
    except InputError as error:
        hint = re.sub(r"--(?=[a-z])", "--tokenizer.", error.hint)
        raise InputError(error.fault, f"tokenizer.{error.place}", hint) from error
    told = {"source": "trained on the training rows", "kind": choice.kind, "vocab_size": made.tokenizer.vocab_size}
    return made.tokenizer, told, [f"tokenizer: {note}" for note in (*less, *made.notes)]


def _trained(choice: TokenizerChoice, texts: list[str], family: str) -> tuple[train_tokenizer.Trained, list[str]]:
    """A new tokenizer, and whether it has fewer words than were asked for."""
    settings = TokenizerSettings(**choice.model_dump(exclude={"source", "at_most"}))
    try:
        return train_tokenizer.train(texts, settings, family), []
    except TooManyEntries as error:
        if not choice.at_most:
            raise
        fewer = settings.model_copy(update={"vocab_size": error.filled})
        note = f"the text fills {error.filled:,} words, not the preset's {settings.vocab_size:,}"
        return train_tokenizer.train(texts, fewer, family), [note]


def _special_ids(recipe: PretrainRecipe, tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of special tokens, as config.json and generation_config.json call them."""
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    if recipe.model.architecture == "encoder-decoder":
        ids["decoder_start"] = drawing.decoder_start(recipe.objective, tokenizer)
    return {f"{role}_token_id": number for role, number in ids.items() if number is not None}


def _refuse_short(examples: Examples, config: ModelConfig, table: Table) -> None:
    """A text that does not fill one context teaches nothing about most of its places."""
    context, tokens = config.max_position_embeddings, examples.report.tokens
    if table.kind == "text" and tokens < context:
        raise InputError(
            f"the training text is {tokens} tokens, shorter than one context of {context}",
            table.name,
            f"give more text, or shorten the context: --model.max_position_embeddings {max(2, tokens // 2)}",
        )
