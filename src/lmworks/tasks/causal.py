"""Causal text: each token is predicted from those before it (GPT-2: Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmworks.data import texts
from lmworks.data.batch import Example
from lmworks.data.documents import Window
from lmworks.data.examples import Examples
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.tasks.figures import ACCURACY, BITS, GENERAL_BITS, LOSS, PERPLEXITY
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Table

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Causal(Task):
    """Texts with a decoder; long texts in chunks, which follow each other or begin at random tokens."""

    name = "causal"
    learns = "the next token of texts"
    architectures = ("decoder",)
    kinds = ("text",)
    default_for = ("text",)
    uses = frozenset({"windows"})
    slides = True
    figures = (LOSS, PERPLEXITY, ACCURACY, BITS, GENERAL_BITS)

    @property
    def is_random(self) -> bool:
        """Whether windows begin at random tokens."""
        return self.settings.windows == "random"

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Chunks of each text; see data/texts."""
        return texts.causal_examples(table, self.tokenizer, settings, context)

    def _sample(self, example: Example, rng: np.random.Generator, move: bool) -> Example:
        if not move or not isinstance(example.origin, Window):
            return example
        return texts.chunk(example.origin.shift_randomly(rng), max(len(self.tokenizer.opening), 1))

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """The first half of a text, and how the model continues it."""
        from lmworks.tasks.generation import continue_texts

        return continue_texts(model, examples, settings)
