"""lmworks pretrain: a model from nothing, and what it is worth."""

from __future__ import annotations

import argparse

from lmworks.base.errors import InputError
from lmworks.base.settings import merge, parse_overrides
from lmworks.commands.tune import add_memory, start, within
from lmworks.run import pretrain_recipe as scratch
from lmworks.run.pretrain_recipe import PretrainRecipe

ABOUT = """Train a model from nothing: lmworks pretrain PRESET DATA, or lmworks pretrain RECIPE.yaml [DATA]. The command
lmworks recipe presets tells of the presets. Every setting can be given as an option: --model.num_hidden_layers 2
--tokenizer.kind char --train.steps 1000 (lmworks recipe show --preset PRESET writes them all)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PRESET DATA, or a recipe."""
    parser.description = ABOUT
    parser.add_argument("model", metavar="preset", help="a preset (lmworks recipe presets), or a recipe (.yaml)")
    parser.add_argument("data", nargs="?", help="a file, a named data set (lmworks data list) or hub:owner/name")
    parser.add_argument("--out", help="the run's folder; default: runs/<time>-<preset>")
    add_memory(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and do nothing")


def recipe_of(args: argparse.Namespace, rest: list[str]) -> PretrainRecipe:
    """The recipe that the words on the command line mean."""
    values = parse_overrides(rest)
    if isinstance(values.get("data"), str):
        raise InputError("the data set is the second word, not an option", "--data", "lmworks pretrain PRESET DATA")
    if args.out is not None:
        values["out"] = args.out
    values = within(args, values)
    if args.data is not None:
        values = merge(values, {"data": {"source": args.data}})
    if args.model.endswith((".yaml", ".yml")):
        return scratch.read(args.model, values)
    if args.data is None:
        raise InputError("no data set is named", "DATA", "lmworks pretrain PRESET DATA; lmworks data list names some")
    return scratch.of_preset(args.model, values)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, then show the card."""
    return start(recipe_of(args, rest), args.dry_run)
