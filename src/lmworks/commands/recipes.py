"""lmworks recipe: what can be written in a recipe."""

from __future__ import annotations

import argparse
import json

from lmworks.base.settings import describe, merge, parse_overrides, to_yaml
from lmworks.commands import show
from lmworks.recipe import Recipe, resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """schema, list or show."""
    parser.description = "Recipes: a JSON Schema for editors, a table of all settings, or a whole recipe to start from."
    parser.add_argument(
        "what",
        choices=["schema", "list", "show"],
        help="schema: JSON Schema; list: every setting with default and meaning; show MODEL DATA: a recipe as YAML",
    )
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("data", nargs="?", default="python-help")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print it."""
    if args.what == "schema":
        print(json.dumps(Recipe.model_json_schema(), indent=2))
    elif args.what == "list":
        rows = [(row.name, row.default or "must be given", row.help) for row in describe(Recipe)]
        show.table(("setting", "default", "meaning"), rows)
    else:
        values = {"model": args.model, "data": {"source": args.data}}
        print(to_yaml(resolve(merge(values, parse_overrides(rest)))), end="")
    return 0
