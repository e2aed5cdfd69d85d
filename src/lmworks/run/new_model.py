"""Settings of a new model, which starts with random weights: its config and its tokenizer. Imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.model.config import MOST_WIDTH, ModelConfig
from lmworks.text.tokenizer_settings import TokenizerSettings


class ModelSettings(ModelConfig):
    """A ModelConfig whose vocabulary size follows from the tokenizer."""

    model_config = ConfigDict(frozen=True)

    vocab_size: int = Field(
        0, ge=0, le=MOST_WIDTH, description="0: the tokenizer's number of ids; a larger number: with unused rows."
    )
    vocab_multiple: int = Field(1, gt=0, description="vocab_size 0: rounded up to a multiple of this.")
    head_scale: float | Literal["root"] = Field(  # type: ignore[assignment]
        1.0, description="Hidden states are multiplied by it before the head; root: by 1 / root of hidden_size (T5)."
    )
    embedding_scale: float | Literal["root"] = Field(  # type: ignore[assignment]
        1.0, description="Token embeddings are multiplied by it; root: by the root of hidden_size."
    )

    def config(self, ids: int) -> ModelConfig:
        """The ModelConfig for a tokenizer with ``ids`` ids.

        Raises:
            InputError: vocab_size is less than that.
        """
        if self.vocab_size and self.vocab_size < ids:
            raise InputError(
                f"is {self.vocab_size}, but the tokenizer has {ids} ids",
                "model.vocab_size",
                "leave it out (it then follows the tokenizer), or lower tokenizer.vocab_size",
            )
        values = self.model_dump(exclude={"vocab_multiple"})
        values["vocab_size"] = self.vocab_size or -(-ids // self.vocab_multiple) * self.vocab_multiple
        if self.embedding_scale == "root":
            values["embedding_scale"] = math.sqrt(self.hidden_size)
        if self.head_scale == "root":
            values["head_scale"] = self.hidden_size**-0.5
        return build(ModelConfig, values, "model")


class NewTokenizer(TokenizerSettings):
    """An existing tokenizer, or settings to train one on the training text."""

    source: str | None = Field(None, description="A model or folder whose tokenizer is used; none: one is trained.")
    at_most: bool = Field(False, description="Where the text does not fill vocab_size, take what it gives.")
