"""lmworks tune: adapt a model to a data set and measure what it is worth."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.base.settings import merge, parse_overrides, to_yaml
from lmworks.run import recipe as recipes
from lmworks.run.recipe import Recipe

if TYPE_CHECKING:
    from lmworks.run.pretrain_recipe import PretrainRecipe
    from lmworks.run.stages import Run

ABOUT = """Adapt a model to a data set: lmworks tune MODEL DATA, or lmworks tune RECIPE.yaml. Every setting of a recipe
can be given as an option: --train.epochs 3 --lora.rank 8 --data.held_out 100 (lmworks recipe list prints them all)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL DATA, or a recipe."""
    parser.description = ABOUT
    add_recipe(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and do nothing")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """What names a run, for tune and plan alike: a command line becomes a plan by changing one word."""
    parser.add_argument("model", help="any source of a model, or a recipe (.yaml)")
    parser.add_argument("data", nargs="?", help="a file, a named data set (lmworks data list) or hub:owner/name")
    parser.add_argument("--method", choices=list(METHODS), help="default: lora")
    parser.add_argument("--out", help="the run's folder; default: runs/<time>-<model>-<method>")
    add_memory(parser)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """The budget."""
    parser.add_argument("--memory", metavar="SIZE", help="most that the run may hold, such as 2GB: chooses how")


def recipe_of(args: argparse.Namespace, rest: list[str]) -> Recipe:
    """The recipe that the words on the command line mean."""
    values = parse_overrides(rest)
    if isinstance(values.get("data"), str):
        raise InputError("the data set is the second word, not an option", "--data", "lmworks tune MODEL DATA")
    for name in ("method", "out"):
        if getattr(args, name, None) is not None:
            values[name] = getattr(args, name)
    values = within(args, values)
    if recipes.is_recipe(args.model):
        if args.data is not None:
            values = merge(values, {"data": {"source": args.data}})
        return recipes.read(args.model, values)
    if args.data is None:
        raise InputError("no data set is named", "DATA", "lmworks tune MODEL DATA; lmworks data list names some")
    return recipes.resolve(merge(values, {"model": args.model, "data": {"source": args.data}}))


def within(args: argparse.Namespace, values: dict[str, Any]) -> dict[str, Any]:
    """The settings with the budget that ``--memory`` gives."""
    size = getattr(args, "memory", None)
    return values if size is None else merge(values, {"train": {"memory": size}})


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Tune, then show the card."""
    return start(recipe_of(args, rest), args.dry_run)


def start(recipe: Recipe | PretrainRecipe, dry_run: bool) -> int:
    """Train by a recipe of either kind, then show the card; or only print the recipe."""
    if dry_run:
        print(to_yaml(recipe), end="")
        return 0
    from lmworks.run import pretraining, tuning

    done = tuning.run_recipe(recipe, tell) if isinstance(recipe, Recipe) else pretraining.run_recipe(recipe, tell)
    return finish(done)


def tell(line: str) -> None:
    """A line of progress, in its order with those on standard error."""
    print(line, flush=True)


def finish(done: Run) -> int:
    """Show what came out; an interrupted run ends as Ctrl-C does."""
    if done.stopped == "interrupted":
        return 130
    from lmworks.report import terminal

    terminal.show(done.card)
    print(f"model:  {done.folder / 'final'}\nreport: {done.folder / 'report.html'}")
    return 0
