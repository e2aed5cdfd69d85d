"""The recipe of a classifier by counts of words: a preset, its settings, and data. Imports neither torch nor
scikit-learn.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml
from lmworks.base.settings import Overrides, Settings, build, merge, spelled
from lmworks.baselines.tfidf_settings import ABOUT, PRESETS, TfidfSettings, is_preset, settings_of
from lmworks.run.comparison_origin import ComparisonOrigin
from lmworks.run.recipe import COMMAND_LINE, RecipeData, is_recipe

_NETWORKS = "leave it out: it is a setting of networks; those of this model are tfidf.NAME"


class ClassicalRecipe(Settings):
    """A run that trains a classifier by counts of words."""

    hints: ClassVar[dict[str, str]] = dict.fromkeys(
        ("method", "task", "train", "evaluate", "tokenizer", *METHODS), _NETWORKS
    )

    model: str = Field(description="; ".join(f"{name}: {about}" for name, about in ABOUT.items()) + ".")
    data: RecipeData
    tfidf: TfidfSettings = Field(default_factory=TfidfSettings)
    out: str | None = Field(None, description="The run's folder; none: runs/<time>-<model>.")
    comparison: ComparisonOrigin | None = Field(
        None, description="The comparison that chose these settings; lmworks tune --like writes it."
    )


def is_classifier(source: str) -> bool:
    """Whether a source is the name of such a preset (and no such path exists), or a recipe that names one."""
    if is_recipe(source) and Path(source).is_file():
        model = read_yaml(Path(source)).get("model")
        return isinstance(model, str) and is_preset(model)
    return is_preset(source) and not Path(source).exists()


def near_preset(source: str) -> str | None:
    """The preset that a mistyped name probably means; None where a file has that name, or none is near."""
    near = get_close_matches(source.lower(), PRESETS, n=1, cutoff=0.8)
    return near[0] if near and not Path(source).exists() else None


def resolve(model: str, values: dict[str, Any], origin: str = COMMAND_LINE) -> ClassicalRecipe:
    """Validated settings.

    Args:
        model: the name of a preset, or the path of a recipe; values take precedence over its own.
        values: nested plain values; ``data`` may be just the source.
        origin: where the values come from, for errors.

    Raises:
        InputError: a setting is invalid, or of another model.
    """
    values, overrides = _with_data(values), None
    if is_recipe(model):
        overrides = Overrides(values, origin)
        values, origin = merge(_with_data(read_yaml(Path(model))), values), model
        model = str(values.pop("model"))
    changes = values.get("tfidf", {})
    if not isinstance(changes, dict):
        raise InputError("is a group of settings", "tfidf", "write --tfidf.NAME VALUE")
    settings = settings_of(model, changes, origin)
    named = {"model": spelled(model, PRESETS), "tfidf": settings.model_dump(mode="json")}
    return build(ClassicalRecipe, {**values, **named}, origin, overrides)


def _with_data(values: dict[str, Any]) -> dict[str, Any]:
    data = values.get("data")
    return {**values, "data": {"source": data}} if isinstance(data, str) else values
