"""What a run's model memorised of its training rows: the exposure of planted canaries, and the share of training
completions that it writes word for word.

Both are beside what they are without memorisation: canaries that were not planted have the expectation of a random
rank, and completions of held-out rows are reproduced where they can be guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.data.batch import Example
from lmworks.evaluate.exposure import Exposure, expected_exposure, exposure
from lmworks.evaluate.scoring import row_losses
from lmworks.generate.decode import decode
from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.text_methods import TextMethods
from lmworks.run import classical, classical_recipe
from lmworks.run.load import load
from lmworks.run.quick_runs import data_source
from lmworks.run.recipe import Recipe
from lmworks.run.source import recipe_of, source_of
from lmworks.run.task_data import read_rows
from lmworks.tasks.registry import task_class
from lmworks.tasks.task import Task
from lmworks.text.canaries import Canary
from lmworks.text.corpus import content_hash
from lmworks.text.rows import Row, Table

SAMPLES = 200  # other secrets that are scored, of a space of a million
ROWS, PREFIX_TOKENS, NEW_TOKENS = 50, 32, 32
AT_ONCE = 8  # rows that are continued at a time


@dataclass(frozen=True)
class CanaryExposure:
    """The exposure of one canary.

    Attributes:
        name: of the canary.
        planted: how often its row is among the rows that the model was trained on; 0: it is a control.
        exposure: in bits.
    """

    name: str
    planted: int
    exposure: Exposure


@dataclass(frozen=True)
class ExposureSummary:
    """The exposure of several canaries.

    Attributes:
        canaries: each of them.
        mean_planted: mean bits of those that were planted; None without any.
        mean_control: the same of those that were not.
        expected: mean bits of secrets that were never seen, if every rank is as likely.
        space_bits: the most that an exposure can be.
    """

    canaries: list[CanaryExposure]
    mean_planted: float | None
    mean_control: float | None
    expected: float
    space_bits: float


@dataclass(frozen=True)
class Reproduced:
    """A completion, and what the model wrote instead of it.

    Attributes:
        place: of the row.
        prompt, expected, written: as texts.
        tokens: of the expected text.
        is_same: whether all of them were written.
    """

    place: str
    prompt: str
    expected: str
    written: str
    tokens: int
    is_same: bool


@dataclass(frozen=True)
class Reproduction:
    """The share of completions that are written word for word.

    Attributes:
        trained: rows that the model was trained on.
        held_out: rows that it was not trained on.
        share_trained, share_held_out: of those, the share that is the same; None without rows.
        new_tokens: the most that are compared.
    """

    trained: list[Reproduced]
    held_out: list[Reproduced]
    share_trained: float | None
    share_held_out: float | None
    new_tokens: int


def measure_exposure(
    run: str | Path, canaries: Sequence[Canary], samples: int = SAMPLES, model: Any = None
) -> ExposureSummary:
    """The exposure of canaries in the model of a run.

    Args:
        run: its folder.
        canaries: all of one kind; some planted in its rows (text/canaries.plant), others perhaps not.
        samples: other secrets that are scored for each canary, where the space is larger.
        model: another one than the run's, such as its base.

    Raises:
        InputError: the run's rows are of another kind, or its task hides tokens at random.
    """
    if not canaries or len({(canary.kind, canary.labels) for canary in canaries}) > 1:
        raise InputError("canaries of one kind are needed", "canaries", "make them by one call of make_canaries")
    train, _ = rows_of_run(run)
    if train.kind != canaries[0].kind:
        fault = f"the rows are of kind {train.kind}, the canaries of kind {canaries[0].kind}"
        raise InputError(fault, str(run), "make canaries of the kind of the rows")
    planted = Counter(content_hash(Row(row.values)) for row in train.rows)
    secrets = [[canary.secret, *canary.other_secrets(samples)] for canary in canaries]
    nats = _nats_of_secrets(run, load(run) if model is None else model, canaries, secrets, train)
    measured = [
        CanaryExposure(canary.name, planted[content_hash(Row(canary.row()))], exposure(own[0], own[1:], canary.space))
        for canary, own in zip(canaries, nats, strict=True)
    ]
    space = canaries[0].space
    return ExposureSummary(
        measured,
        _mean([one.exposure.bits for one in measured if one.planted]),
        _mean([one.exposure.bits for one in measured if not one.planted]),
        expected_exposure(space),
        float(np.log2(space)),
    )


def measure_reproduction(
    run: str | Path,
    rows: int = ROWS,
    prefix_tokens: int = PREFIX_TOKENS,
    new_tokens: int = NEW_TOKENS,
    seed: int = 0,
    model: TextMethods | None = None,
) -> Reproduction:
    """The share of training completions that the model of a run writes word for word, decoding greedily.

    Rows with a prompt are continued after it, texts after their first tokens (Carlini et al. 2021, "Extracting Training
    Data from Large Language Models"). A completion is the same where all its tokens are, at most ``new_tokens``; the
    token that ends it does not count.

    Args:
        run: its folder.
        rows: of each side, drawn at random where there are more.
        prefix_tokens: of a text, before what is to be reproduced.
        new_tokens: the most that are compared.
        seed: of the draw.
        model: another one than the run's, such as its base: the same rows in its own format.

    Raises:
        InputError: the model writes no texts, or labels alone.
    """
    model = load(run) if model is None else model
    sides = []
    for examples in examples_of_run(run, model, seed):
        chosen = [_divided(example, prefix_tokens, new_tokens, model) for example in examples]
        sides.append(_reproduced(model, [part for part in chosen if part is not None][:rows], new_tokens))
    trained, held_out = sides
    return Reproduction(trained, held_out, _share(trained), _share(held_out), new_tokens)


def examples_of_run(run: str | Path, model: TextMethods, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """The examples of the rows that a run trained on, and of those that it held out, each in an order drawn at random.

    Args:
        run: its folder.
        model: reads them in its own format.
        seed: of the order.

    Raises:
        InputError: the run teaches a model to write no texts, or labels alone.
    """
    recipe = _recipe(run)
    task = _task(recipe, model)
    if not task.needs_language_head or task.is_random or task.input_kind == "label":
        fault = f"task {recipe.task.name} teaches no completions that could be reproduced"
        raise InputError(fault, str(run), "leave this measurement out for such a run")
    sides = []
    for table in rows_of_run(run):
        examples = task.examples(table, recipe.data, _context(model)).items if len(table) else []
        sides.append([examples[index] for index in np.random.default_rng(seed).permutation(len(examples))])
    return sides[0], sides[1]


def rows_of_run(run: str | Path) -> tuple[Table, Table]:
    """The rows that a run trained on, and those that it held out.

    Raises:
        InputError: the recipe or the rows cannot be read, or the run is of several tasks.
    """
    folder = RunFolder(run)
    if classical.is_classical(folder.path):
        recipe = classical_recipe.resolve(str(folder.recipe), {})
        return classical.labelled_rows(data_source(folder, recipe.data.source), recipe.data)
    recipe_of_run = _recipe(run)
    rows = read_rows(recipe_of_run, source_of(recipe_of_run), None)
    return rows.train, rows.held_out


def _recipe(run: str | Path) -> Recipe:
    if classical.is_classical(run):
        hint = "leave this measurement out for such a run"
        raise InputError("a classifier by counts of words writes no texts", str(run), hint)
    recipe = recipe_of(RunFolder(run))
    if recipe.tasks:
        raise InputError("memorisation is measured of runs of one task", str(run), "train the tasks one by one")
    return recipe


def _context(model: TextMethods) -> int:
    """Tokens of the longest example."""
    assert model.context is not None  # of a network, as all runs with such tasks train
    return model.context


def _task(recipe: Recipe, model: Any) -> Task:
    start = model.rules.decoder_start_token_id
    return task_class(recipe.task.name)(recipe.task, model.tokenizer, model.config, start)


# Canaries


def _nats_of_secrets(
    run: str | Path, model: Any, canaries: Sequence[Canary], secrets: Sequence[Sequence[str]], train: Table
) -> list[list[float]]:
    """For each canary the nats of its row with each of these secrets."""
    if canaries[0].kind == "labels":
        texts = [canary.row()["text"] for canary in canaries]
        return [
            [-float(np.log(max(of_label.get(label, 0.0), 1e-300))) for label in labels]
            for of_label, labels in zip(_label_probabilities(model, texts), secrets, strict=True)
        ]
    recipe = _recipe(run)
    task = _task(recipe, model)
    if task.is_random:
        fault = f"task {recipe.task.name} hides tokens at random, so a secret has no likelihood of its own"
        raise InputError(fault, str(run), "leave this measurement out for such a run")
    rows = [Row(canary.row(secret)) for canary, listed in zip(canaries, secrets, strict=True) for secret in listed]
    table = Table("canaries", train.kind, rows)
    examples = task.examples(table, recipe.data, _context(model)).items
    if len(examples) != len(rows):
        fault = f"{len(rows)} canaries became {len(examples)} examples"
        raise InputError(fault, str(run), "raise data.max_tokens, so that a short row fits")
    parts = iter(examples)
    grouped = [[next(parts) for _ in listed] for listed in secrets]
    if model.architecture == "decoder":
        return _nats_after_common_beginning(model, grouped)
    nats = iter(row_losses(model.network.eval(), examples).language.nats)
    return [[float(next(nats)) for _ in group] for group in grouped]


def _nats_after_common_beginning(model: TextMethods, groups: Sequence[Sequence[Example]]) -> list[list[float]]:
    """The nats of each example after what all of its group begin with; the beginning's are the same for all of them,
    and no rank depends on them."""
    prompts, choices = [], []
    for group in groups:
        ids = [example.ids[: int(np.flatnonzero(example.loss)[-1]) + 1].tolist() for example in group]
        length = next(place for place, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
        prompts.append(ids[0][:length])
        choices.append([row[length:] for row in ids])
    return [(-likelihoods).tolist() for likelihoods in model.choice_likelihoods(prompts, choices)]


def _label_probabilities(model: Any, texts: list[str]) -> list[dict[str, float]]:
    """The probability of each label of each text, by whatever model."""
    if isinstance(model, TextMethods) and model.input_format is not None and model.input_format.kind == "label":
        replies = model.complete(texts, SamplingSettings())
        return [dict(reply.label_probabilities or {}) for reply in replies]
    return [prediction.probabilities for prediction in model.predict(texts)]


# Completions


@dataclass(frozen=True)
class _Divided:
    """An example as what is given, and what is to be written."""

    place: str
    prompt: list[int]
    expected: list[int]


def _divided(example: Example, prefix_tokens: int, new_tokens: int, model: TextMethods) -> _Divided | None:
    """An example's prompt and the tokens after it; None where nothing is left to write."""
    learned = np.flatnonzero(example.loss)
    if not len(learned):
        return None
    first = int(learned[0])
    if example.source is None and first <= 1:  # a text, all of which is learned
        first = prefix_tokens
    expected: list[int] = []
    for token, is_learned in zip(example.ids[first:].tolist(), example.loss[first:], strict=True):
        if not is_learned or token in model.tokenizer.end_ids or len(expected) == new_tokens:
            break
        expected.append(token)
    prompt = example.ids[:first].tolist() if example.source is None else example.source.tolist()
    return _Divided(example.place, prompt, expected) if prompt and expected else None


def _reproduced(model: TextMethods, parts: Sequence[_Divided], new_tokens: int) -> list[Reproduced]:
    """What the model writes after each prompt, beside what was expected."""
    settings = SamplingSettings(max_tokens=new_tokens, temperature=0.0)
    written: dict[int, list[int]] = {index: [] for index in range(len(parts))}
    by_length = sorted(written, key=lambda index: len(parts[index].prompt))
    for begin in range(0, len(parts), AT_ONCE):
        group = by_length[begin : begin + AT_ONCE]
        prompts = [parts[index].prompt for index in group]
        for step in decode(model.stepper(), prompts, settings, model.tokenizer.end_ids, model.rules):
            for index, token in zip(group, step, strict=True):
                if token is not None:
                    written[index].append(token.id)
    decoded = model.tokenizer.decode
    return [
        Reproduced(
            part.place,
            decoded(part.prompt),
            decoded(part.expected),
            decoded(written[index]),
            len(part.expected),
            written[index][: len(part.expected)] == part.expected,
        )
        for index, part in enumerate(parts)
    ]


def _share(rows: Sequence[Reproduced]) -> float | None:
    return _mean([float(row.is_same) for row in rows])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
