"""lmworks recipe: what can be written in a recipe, of tune or of pretrain; the presets."""

from __future__ import annotations

import argparse
import json

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.base.settings import describe, parse_overrides, to_yaml
from lmworks.baselines import tfidf_settings
from lmworks.commands import show
from lmworks.model import sizes
from lmworks.run import classical_recipe, ngram_recipe, presets
from lmworks.run import recipe as recipes
from lmworks.run.new_model import ModelSettings
from lmworks.run.recipe import Recipe

_OF_NEW_MODELS = ("name", "family", "model.", "tokenizer.")
_OF_COMPARISONS = "comparison."  # nobody gives them: tune --like writes them
IDS_HERE = 100  # in the size of a preset whose vocabulary depends on the text alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """schema, list, show or presets."""
    parser.description = "Recipes: a JSON Schema for editors, a table of all settings, or a whole recipe to start from."
    parser.add_argument(
        "action",
        choices=["schema", "list", "show", "presets"],
        help="schema: JSON Schema; list: every setting with default and meaning; show MODEL DATA: a recipe as YAML; "
        "presets: new models to train",
    )
    parser.add_argument("model", nargs="?", default=None, help="for show: a model to tune")
    parser.add_argument("data", nargs="?", default=None, help="for show: the data that it is tuned on")
    parser.add_argument("--preset", help="for show: the recipe of a new model; for presets: that one alone")
    parser.add_argument("--pretrain", action="store_true", help="for list: with the settings of new models too")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print it."""
    if args.action == "schema":
        print(json.dumps(Recipe.model_json_schema(), indent=2))
    elif args.action == "list":
        new = args.pretrain or args.preset
        others = (_OF_COMPARISONS,) if new else (_OF_COMPARISONS, *_OF_NEW_MODELS)
        named = [row for row in describe(Recipe) if not row.name.startswith(others)]
        rows = [(row.name, row.default or "must be given", row.help) for row in named]
        show.table(("setting", "default", "meaning"), rows)
    elif args.action == "presets":
        _presets([args.preset] if args.preset else presets.names())
    elif args.preset:
        if args.data is not None:
            raise InputError(f"has no use for {args.data!r}", "lmworks recipe show", "--preset PRESET DATA")
        values = recipes.merge_values({"data": args.model or "python-source"}, parse_overrides(rest))
        resolve = ngram_recipe.resolve if ngram_recipe.is_preset(args.preset) else recipes.from_preset
        print(to_yaml(resolve(args.preset, values)), end="")
    elif args.model is not None and classical_recipe.is_classifier(args.model):
        values = recipes.merge_values({"data": args.data or "movie-reviews"}, parse_overrides(rest))
        print(to_yaml(classical_recipe.resolve(args.model, values)), end="")
    else:
        values = {"model": args.model or "smollm2-135m-instruct", "data": args.data or "python-help"}
        print(to_yaml(recipes.resolve(recipes.merge_values(values, parse_overrides(rest)))), end="")
    return 0


def _presets(names: list[str]) -> None:
    """A line of numbers each, and what they are."""
    rows, about = [], []
    for name in names:
        preset = presets.preset(name)
        recipe = recipes.from_preset(name, {"data": "-"})
        model, tokenizer = recipe.model, recipe.tokenizer
        assert isinstance(model, ModelSettings)
        assert tokenizer is not None
        ids = tokenizer.vocab_size or IDS_HERE
        size = figures.count(sizes.parameters(model.config(ids))["total"])
        layers = str(model.num_hidden_layers) + (f"+{model.num_decoder_layers}" if model.num_decoder_layers else "")
        kind = tokenizer.kind
        vocabulary = f"{kind} {ids:,}" if tokenizer.vocab_size else kind
        attends = model.layer == "attention"
        shape = (
            layers,
            model.hidden_size,
            model.num_attention_heads if attends else model.layer,
            model.max_position_embeddings,
        )
        rows.append((name, recipe.family, recipe.task.name, *shape, vocabulary, size))
        about.append(f"{name}: {preset.about}.\n    {preset.citation}. Published: {preset.published}.")
    heads = ("preset", "names of", "task", "layers", "hidden", "heads", "context", "vocabulary", "parameters")
    show.table(heads, rows, spare=("heads", "context", "hidden", "names of"))
    print(f"(the parameters of word and character vocabularies are counted with {IDS_HERE} ids)\n")
    print("\n".join(about))
    print("\nn-gram models (they count, and have no network):")
    print("\n".join(f"{name}: {text}." for name, text in ngram_recipe.ABOUT.items()))
    print("\nclassifiers by counts of words (lmworks tune PRESET DATA):")
    print("\n".join(f"{name}: {text}." for name, text in tfidf_settings.ABOUT.items()))
    print("\nlmworks pretrain PRESET DATA trains one; lmworks recipe show --preset PRESET > my.yaml writes it out.")
