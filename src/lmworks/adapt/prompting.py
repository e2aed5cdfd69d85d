"""Prompting: no weight changes; the model is asked in other words, after examples (Brown et al. 2020)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lmworks.adapt.method import AdaptedModel, Method
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder
from lmworks.base.settings import Settings

if TYPE_CHECKING:
    from lmworks.model.transformer import Transformer

VALIDATION = 64
"""Default of ``validation``."""


class PromptingSettings(Settings):
    """How a model that is not trained is asked."""

    shots: int = Field(4, ge=0, description="How many training rows stand before each text as examples; 0: none.")
    examples: Literal["random", "nearest"] = Field(
        "random",
        description="random: the same rows before every text, of each label as many as possible; nearest: those whose "
        "texts are most similar to the text.",
    )
    calibration: bool = Field(
        True, description="Of labels: how likely each is after texts that say nothing is divided out (Zhao 2021)."
    )
    templates: str | None = Field(
        None,
        description="A file of prompts, the best of which is chosen: YAML, a list prompts of patterns with {text} "
        "or {prompt}, or of {instruction: ..., input: ...}; or text, a line of --- between two. None: four here.",
    )
    validation: int = Field(
        VALIDATION, gt=0, description="Training rows, shown as no example, on which the prompt is chosen; fewer of few."
    )
    encoder: str = Field("minilm-l6", description="nearest: the model whose vectors of texts are compared.")


class Prompting(Method[PromptingSettings]):
    """Trains nothing; run/prompting chooses the prompt."""

    name = "prompting"
    summary = "nothing is trained: an instruction and examples in the prompt"
    settings_class = PromptingSettings
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "zero-shot": {"shots": 0},
        "few-shot": {"examples": "random"},
        "few-shot-nearest": {"examples": "nearest"},
    }
    trains = False
    learning_rate = 0.0
    pretraining_learning_rate = 0.0

    def apply(self, network: Transformer, seed: int = 0, keep_base: bool = False) -> None:
        """Freeze everything.

        Raises:
            InputError: the network is no decoder with a language head, which alone continues a prompt.
        """
        config = network.config
        if config.architecture != "decoder" or not config.language_head:
            what = "a decoder without a language head" if config.architecture == "decoder" else config.architecture
            fault = f"this model ({what}) continues no prompt, so that it cannot be asked for an answer"
            raise InputError(fault, "method", "take a decoder, or train: --method lora, last_layers or full")
        network.requires_grad_(False)

    def disabled(self, network: Transformer) -> AbstractContextManager[None]:
        """The network is the base at all times."""
        return contextlib.nullcontext()

    def detach(self, network: Transformer) -> None:
        """There is nothing to take off."""

    def merge(self, network: Transformer) -> None:
        """There is nothing to merge: the weights are plain."""

    def save(self, model: AdaptedModel, folder: Path, base: str) -> None:
        """Write the name of the base, which is the whole model; the prompt is written beside it."""
        from lmworks.adapt import adapter_folder

        if Path(base).exists():
            base = str(Path(base).resolve())
        with atomic_folder(folder) as aside:
            adapter_folder.write_base(model.network, aside, base)
