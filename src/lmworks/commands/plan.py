"""lmworks plan: what a run will need, before it."""

from __future__ import annotations

import argparse
import json

from lmworks.commands.tune import add_recipe, recipe_of

ABOUT = """What a run will need: parameters, work, time, memory, disk. Opens model and data, trains nothing, writes
nothing. Words and settings are those of lmworks tune."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As tune's."""
    parser.description = ABOUT
    add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="every part as a number")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the plan."""
    recipe = recipe_of(args, rest)
    from lmworks.tuning import prepare

    prepared = prepare(recipe)
    if args.json:
        print(json.dumps(prepared.plan.event(), indent=1))
        return 0
    for line in (*prepared.notes, *prepared.plan.lines()):
        print(line)
    return 0
