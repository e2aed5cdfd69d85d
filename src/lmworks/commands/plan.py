"""lmworks plan: what a run will need, before it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.commands import pretrain, tune
from lmworks.run import pretrain_recipe as scratch

if TYPE_CHECKING:
    from lmworks.run.plan import Plan

ABOUT = """What a run will need: parameters, work, time, memory, disk. Opens model and data, trains nothing, writes
nothing. Words and settings are those of lmworks tune, or, for a preset or its recipe, those of lmworks pretrain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As tune's."""
    parser.description = ABOUT
    tune.add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="every part as a number")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the plan."""
    plan, notes = _of_scratch(args, rest) if scratch.is_scratch(args.model) else _of_tune(args, rest)
    if args.json:
        print(json.dumps(plan.event(), indent=1))
        return 0
    for line in (*notes, *plan.lines()):
        print(line)
    return 0


def _of_tune(args: argparse.Namespace, rest: list[str]) -> tuple[Plan, list[str]]:
    recipe = tune.recipe_of(args, rest)
    from lmworks.run.tuning import prepare

    prepared = prepare(recipe)
    return prepared.plan, prepared.notes


def _of_scratch(args: argparse.Namespace, rest: list[str]) -> tuple[Plan, list[str]]:
    if args.method is not None:
        raise InputError("a model from scratch has no method of adapting", "--method", "leave it out")
    recipe = pretrain.recipe_of(args, rest)
    from lmworks.run.pretraining import prepare

    prepared = prepare(recipe)
    return prepared.plan, prepared.notes
