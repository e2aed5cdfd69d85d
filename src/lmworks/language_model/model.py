"""A language model: a network with its adapter, tokenizer and chat template, and what one does with it.

Knows all the parts and does nothing itself: every method is a few lines over generate/, evaluate/ or families/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lmworks.adapt import adapters
from lmworks.base import machine
from lmworks.base.errors import InputError, as_list, check_type
from lmworks.base.settings import build
from lmworks.data.prompts import Prompt
from lmworks.evaluate.scoring import Score, score_texts
from lmworks.families.family import Family
from lmworks.families.folder import save_folder
from lmworks.families.opened import dtype_of
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.embed import Pooling, embed
from lmworks.generate.fill import Filled, fill, next_sentence
from lmworks.generate.native_weights import engine_of, stepper_over, unsupported
from lmworks.generate.packed import make_fast
from lmworks.generate.sampling import Rules, SamplingSettings, published_beams
from lmworks.generate.stepper import Stepper
from lmworks.generate.text import Reply, TextStream, complete, next_tokens, stream
from lmworks.generate.torch_stepper import TorchStepper, check_writes
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.head_methods import HeadMethods
from lmworks.language_model.input_format import MESSAGES_HINT, TEXT_HINT, TEXTS_HINT, Input, InputFormat, texts_of
from lmworks.language_model.inputs import conversation_of, prompts_of
from lmworks.language_model.named_adapters import AdapterMethods, Adapters
from lmworks.model.config import ModelConfig
from lmworks.model.stored_layers import widen
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Message = dict[str, str]


@dataclass
class LanguageModel(HeadMethods, AdapterMethods):
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
    _adapters: Adapters = field(default_factory=Adapters, init=False, repr=False)
    _engine: Any = field(default=None, init=False, repr=False)

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

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids, and the chat template."""
        if self.own_tokenizer is None:
            raise InputError("this model came without a tokenizer", self.source, "put its tokenizer.json beside it")
        return self.own_tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self.own_tokenizer = tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether it came with one."""
        return self.own_tokenizer is not None

    @property
    def rules(self) -> Rules:
        """What its publisher demands of every text that it writes."""
        return Rules.of(self.generation, self.architecture == "encoder-decoder")

    def stepper(self) -> Stepper:
        """The network behind the interface that generation asks for logits.

        Raises:
            InputError: it writes no texts.
        """
        if self._engine is not None:
            return stepper_over(self._engine, self.config)
        return TorchStepper(self.network.eval())

    @overload
    def generate(self, prompt: Input, *, stream: Literal[False] = False, **options: Any) -> str: ...
    @overload
    def generate(self, prompt: Input, *, stream: Literal[True], **options: Any) -> TextStream: ...
    @overload
    def generate(self, prompt: Sequence[Input], *, stream: Literal[False] = False, **options: Any) -> list[str]: ...

    def generate(
        self,
        prompt: Input | Sequence[Input],
        *,
        stream: bool = False,
        details: bool = False,
        log_probabilities: bool = False,
        raw: bool = False,
        **sampling: Any,
    ) -> Any:
        """Continue a text, or each of several; with an encoder-decoder: answer it.

        A model that a run taught to answer prompts or to label texts is asked in the words of that run, and labels are
        chosen by their likelihood: see ``input_format``.

        Args:
            prompt: a text, or a list of them (all at once; each gets what it would get alone). Where the run's prompt
                is built from several columns: a dictionary of these.
            stream: yield the new text piece by piece (one prompt only).
            details: give replies instead of texts: why it stopped, usage.
            log_probabilities: with ``details``: of each new token.
            raw: continue the text as it is, whatever the model was trained on.
            **sampling: fields of SamplingSettings: max_tokens, temperature, top_k, top_p, num_beams, seed, stop ...

        Returns:
            The new text alone, without the prompt; a list for a list; with ``details`` a Reply each; with ``stream``
            an iterator whose ``reply`` is there when it has ended.

        Raises:
            InputError: the model writes no texts, a setting is invalid, or a prompt does not fit the model.
        """
        settings = build(SamplingSettings, sampling, "generate")
        if isinstance(prompt, str | Mapping):
            return self._answer(self._prompt(prompt, raw), settings, stream, details, log_probabilities)
        if stream:
            raise InputError("streaming takes one prompt", "stream", "give a single text, or leave out stream=True")
        replies = self.complete(prompt, settings, log_probabilities, raw)
        return replies if details else [reply.text for reply in replies]

    def complete(
        self,
        prompts: Sequence[Input],
        settings: SamplingSettings,
        log_probabilities: bool = False,
        raw: bool = False,
    ) -> list[Reply]:
        """The replies to several texts; arguments and errors as in :meth:`generate`."""
        prompts = as_list(prompts, (str, Mapping), "prompts", TEXTS_HINT)
        inputs = self._prompts(prompts, raw)
        if inputs and inputs[0].choices:
            return choose_labels(self.network.eval(), inputs)
        ids, settings = [prompt.ids for prompt in inputs], self._resolve(settings, *inputs[:1])
        return complete(self.stepper(), self.tokenizer, ids, settings, self.rules, log_probabilities)

    @overload
    def translate(self, text: str, **sampling: Any) -> str: ...
    @overload
    def translate(self, text: Sequence[str], **sampling: Any) -> list[str]: ...

    def translate(self, text: str | Sequence[str], **sampling: Any) -> str | list[str]:
        """Answer texts with an encoder-decoder, by the beam search that its publisher advises; four beams without.

        Args:
            text: a text or a list of them, written as the model was taught ("translate English to French: ...").
            **sampling: as in :meth:`generate`.

        Raises:
            InputError: the model is no encoder-decoder, or as :meth:`generate`.
        """
        if self.architecture != "encoder-decoder":
            hint = "take an encoder-decoder (as Marian or T5), or ask a decoder by lmworks generate"
            raise InputError("the model is no encoder-decoder, so it does not translate", self.source, hint)
        advised = published_beams(self.generation) if not sampling.get("temperature") else {}
        texts = self.generate(texts_of(text), **{**advised, **sampling})
        return texts[0] if isinstance(text, str) else texts

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
        """Vectors of texts (n, E); with pooling "none" a list of (tokens, E). Details: generate/embed.py.

        Without ``pooling``: a sentence encoder's own (``self.pooling``), of other models the mean, normalized. Texts
        longer than ``max_tokens`` are cut with a warning; default: as the folder of a sentence encoder says.
        """
        network = self.network.eval()
        return embed(network, self.tokenizer, texts_of(texts), pooling, normalize, self.pooling, max_tokens)

    @overload
    def chat(self, messages: Sequence[Message], *, details: Literal[True], **options: Any) -> Reply: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[True], **options: Any) -> TextStream: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[False] = False, **options: Any) -> str: ...

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        details: bool = False,
        log_probabilities: bool = False,
        raw: bool = False,
        **sampling: Any,
    ) -> Any:
        """Answer a conversation.

        The system message and the prompt's pattern of the run that trained the model are used. A classifier labels
        the last message alone; so does a model answer that was trained without a chat template.

        Args:
            messages: dicts with ``role`` (system, user, assistant) and ``content``; the last one is the user's.
            stream: yield the answer piece by piece.
            details, log_probabilities: as in :meth:`generate`.
            raw: leave the messages as they are, whatever the model was trained on.
            **sampling: as in :meth:`generate`.

        Raises:
            InputError: a message is malformed or refused by the chat template, or as :meth:`generate`.
        """
        settings = build(SamplingSettings, sampling, "chat")
        check_writes(self.network)
        prompt = self._conversation(as_list(messages, Mapping, "messages", MESSAGES_HINT), raw)
        return self._answer(prompt, settings, stream, details, log_probabilities)

    def answer(self, prompt: Prompt, settings: SamplingSettings) -> TextStream:
        """Answer a prompt that is token ids already, as a task makes them of rows (data/prompts)."""
        return self._answer(prompt, settings, True, False, False)

    def score(self, texts: str | Sequence[str]) -> list[Score]:
        """How likely each text is: nats, tokens and bits per byte.

        Raises:
            InputError: the model is no decoder.
        """
        if self.architecture != "decoder":
            hint = "take a decoder; lmworks fill shows the probabilities of an encoder's words"
            fault = f"the model ({self.architecture}) gives no likelihood of a text by itself"
            raise InputError(fault, self.source, hint)
        return score_texts(self.network.eval(), self.tokenizer, texts_of(texts))

    def next(self, text: str, top: int = 10) -> list[tuple[str, float]]:
        """The likeliest next tokens after a text, each with its probability."""
        check_type(text, str, "text", TEXT_HINT)
        return next_tokens(self.stepper(), self.tokenizer, text, top)

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
        """Make it fast for generation, in place.

        Adapters are merged where they can be. On a CPU the native engine computes a decoder; weights that came in four
        or eight bits stay so. Answers may differ in the last digits of a probability, and so, rarely, in a word.

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
            if not unsupported(self.network):
                self._engine = engine_of(self.network, dtype_name)
            elif self.architecture == "decoder":
                make_fast(self.network, dtype_name)
            else:
                widen(self.network)
        elif dtype_name != "float32":
            self.network.to(dtype_of(dtype_name))
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.network.device

    def _prompt(self, value: Input, raw: bool) -> Prompt:
        """A text as the model reads it."""
        return self._prompts([value], raw)[0]

    def _prompts(self, values: Sequence[Input], raw: bool) -> list[Prompt]:
        """Texts as the model reads them."""
        form, few_shot = (None, None) if raw else (self.input_format, self.few_shot)
        return prompts_of(values, self.tokenizer, form, few_shot)

    def _conversation(self, messages: list[Message], raw: bool) -> Prompt:
        """A conversation as the model reads it."""
        form, few_shot = (None, None) if raw else (self.input_format, self.few_shot)
        return conversation_of(messages, self.tokenizer, form, few_shot)

    def _answer(
        self, prompt: Prompt, settings: SamplingSettings, streaming: bool, details: bool, with_log_probabilities: bool
    ) -> Any:
        """A TextStream, a Reply, or its text."""
        if prompt.choices:
            (reply,) = choose_labels(self.network.eval(), [prompt])
            pieces = TextStream(iter([reply.text]), lambda: reply)
        else:
            settings = self._resolve(settings, prompt)
            pieces = stream(self.stepper(), self.tokenizer, prompt.ids, settings, self.rules, with_log_probabilities)
        if streaming:
            return pieces
        text = "".join(pieces)
        return pieces.reply if details else text

    def _resolve(self, settings: SamplingSettings, prompt: Prompt | None = None) -> SamplingSettings:
        """With the stops of the prompt; with ``slide`` as the model was trained, where nothing is said."""
        changes: dict[str, Any] = {"stop": [*settings.stop, *prompt.stop]} if prompt is not None and prompt.stop else {}
        if settings.slide is None and self.input_format is not None and settings.num_beams == 1:
            changes["slide"] = self.input_format.slide
        return settings.model_copy(update=changes) if changes else settings
