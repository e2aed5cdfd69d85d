"""An encoder that the native engine computes, opened from what the cache keeps of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate import text_vectors
from lmworks.generate.native_states import NativeStates
from lmworks.generate.text_vectors import Pooling
from lmworks.language_model.input_format import texts_of
from lmworks.model.config import ModelConfig
from lmworks.text.tokenizer import Tokenizer


@dataclass
class NativeEncoder:
    """An encoder in the native engine, with its tokenizer: it gives vectors of texts.

    Attributes:
        engine: of the compiled module, with all weights.
        config: sizes and settings.
        tokenizer: text -> ids.
        source: what the person named.
        pooling: how a sentence encoder makes one vector of a text's states; None of other models.
        notes: what opening the model had to say.
    """

    engine: Any
    config: ModelConfig
    tokenizer: Tokenizer
    source: str
    pooling: SentencePooling | None = None
    notes: list[str] = field(default_factory=list)

    def text_states(self) -> NativeStates:
        """What computes the hidden states of whole texts."""
        return NativeStates(self.engine, self.config.hidden_size, self.config.max_position_embeddings)

    def embed(
        self,
        texts: str | Sequence[str],
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_tokens: int | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Vectors of texts (n, E) float32, or with pooling "none" a list of (tokens, E), as ``LanguageModel.embed``."""
        states, listed = self.text_states(), texts_of(texts)
        return text_vectors.embed(states, self.tokenizer, listed, pooling, normalize, self.pooling, max_tokens)
