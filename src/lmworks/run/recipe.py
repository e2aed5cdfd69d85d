"""A recipe: everything that decides a run, in one file. Imports no torch, so a dry run costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lmworks.adapt import registry
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build, merge, read_yaml
from lmworks.text.rows import DataSettings
from lmworks.train.settings import TrainSettings


class RecipeData(DataSettings):
    """What to learn from."""

    source: str = Field(description="A file, a named data set (lmworks data list) or hub:owner/name.")


class EvaluateSettings(Settings):
    """What is measured before and after, on rows that were never trained on."""

    task_rows: int = Field(48, ge=0, description="Held-out rows answered to measure the task's own metric.")
    samples: int = Field(3, ge=0, description="Answers shown side by side in the report.")
    max_tokens: int = Field(64, gt=0, description="Longest answer.")
    general: str | None = Field(
        None, description="A text file never tuned on, to see what was forgotten; none: Python's documentation topics."
    )
    general_bytes: int = Field(24_000, ge=0, description="How much of it is read; 0: do not measure forgetting.")


class RecipeSource(Settings):
    """Model, data and method of a run."""

    model: str = Field(description="A folder, a GGUF file, an alias (lmworks models), hub:owner/name or pypi:name.")
    data: RecipeData
    method: registry.MethodName = Field("lora", description=registry.summaries())


if TYPE_CHECKING:
    MethodGroups = RecipeSource
else:
    MethodGroups = registry.with_settings(RecipeSource)


class Recipe(MethodGroups):
    """A whole run: model + data + method + how."""

    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    out: str | None = Field(None, description="The run's folder; none: runs/<time>-<model>-<method>.")


def resolve(values: dict[str, Any], origin: str = "the command line") -> Recipe:
    """Checked settings, with what follows from the method written out.

    Args:
        values: nested plain values; ``data`` may be the source alone.
        origin: where they come from, for errors.
    """
    if isinstance(values.get("data"), str):
        values = {**values, "data": {"source": values["data"]}}
    recipe = build(Recipe, values, origin)
    if recipe.train.learning_rate is None:
        recipe.train.learning_rate = registry.chosen_by(recipe).default_learning_rate(from_scratch=False)
    return recipe


def read(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe from a YAML file; overrides win."""
    values = read_yaml(Path(path))
    if not isinstance(values, dict):
        raise InputError("is no recipe", str(path), "write settings as name: value; see lmworks recipe show")
    if isinstance(values.get("data"), str):
        values["data"] = {"source": values["data"]}
    return resolve(merge(values, overrides or {}), str(path))


def is_recipe(source: str) -> bool:
    """Whether the word names a recipe file."""
    return source.endswith((".yaml", ".yml"))
