"""Labels as text: a decoder learns to write the label of a text; it is judged by the likeliest of all labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmworks.data.prompts import Answer, Prompt
from lmworks.tasks.instructions import Instructions

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Labels(Instructions):
    """Rows of text and label."""

    name = "labels"
    learns = "to write the label of a text"
    kinds = ("labels",)
    default_for = ("labels",)
    metric = "accuracy"

    def answer(self, model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
        """The likeliest label of each text."""
        from lmworks.tasks.writing import choose_answers

        return choose_answers(model, prompts)
