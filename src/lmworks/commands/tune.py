"""lmworks tune: adapt a model to a data set and measure what it is worth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.adapt.registry import METHODS, default
from lmworks.base.errors import InputError
from lmworks.base.settings import merge, parse_overrides, spelled, to_yaml
from lmworks.baselines.tfidf_settings import PRESETS
from lmworks.commands import show
from lmworks.run import classical_recipe, ngram_recipe
from lmworks.run import recipe as recipes
from lmworks.run.classical_recipe import ClassicalRecipe
from lmworks.run.recipe import Recipe
from lmworks.tasks.registry import TASKS

if TYPE_CHECKING:
    from lmworks.run.result import Run

OPENING = "opening model and data, and measuring this machine where it was not measured for such a model yet ..."

ABOUT = """Adapt a model to a data set: lmworks tune MODEL DATA, lmworks tune RECIPE.yaml, or, where the recipe names
its data or several tasks, lmworks tune MODEL RECIPE.yaml. Every setting of a recipe can be given as an option:
--train.epochs 3 --lora.rank 8 --data.held_out 100 (lmworks recipe list prints them all)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL DATA, or a recipe."""
    parser.description = ABOUT
    classifiers = ", ".join(PRESETS)
    parser.add_argument(
        "model",
        nargs="?",
        help=f"any source of a model, a classifier by counts of words ({classifiers}), or a recipe (.yaml)",
    )
    add_run(parser, f"default: {default('opened').name}", "runs/<time>-<model>-<method>")
    parser.add_argument("--like", metavar="COMPARISON", help="train what a comparison recommends, on all its data")
    add_dry_run(parser)


def add_run(parser: argparse.ArgumentParser, method: str, out: str) -> None:
    """The arguments that tune, pretrain and plan share, besides the model."""
    parser.add_argument("data", nargs="?", help="a file, a named data set (lmworks data list) or hub:owner/name")
    parser.add_argument("--method", type=lambda name: spelled(name, METHODS), choices=list(METHODS), help=method)
    tasks = f"what is learned: {', '.join(TASKS)}; default: what suits rows and model"
    parser.add_argument("--task", metavar="NAME", help=tasks)
    parser.add_argument("--out", help=f"the run's folder; default: {out}")
    parser.add_argument("--memory", metavar="SIZE", help="most that the run may hold, such as 2GB: chooses how")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run``, for verbs that train."""
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and do nothing")


def recipe_of(args: argparse.Namespace, rest: list[str]) -> Recipe:
    """The recipe that the words on the command line mean: a file's, or that of a model to open."""
    if recipes.is_recipe(args.model):
        return recipes.read(args.model, settings_of(args, rest))
    if args.data is not None and recipes.is_recipe(args.data):  # MODEL RECIPE: the model takes precedence
        recipe, args.data = args.data, None
        return recipes.read(recipe, {**settings_of(args, rest), "model": args.model})
    values = settings_of(args, rest)
    if args.data is None:
        raise InputError("no data set is named", "DATA", "lmworks tune MODEL DATA; lmworks data list names some")
    if recipes.is_preset(args.model) or ngram_recipe.is_ngram(args.model):
        hint = f"train it: lmworks pretrain {args.model} {args.data}"
        raise InputError("is the preset of a new model, not a model to open", args.model, hint)
    if "model" in values:
        hint = "leave it out, or train a new model: lmworks pretrain PRESET DATA"
        raise InputError("is a setting of new models; a model that is opened has its own", "--model", hint)
    return recipes.resolve({**values, "model": args.model})


def settings_of(args: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """All settings on the command line but the model."""
    values = parse_overrides(rest)
    if isinstance(values.get("data"), str):
        raise InputError("the data set is the second word, not an option", "--data", f"lmworks {args.verb} MODEL DATA")
    values |= {name: getattr(args, name) for name in ("method", "out") if getattr(args, name) is not None}
    given = {"data": {"source": args.data}, "train": {"memory": args.memory}, "task": {"name": args.task}}
    return merge(values, {name: group for name, group in given.items() if None not in group.values()})


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Tune, then show the card."""
    if args.like:
        return _tune_like(args, rest)
    if args.model is None:
        raise InputError("no model is named", "MODEL", "lmworks tune MODEL DATA; lmworks models lists some")
    if classical_recipe.is_classifier(args.model):
        return _classify(args, rest)
    if near := classical_recipe.near_preset(args.model):
        raise InputError("is no file or folder here, and no alias", args.model, f"did you mean {near}?")
    return start(recipe_of(args, rest), args.dry_run)


def _tune_like(args: argparse.Namespace, rest: list[str]) -> int:
    """Train what a comparison recommends, then show the card."""
    from lmworks.comparisons import recommended_recipe
    from lmworks.comparisons.comparison_state import State

    if rest or args.model or args.data or args.method or args.task:
        hint = f"lmworks tune --like {args.like} [--out FOLDER]"
        raise InputError("what a comparison chose is taken as it is", "--like", hint)
    model, data, groups = recommended_recipe.settings_of(Path(args.like), State.read(Path(args.like)))
    values = {**groups, "data": data, **({"out": args.out} if args.out else {})}
    if args.memory is not None:
        values = merge(values, {"train": {"memory": args.memory}})
    if classical_recipe.is_classifier(model):
        return _start_classifier(classical_recipe.resolve(model, values), args.dry_run)
    return start(recipes.resolve({**values, "model": model}), args.dry_run)


def _classify(args: argparse.Namespace, rest: list[str]) -> int:
    """Train a classifier by counts of words, which needs no torch, then show the card."""
    if args.data is None and not recipes.is_recipe(args.model):
        raise InputError("no data set is named", "DATA", f"lmworks tune {args.model} DATA")
    return _start_classifier(classical_recipe.resolve(args.model, settings_of(args, rest)), args.dry_run)


def _start_classifier(recipe: ClassicalRecipe, dry_run: bool) -> int:
    """Train a classifier by its recipe, then show the card; or only print the recipe."""
    if dry_run:
        print(to_yaml(recipe), end="")
        return 0
    from lmworks.run import classical

    return finish(classical.run_recipe(recipe, show.line))


def start(recipe: Recipe, dry_run: bool) -> int:
    """Train by a recipe, then show the card; or only print the recipe."""
    if dry_run:
        print(to_yaml(recipe), end="")
        return 0
    from lmworks.run.pipeline import run_recipe

    print(OPENING, file=sys.stderr)
    return finish(run_recipe(recipe, show.line))


def finish(run: Run) -> int:
    """Show what came out; an interrupted run ends as Ctrl-C does."""
    if run.stopped == "interrupted":
        return 130
    from lmworks.reports import terminal

    terminal.show(run.card)
    print(f"model:  {run.folder / 'final'}\nreport: {run.folder / 'report.html'}")
    return 0
