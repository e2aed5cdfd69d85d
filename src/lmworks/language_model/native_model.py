"""A decoder that the native engine computes, opened from what the cache keeps of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmworks.base.errors import InputError, as_list
from lmworks.evaluate import native_likelihoods
from lmworks.evaluate.prediction import Prediction
from lmworks.evaluate.text_windows import ChoiceScores, Ids, Score, signature_of
from lmworks.generate.native_stepper import NativeStepper
from lmworks.language_model.adapter_names import Inputs
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.input_format import TEXTS_HINT, InputFormat, texts_of
from lmworks.language_model.native_adapters import NativeAdapters
from lmworks.language_model.text_methods import TextMethods
from lmworks.model.config import ModelConfig
from lmworks.text.tokenizer import Tokenizer


@dataclass
class NativeModel(TextMethods, NativeAdapters):
    """A decoder in the native engine, with its tokenizer and adapters: it generates, chats, scores, gives next tokens,
    labels.

    Attributes:
        engine: of the compiled module, with all weights.
        config: sizes and settings.
        own_tokenizer: text <-> ids, and the chat template.
        source: what the person named.
        weight_formats: of its matrices, such as Q4_1.
        generation: its generation_config.json.
        notes: what opening the model had to say.
        input_format: how inputs looked in the run that trained it; None where no run is known.
        few_shot: see :class:`TextMethods`; None, as models with examples are not cached.
        kv_cache: the precision of keys and values: "float16", "int8"; None: as the weights are.
        family: the name of its family, by whose names an adapter's tensors are read.
        fingerprint: of its weights (adapt/adapters), by which an adapter knows its base.
        weight_sample: elements of its weights, by which an adapter of another model is refused.
    """

    engine: Any
    config: ModelConfig
    own_tokenizer: Tokenizer | None
    source: str
    weight_formats: list[str]
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    input_format: InputFormat | None = None
    few_shot: FewShotPrompt | None = None
    kv_cache: str | None = None
    family: str = ""
    fingerprint: str = ""
    weight_sample: list[float] = field(default_factory=list)
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

    @property
    def signature(self) -> str:
        """See :class:`TextMethods`."""
        return signature_of("native", self.weight_formats, self.kv_cache)

    @property
    def labels(self) -> list[str]:
        """The labels that a run taught it to write, in order; empty without any."""
        form = self.input_format
        return list(form.labels) if form is not None and form.kind == "label" else []

    def stepper(self) -> NativeStepper:
        """See :class:`TextMethods`; several share the weights; each has the adapter in use when it is made."""
        context, adapter = self.config.max_position_embeddings, self.active_adapter
        return NativeStepper(self.engine, self.config.vocab_size, context, kv_cache=self.kv_cache, adapter=adapter)

    def check_writes(self) -> None:
        """See :class:`TextMethods`: every decoder writes."""

    def score(
        self, texts: str | Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> list[Score]:
        """See :class:`TextMethods`."""
        listed = texts_of(texts)
        return native_likelihoods.score_texts(self.stepper(), self.tokenizer, listed, context, stride, self.signature)

    def choice_scores(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[ChoiceScores]:
        """See :class:`TextMethods`."""
        return native_likelihoods.choice_scores(self.stepper(), prompts, choices)

    def predict(self, texts: Sequence[Any]) -> list[Prediction]:
        """The likeliest label of each text, as LanguageModel.predict.

        Raises:
            InputError: no run taught it labels, or an input cannot be read.
        """
        listed, form = as_list(texts, (str, Sequence, Mapping), "texts", TEXTS_HINT), self.input_format
        if form is None or form.kind != "label":
            hint = f"train one: lmworks tune {self.source} FILE, with texts and labels"
            raise InputError("the model has no head that classifies texts", self.source, hint)
        return self._label_texts(listed, form)
