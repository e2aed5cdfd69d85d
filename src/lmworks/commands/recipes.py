"""lmworks recipe: what can be written in a recipe, of tune or of pretrain; the presets."""

from __future__ import annotations

import argparse
import json

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.base.settings import describe, merge, parse_overrides, to_yaml
from lmworks.commands import show
from lmworks.model import sizes
from lmworks.run import presets
from lmworks.run import pretrain_recipe as scratch
from lmworks.run.recipe import Recipe, resolve

WORDS_HERE = 100  # in the size of a preset whose vocabulary depends on the text alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """schema, list, show or presets."""
    parser.description = "Recipes: a JSON Schema for editors, a table of all settings, or a whole recipe to start from."
    parser.add_argument(
        "what",
        choices=["schema", "list", "show", "presets"],
        help="schema: JSON Schema; list: every setting with default and meaning; show MODEL DATA: a recipe as YAML; "
        "presets: models to train from scratch",
    )
    parser.add_argument("model", nargs="?", default=None, help="for show: a model to tune")
    parser.add_argument("data", nargs="?", default=None)
    parser.add_argument("--preset", help="for show: the recipe of a model from scratch; for presets: that one alone")
    parser.add_argument(
        "--pretrain", action="store_true", help="for schema and list: of pretrain's recipes, not tune's"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print it."""
    schema = scratch.PretrainRecipe if args.pretrain or args.preset else Recipe
    if args.what == "schema":
        print(json.dumps(schema.model_json_schema(), indent=2))
    elif args.what == "list":
        rows = [(row.name, row.default or "must be given", row.help) for row in describe(schema)]
        show.table(("setting", "default", "meaning"), rows)
    elif args.what == "presets":
        _presets([args.preset] if args.preset else presets.names())
    elif args.preset:
        if args.data is not None:
            raise InputError(f"has no use for {args.data!r}", "lmworks recipe show", "--preset PRESET DATA")
        values = merge({"data": {"source": args.model or "python-source"}}, parse_overrides(rest))
        print(to_yaml(scratch.of_preset(args.preset, values)), end="")
    else:
        values = {"model": args.model or "smollm2-135m-instruct", "data": {"source": args.data or "python-help"}}
        print(to_yaml(resolve(merge(values, parse_overrides(rest)))), end="")
    return 0


def _presets(names: list[str]) -> None:
    """A line of numbers each, and what they are."""
    rows, said = [], []
    for name in names:
        preset = presets.preset(name)
        recipe = scratch.of_preset(name, {"data": "-"})
        model, words = recipe.model, recipe.tokenizer.vocab_size or WORDS_HERE
        size = figures.count(sizes.parameters(model.config(words))["total"])
        layers = str(model.num_hidden_layers) + (f"+{model.num_decoder_layers}" if model.num_decoder_layers else "")
        kind = recipe.tokenizer.kind
        vocabulary = f"{kind} {words:,}" if recipe.tokenizer.vocab_size else kind
        shape = (layers, model.hidden_size, model.num_attention_heads, model.max_position_embeddings)
        rows.append((name, recipe.family, recipe.objective.name, *shape, vocabulary, size))
        said.append(f"{name}: {preset.about}.\n    {preset.citation}. Published: {preset.published}.")
    heads = ("preset", "names of", "objective", "layers", "hidden", "heads", "context", "vocabulary", "parameters")
    show.table(heads, rows)
    print(f"(the parameters of word and character vocabularies are counted with {WORDS_HERE} words)\n")
    print("\n".join(said))
    print("\nlmworks pretrain PRESET DATA trains one; lmworks recipe show --preset PRESET > my.yaml writes it out.")
