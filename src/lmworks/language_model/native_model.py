"""A decoder that the native engine computes, opened from what the cache keeps of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.base.errors import InputError
from lmworks.data.prompts import Prompt
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.text import Reply
from lmworks.language_model.adapter_names import Inputs
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.native_adapters import NativeAdapters
from lmworks.language_model.text_methods import TextMethods
from lmworks.model.config import ModelConfig
from lmworks.text.tokenizer import Tokenizer


@dataclass
class NativeModel(TextMethods, NativeAdapters):
    """A decoder in the native engine, with its tokenizer and adapters: it generates, chats and gives next tokens.

    Attributes:
        engine: of the compiled module, with all weights.
        config: sizes and settings.
        own_tokenizer: text <-> ids, and the chat template.
        source: what the person named.
        generation: its generation_config.json.
        notes: what opening the model had to say.
        input_format: how inputs looked in the run that trained it; None where no run is known.
        family: the name of its family, by whose names an adapter's tensors are read.
        fingerprint: of its weights (adapt/adapters), by which an adapter knows its base.
    """

    engine: Any
    config: ModelConfig
    own_tokenizer: Tokenizer | None
    source: str
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    input_format: InputFormat | None = None
    few_shot: FewShotPrompt | None = None
    family: str = ""
    fingerprint: str = ""
    _active: str | None = field(default=None, init=False, repr=False)
    _inputs: dict[str | None, Inputs] = field(default_factory=dict, init=False, repr=False)

    @property
    def architecture(self) -> str:
        """See :class:`TextMethods`."""
        return self.config.architecture

    @property
    def context(self) -> int:
        """See :class:`TextMethods`."""
        return self.config.max_position_embeddings

    def stepper(self) -> NativeStepper:
        """See :class:`TextMethods`; several share the weights; each has the adapter in use when it is made."""
        return NativeStepper(
            self.engine, self.config.vocab_size, self.config.max_position_embeddings, self.active_adapter
        )

    def check_writes(self) -> None:
        """See :class:`TextMethods`: every decoder writes."""

    def _choose_labels(self, prompts: Sequence[Prompt]) -> list[Reply]:
        raise InputError("the native engine compares no labels", self.source, "--backend torch")
