"""lmworks plan: what a run will need, before it."""

from __future__ import annotations

import argparse
import json
import sys

from lmworks.base.errors import InputError
from lmworks.commands import pretrain, show, tune
from lmworks.run import classical_recipe
from lmworks.run import recipe as recipes

ABOUT = """What a run will need: parameters, work, time, memory, disk. Opens model and data, trains nothing, writes
nothing. Words and settings are those of lmworks tune, or, for a preset, those of lmworks pretrain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As tune's."""
    parser.description = ABOUT
    parser.add_argument("model", help="any source of a model, a preset, or a recipe (.yaml)")
    default = f"default: {recipes.METHOD_OF_OPENED}, for a preset {recipes.METHOD_OF_NEW}"
    tune.add_run(parser, default, "runs/<time>-<model>-<method>")
    parser.add_argument("--json", action="store_true", help="every part as a number")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the plan."""
    if classical_recipe.is_classifier(args.model):
        hint = f"train it: lmworks tune {args.model} {args.data or 'DATA'}"
        raise InputError("a classifier by counts of words trains in seconds and has no plan", args.model, hint)
    door = pretrain if recipes.is_preset(args.model) else tune
    recipe = door.recipe_of(args, rest)
    from lmworks.run.setup import set_up

    print(tune.OPENING, file=sys.stderr)
    setup = set_up(recipe)
    if args.json:
        print(json.dumps(setup.plan.event(), indent=1))
        return 0
    for line in (*setup.notes, *setup.plan.lines()):
        show.line(line)
    return 0
