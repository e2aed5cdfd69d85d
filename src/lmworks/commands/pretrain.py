"""lmworks pretrain: train a new model, and measure what it is worth."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.commands import tune
from lmworks.run import recipe as recipes
from lmworks.run.recipe import Recipe

ABOUT = """Train a new model: lmworks pretrain PRESET DATA, or lmworks pretrain RECIPE.yaml [DATA]. The command
lmworks recipe presets lists the presets. Every setting can be given as an option: --model.num_hidden_layers 2
--tokenizer.kind char --train.steps 1000 (lmworks recipe show --preset PRESET writes them all). A tokenizer is trained
on the data; --tokenizer SOURCE takes one that there is: a folder (of lmworks tokenizer train) or a model's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PRESET DATA, or a recipe."""
    parser.description = ABOUT
    parser.add_argument("model", metavar="preset", help="a preset (lmworks recipe presets), or a recipe (.yaml)")
    tune.add_run(parser, f"default: {recipes.METHOD_OF_NEW}", "runs/<time>-<preset>")
    tune.add_dry_run(parser)


def recipe_of(args: argparse.Namespace, rest: list[str]) -> Recipe:
    """The recipe that the words on the command line mean: a file's, or a preset's."""
    if recipes.is_recipe(args.model):
        return recipes.read(args.model, tune.settings_of(args, rest))
    values = tune.settings_of(args, rest)
    if args.data is None:
        raise InputError("no data set is named", "DATA", "lmworks pretrain PRESET DATA; lmworks data list names some")
    return recipes.from_preset(args.model, values)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, then show the card."""
    return tune.start(recipe_of(args, rest), args.dry_run)
