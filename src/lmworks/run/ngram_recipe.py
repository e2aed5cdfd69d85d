"""The recipe of an n-gram language model: a preset, its settings, a tokenizer, and data. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml
from lmworks.base.seeds import Seed
from lmworks.base.settings import Overrides, Settings, build, merge, spelled
from lmworks.baselines.kneser_ney import Smoothing
from lmworks.baselines.ngram import DISCOUNT, MOST_ORDER
from lmworks.run.new_model import NewTokenizer
from lmworks.run.recipe import COMMAND_LINE, RecipeData, is_recipe

PRESETS = {"uniform": 0, "unigram": 1, "ngram-3": 3, "ngram-5": 5}
"""Name -> order."""
ABOUT = {
    "uniform": "every token is equally likely, whatever the text",
    "unigram": "each token by how often it occurs",
    "ngram-3": "each token after the two before it",
    "ngram-5": "each token after the four before it",
}
TOKENIZER = {"kind": "byte-bpe", "vocab_size": 2048, "at_most": True}
"""Of a recipe that names none: bytes leave no token unknown, so that bits per byte count the whole text."""
SHORTHANDS = {"data": "source", "tokenizer": "source"}
_NETWORKS = "leave it out: it is a setting of networks; those of this model are ngram.NAME"


class NgramSettings(Settings):
    """How n-grams are counted and smoothed."""

    order: int = Field(5, ge=0, le=MOST_ORDER, description="n: a token depends on the n - 1 before it; 0: uniform.")
    smoothing: Smoothing = Field(
        "modified-kneser-ney", description="Interpolated Kneser-Ney, modified (three discounts) or plain (one)."
    )
    discount: float = Field(DISCOUNT, ge=0, le=1, description="Of plain Kneser-Ney.")


class SampleSettings(Settings):
    """The texts that the model is shown with in the report."""

    samples: int = Field(3, ge=0, description="How many held-out texts are continued.")
    prompts: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="Texts to continue instead."
    )
    max_tokens: int = Field(48, gt=0, description="Longest continuation.")
    temperature: float = Field(0.8, ge=0, description="0: the likeliest token each time.")
    top_k: int = Field(50, ge=0, description="Continued with one of so many tokens; 0: of all.")


class NgramRecipe(Settings):
    """A run that trains an n-gram language model."""

    hints: ClassVar[dict[str, str]] = dict.fromkeys(("method", "task", "train", *METHODS, "family"), _NETWORKS)

    model: str = Field(description="; ".join(f"{name}: {about}" for name, about in ABOUT.items()) + ".")
    data: RecipeData
    ngram: NgramSettings = Field(default_factory=NgramSettings)
    tokenizer: NewTokenizer = Field(default_factory=lambda: build(NewTokenizer, TOKENIZER))
    evaluate: SampleSettings = Field(default_factory=SampleSettings)
    out: str | None = Field(None, description="The run's folder; none: runs/<time>-<model>.")
    seed: Seed = Field(0, description="Of the samples; counting draws nothing.")


def is_preset(name: str) -> bool:
    """Whether a name is that of an n-gram model."""
    return spelled(name, PRESETS) in PRESETS


def near_presets(name: str) -> list[str]:
    """The presets that a mistyped name such as ``ngram``, ``n-gram`` or ``5-gram`` probably means."""
    letters = "".join(sign for sign in name.lower() if sign.isalpha())
    counts = [preset for preset in PRESETS if preset.startswith("ngram")]
    return counts if letters in ("gram", "ngram", "kneserney") else []


def is_ngram(source: str) -> bool:
    """Whether a source is the name of such a preset (and no such path exists), or a recipe that names one."""
    if is_recipe(source) and Path(source).is_file():
        values = read_yaml(Path(source))
        model = values.get("model") if isinstance(values, dict) else None
        return isinstance(model, str) and is_preset(model)
    return is_preset(source) and not Path(source).exists()


def resolve(model: str, values: dict[str, Any], origin: str = COMMAND_LINE) -> NgramRecipe:
    """Validated settings.

    Args:
        model: the name of a preset, or the path of a recipe; values take precedence over its own.
        values: nested plain values; ``data`` and ``tokenizer`` may be just the source.
        origin: where the values come from, for errors.

    Raises:
        InputError: a setting is invalid, or of another model.
    """
    values, overrides = _write_out(values), None
    if is_recipe(model):
        overrides = Overrides(values, origin)
        values, origin = merge(_write_out(read_yaml(Path(model))), values), model
        model = str(values.pop("model"))
    name = spelled(model, PRESETS)
    if not isinstance(values.get("ngram", {}), dict):
        raise InputError("is a group of settings", "ngram", "write --ngram.NAME VALUE")
    tokenizer = values.get("tokenizer", {})
    if "source" not in tokenizer:
        chosen = {**TOKENIZER, **({"at_most": False} if "vocab_size" in tokenizer else {})}
        if tokenizer.get("kind") in ("word", "char"):
            chosen = {}
        values["tokenizer"] = {**chosen, **tokenizer}
    values["ngram"] = {"order": PRESETS[name], **values.get("ngram", {})}
    return build(NgramRecipe, {**values, "model": name}, origin, overrides)


def _write_out(values: dict[str, Any]) -> dict[str, Any]:
    """The values with :data:`SHORTHANDS` written out."""
    named = {key: {inner: values[key]} for key, inner in SHORTHANDS.items() if isinstance(values.get(key), str)}
    return {**values, **named}
