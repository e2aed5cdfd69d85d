"""Labels as text: a decoder learns to write the label of a text; its answer is the likeliest of all labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmworks.data.prompts import Answer, Prompt
from lmworks.language_model.input_format import InputFormat
from lmworks.tasks.instructions import Instructions
from lmworks.text.rows import DataSettings
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Labels(Instructions):
    """Rows of text and label."""

    name = "labels"
    learns = "to write the label of a text"
    kinds = ("labels",)
    default_for = ("labels",)
    input_kind = "label"
    metric = "accuracy"

    @classmethod
    def suits(cls, tokenizer: Tokenizer) -> bool:
        """A model that follows instructions knows what labels mean, and keeps its language head; others get a head."""
        return tokenizer.chat_template is not None

    def answer(self, model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
        """The likeliest label of each text."""
        from lmworks.tasks.generation import choose_answers

        return choose_answers(model, prompts)

    def input_format(self, settings: DataSettings, labels: Sequence[str] = ()) -> InputFormat:
        """The input format with the labels, one of which is the answer."""
        return super().input_format(settings).model_copy(update={"labels": tuple(labels)})
