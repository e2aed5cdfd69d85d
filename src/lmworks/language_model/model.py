"""A language model: a network with its adapter, tokenizer and chat template, and what one does with it.

Knows all the parts and does nothing itself: every method is a few lines over generate/, evaluate/ or families/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.adapt import adapters
from lmworks.base import machine
from lmworks.base.errors import InputError, check_type
from lmworks.evaluate import choices as network_choices
from lmworks.evaluate import native_likelihoods
from lmworks.evaluate.scoring import score_texts
from lmworks.evaluate.text_windows import ChoiceScores, Ids, Score, signature_of
from lmworks.families.family import Family
from lmworks.families.folder import save_folder
from lmworks.families.opened import dtype_of
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate import text_vectors
from lmworks.generate.embed import as_tensors
from lmworks.generate.encode import NetworkStates
from lmworks.generate.engine_file import EngineWeights
from lmworks.generate.fill import Filled, fill, next_sentence
from lmworks.generate.native_states import NativeStates
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import (
    encoder_weights_of,
    formats_of,
    unsupported,
    unsupported_encoder,
    weights_of,
)
from lmworks.generate.packed import make_fast
from lmworks.generate.stepper import Stepper
from lmworks.generate.text_vectors import HiddenStates, Pooling
from lmworks.generate.torch_stepper import TorchStepper, check_writes
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.head_methods import HeadMethods
from lmworks.language_model.input_format import TEXT_HINT, InputFormat, texts_of
from lmworks.language_model.named_adapters import AdapterMethods, Adapters
from lmworks.language_model.text_methods import TextMethods
from lmworks.model.config import ModelConfig
from lmworks.model.stored_layers import weight_formats, widen
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Message = dict[str, str]


@dataclass
class LanguageModel(TextMethods, HeadMethods, AdapterMethods):
    """A network with all that is needed to speak with it.

    Attributes:
        network: the torch module: ``network(ids)`` with ids (B, T) gives an output with ``.logits`` (B, T, V).
        own_tokenizer: its tokenizer, None where it came without one; ``tokenizer`` then says what is missing.
        family: how its config and tensors are called on disk.
        source: what the person named.
        base: the source of the model that an adapter sits on; equal to ``source`` without one.
        hf_config: keys of the published config that are kept when the model is saved.
        generation: the published generation_config, kept too.
        notes: what opening it had to say.
        input_format: how inputs looked in the run that trained it; None where no run is known.
        pooling: how a sentence encoder makes one vector of a text's states; None of other models.
        few_shot: what stands before its inputs, where a run of method prompting chose it.
        kv_cache: the precision of keys and values in the native engine: "float16", "int8"; None: as the weights are.
        engine_weights: the native engine with its weights, once :meth:`prepare` has filled it.
        engine_fault: why the engine does not compute the prepared network, as a phrase; empty if it does.
        encoder_weights: the native engine with an encoder's weights, for vectors of texts, likewise.
        encoder_fault: why the engine does not compute the prepared network's vectors; empty if it does.
    """

    network: Transformer
    own_tokenizer: Tokenizer | None
    family: Family
    source: str
    base: str
    hf_config: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    input_format: InputFormat | None = None
    pooling: SentencePooling | None = None
    few_shot: FewShotPrompt | None = None
    kv_cache: str | None = None
    _adapters: Adapters = field(default_factory=Adapters, init=False, repr=False)
    engine_weights: EngineWeights | None = field(default=None, init=False, repr=False)
    engine_fault: str = field(default="", init=False, repr=False)
    encoder_weights: EngineWeights | None = field(default=None, init=False, repr=False)
    encoder_fault: str = field(default="", init=False, repr=False)

    @property
    def config(self) -> ModelConfig:
        """Sizes and settings of the network."""
        return self.network.config

    @property
    def architecture(self) -> str:
        """Whether it is an encoder, a decoder or an encoder-decoder."""
        return self.config.architecture

    @property
    def context(self) -> int | None:
        """Tokens of a text that it reads at a time; None: any number."""
        return self.network.max_text_tokens

    def stepper(self) -> Stepper:
        """The network behind the interface that generation asks for logits.

        Raises:
            InputError: it writes no texts.
        """
        return self._native_stepper() or TorchStepper(self.network.eval())

    def _native_stepper(self) -> NativeStepper | None:
        """A stepper over the native engine, once :meth:`prepare` has filled it."""
        if self.engine_weights is None:
            return None
        engine, context = self.engine_weights.engine, self.config.max_position_embeddings
        return NativeStepper(engine, self.config.vocab_size, context, kv_cache=self.kv_cache)

    @property
    def weight_formats(self) -> list[str]:
        """The formats of the matrices as they are computed with, such as float32 or Q4_1, the most frequent first."""
        return weight_formats(self.network) if self.engine_weights is None else formats_of(self.engine_weights)

    @property
    def signature(self) -> str:
        """See :class:`TextMethods`."""
        if self.engine_weights is None:
            return signature_of("torch", self.weight_formats)
        return signature_of("native", self.weight_formats, self.kv_cache)

    def fill(self, text: str, top: int = 5) -> Filled:
        """For each blank ([MASK], ___) its likeliest pieces with probabilities; ``.text`` is the text filled.

        Raises:
            InputError: the model fills no blanks, or the text has none.
        """
        check_type(text, str, "text", TEXT_HINT)
        return fill(self.network.eval(), self.tokenizer, text, top, self.rules)

    def next_sentence(self, first: str, second: str) -> float:
        """The probability that the second sentence follows the first.

        Raises:
            InputError: the model was not trained on pairs of sentences (BERT), or both together are too long.
        """
        for sentence in (first, second):
            check_type(sentence, str, "sentence", TEXT_HINT)
        return next_sentence(self.network.eval(), self.tokenizer, first, second)

    def embed(
        self,
        texts: str | Sequence[str],
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_tokens: int | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """Vectors of texts (n, E); with pooling "none" a list of (tokens, E). Details: generate/text_vectors.py.

        Without ``pooling``: a sentence encoder's own (``self.pooling``), of other models the mean, normalized. Texts
        longer than ``max_tokens`` are cut with a warning; default: as the folder of a sentence encoder says. The native
        engine computes an encoder's, once the model is prepared.
        """
        states, listed = self.text_states(), texts_of(texts)
        vectors = text_vectors.embed(states, self.tokenizer, listed, pooling, normalize, self.pooling, max_tokens)
        return as_tensors(vectors)

    def text_states(self) -> HiddenStates:
        """What computes the hidden states of whole texts."""
        if self.encoder_weights is not None:
            return NativeStates(
                self.encoder_weights.engine, self.config.hidden_size, self.config.max_position_embeddings
            )
        return NetworkStates(self.network.eval())

    def score(
        self, texts: str | Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> list[Score]:
        """See :class:`TextMethods`; by the native engine, once the model is prepared.

        Raises:
            InputError: the model is no decoder.
        """
        if self.architecture != "decoder":
            hint = "take a decoder; lmworks fill shows the probabilities of an encoder's words"
            fault = f"the model ({self.architecture}) gives no likelihood of a text by itself"
            raise InputError(fault, self.source, hint)
        if (stepper := self._native_stepper()) is not None:
            return native_likelihoods.score_texts(
                stepper, self.tokenizer, texts_of(texts), context, stride, self.signature
            )
        network = self.network.eval()
        return score_texts(
            network, self.tokenizer, texts_of(texts), context=context, stride=stride, computed=self.signature
        )

    def choice_scores(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[ChoiceScores]:
        """See :class:`TextMethods`."""
        if (stepper := self._native_stepper()) is not None:
            return native_likelihoods.choice_scores(stepper, prompts, choices)
        return network_choices.choice_scores(self.network.eval(), prompts, choices)

    def save(self, folder: str | Path, *, dtype: str = "float32", overwrite: bool = False) -> Path:
        """Write a Hugging Face folder, new or empty; the active adapter is merged. Nothing is left half-written.

        Args:
            folder: where to.
            dtype: how the weights are written: float32, bfloat16 or float16.
            overwrite: replace a model that was saved there.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds something else, there is no room, or the adapter cannot be merged.
        """
        folder = Path(folder)
        with adapters.merged(self.network):
            save_folder(
                folder,
                network=self.network,
                config=self.config,
                family=self.family,
                tokenizer=self.own_tokenizer,
                hf_config=self.hf_config,
                generation=self.generation,
                dtype=dtype,
                overwrite=overwrite,
                pooling=self.pooling,
            )
        for part in (self.input_format, self.few_shot):
            if part is not None:
                part.save(folder)
        return folder

    def prepare(self, precision: str = "auto") -> LanguageModel:
        """Make it fast for generation and vectors of texts, in place.

        Adapters are merged where they can be. On a CPU the native engine computes a decoder, and an encoder's vectors;
        a decoder's weights that came in four or eight bits stay so. Answers may differ in the last digits of a
        probability, and so, rarely, in a word; vectors in bfloat16 differ in the third digit of their numbers.

        Args:
            precision: of the rest: "float32", "bfloat16", or "auto": whichever this processor multiplies faster.

        Returns:
            Itself. It can generate and score, but no longer be trained or saved, nor switch adapters.
        """
        dtype_name, _ = machine.choose_precision(precision, self.device.type)
        adapters.merge_possible(self.network)
        self._adapters.are_merged = True
        self.network.eval().requires_grad_(False)
        if self.device.type == "cpu":
            self.engine_fault = unsupported(self.network)
            if not self.engine_fault:
                self.engine_weights = weights_of(self.network, dtype_name)
            elif self.architecture == "decoder":
                make_fast(self.network, dtype_name)
            else:
                widen(self.network)
            self.encoder_fault = unsupported_encoder(self.network)
            if not self.encoder_fault:
                self.encoder_weights = encoder_weights_of(self.network, dtype_name)
        elif dtype_name != "float32":
            self.network.to(dtype_of(dtype_name))
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.network.device

    def check_writes(self) -> None:
        """See :meth:`TextMethods.check_writes`."""
        check_writes(self.network)
