"""lmworks pretrain: train a new model, and measure what it is worth."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.base.settings import to_yaml
from lmworks.commands import show, tune
from lmworks.run import classical_recipe, ngram_recipe
from lmworks.run import recipe as recipes
from lmworks.run.ngram_recipe import NgramRecipe
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
        raise _no_data()
    return recipes.from_preset(args.model, values)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, then show the card."""
    if ngram_recipe.is_ngram(args.model):
        if args.data is None and not recipes.is_recipe(args.model):
            raise _no_data()
        return _count_ngrams(ngram_recipe.resolve(args.model, tune.settings_of(args, rest)), args.dry_run)
    if classical_recipe.is_classifier(args.model):
        hint = f"lmworks tune {args.model} {args.data or 'DATA'}"
        raise InputError("is a classifier by counts of words, and no language model", args.model, hint)
    if near := ngram_recipe.near_presets(args.model):
        raise InputError(f"there is no preset {args.model!r}", "", f"did you mean {' or '.join(near)}?")
    return tune.start(recipe_of(args, rest), args.dry_run)


def _count_ngrams(recipe: NgramRecipe, dry_run: bool) -> int:
    """Train an n-gram model, then show the card; or only print the recipe."""
    if dry_run:
        print(to_yaml(recipe), end="")
        return 0
    from lmworks.run import ngrams

    return tune.finish(ngrams.run_recipe(recipe, show.line))


def _no_data() -> InputError:
    return InputError("no data set is named", "DATA", "lmworks pretrain PRESET DATA; lmworks data list names some")
