"""The recipe of a model from scratch: everything that decides such a run, in one file. Imports no torch.

It begins with a preset or a YAML file, and every setting of it can be given anew.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from lmworks.adapt import registry
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build, merge, read_yaml
from lmworks.data.objective_settings import ObjectiveSettings
from lmworks.model.config import ModelConfig
from lmworks.run import presets
from lmworks.run.recipe import RecipeData
from lmworks.text.tokenizer_settings import TokenizerSettings
from lmworks.train.settings import TrainSettings


class ModelSettings(ModelConfig):
    """A model that is to be: a ModelConfig whose vocabulary follows the tokenizer."""

    model_config = ConfigDict(frozen=True)

    vocab_size: int = Field(0, ge=0, description="0: as many words as the tokenizer has; more: rows that none uses.")
    vocab_multiple: int = Field(1, gt=0, description="vocab_size 0: rounded up to a multiple of this.")
    head_scale: float | Literal["root"] = Field(  # type: ignore[assignment]
        1.0, description="Hidden states are multiplied by it before the head; root: by 1 / root of hidden_size (T5)."
    )
    embedding_scale: float | Literal["root"] = Field(  # type: ignore[assignment]
        1.0, description="Token embeddings are multiplied by it; root: by the root of hidden_size."
    )

    def config(self, words: int) -> ModelConfig:
        """The ModelConfig for a tokenizer of so many words.

        Raises:
            InputError: vocab_size is less than that.
        """
        if self.vocab_size and self.vocab_size < words:
            raise InputError(
                f"is {self.vocab_size}, but the tokenizer has {words} words",
                "model.vocab_size",
                "leave it out (it then follows the tokenizer), or lower tokenizer.vocab_size",
            )
        values = self.model_dump(exclude={"vocab_multiple"})
        values["vocab_size"] = self.vocab_size or -(-words // self.vocab_multiple) * self.vocab_multiple
        if self.embedding_scale == "root":
            values["embedding_scale"] = math.sqrt(self.hidden_size)
        if self.head_scale == "root":
            values["head_scale"] = self.hidden_size**-0.5
        return build(ModelConfig, values, "model")


class TokenizerChoice(TokenizerSettings):
    """A tokenizer that there is, or how to train one on the training text."""

    source: str | None = Field(None, description="A model or folder whose tokenizer is taken; none: one is trained.")
    at_most: bool = Field(False, description="Where the text does not fill vocab_size, take what it gives.")


class PretrainEvaluate(Settings):
    """What is measured before, on the way and after, on text that was never trained on."""

    measured: int | None = Field(
        None, gt=0, description="At most so many held-out stretches are measured, spread evenly; none: all."
    )
    samples: int = Field(3, ge=0, description="Held-out texts that the model is shown at each evaluation.")
    prompts: list[str] = Field(
        default_factory=list,
        description="Texts to show it instead: to continue, to fill ([MASK] or the tokenizer's), to translate.",
    )
    max_tokens: int = Field(48, gt=0, description="Longest sample.")
    temperature: float = Field(0.8, ge=0, description="Of sampled continuations; 0: the likeliest token each time.")
    top_k: int = Field(50, ge=0, description="Sampled among so many; 0: among all.")


class PretrainRecipe(Settings):
    """A whole run from nothing: model + tokenizer + data + objective + how."""

    name: str = Field("model", description="What the model is called: in the report and the folder's name.")
    family: str = Field(description="Whose names it is saved in: gpt2, llama, bert, t5 ... (model_type).")
    model: ModelSettings
    tokenizer: TokenizerChoice = Field(default_factory=TokenizerChoice)
    data: RecipeData
    objective: ObjectiveSettings = Field(default_factory=ObjectiveSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: PretrainEvaluate = Field(default_factory=PretrainEvaluate)
    out: str | None = Field(None, description="The run's folder; none: runs/<time>-<name>.")


def resolve(values: dict[str, Any], origin: str = "the command line") -> PretrainRecipe:
    """Checked settings.

    Args:
        values: nested plain values; ``data`` and ``tokenizer`` may be the source alone.
        origin: where they come from, for errors.
    """
    recipe = build(PretrainRecipe, _sources(values), origin)
    if recipe.train.learning_rate is None:
        recipe.train.learning_rate = registry.make("full").default_learning_rate(from_scratch=True)
    return recipe


def read(path: str | Path, overrides: dict[str, Any] | None = None) -> PretrainRecipe:
    """A recipe from a YAML file; overrides win."""
    values = read_yaml(Path(path))
    if not isinstance(values, dict):
        raise InputError("is no recipe", str(path), "write settings as name: value; see lmworks recipe show --preset")
    return resolve(merge(_sources(values), _sources(overrides or {})), str(path))


def of_preset(name: str, overrides: dict[str, Any] | None = None) -> PretrainRecipe:
    """The recipe of a preset; overrides win. A vocab_size among them is meant as it is given."""
    values, changes = presets.preset(name).values, _sources(overrides or {})
    if "vocab_size" in changes.get("tokenizer", {}):
        values = merge(values, {"tokenizer": {"at_most": False}})
    return resolve(merge(values, changes), f"preset {name}")


def is_scratch(source: str) -> bool:
    """Whether the word names a model from scratch: a preset (and no folder of that name), or a recipe of one."""
    if not source.endswith((".yaml", ".yml")):
        return source in presets.names() and not Path(source).exists()
    values = read_yaml(Path(source)) if Path(source).is_file() else None
    return isinstance(values, dict) and ("family" in values or isinstance(values.get("model"), dict))


def _sources(values: dict[str, Any]) -> dict[str, Any]:
    """``data: file`` and ``tokenizer: folder`` written out."""
    named = {key: {"source": values[key]} for key in ("data", "tokenizer") if isinstance(values.get(key), str)}
    return {**values, **named}
