"""A language model: a network with its adapter, tokenizer and chat template, and what one does with it.

Knows all the parts and does nothing itself: every method is a few lines over generate/, evaluate/ or families/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from lmworks.adapt import adapters
from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.evaluate.scoring import Score, score_texts
from lmworks.families.family import Family
from lmworks.families.folder import save_folder
from lmworks.families.opened import dtype_of
from lmworks.generate.fill import Filled, Pooling, embed, fill, next_sentence
from lmworks.generate.packed import make_fast
from lmworks.generate.sampling import Rules, SamplingSettings, published_beams
from lmworks.generate.text import Reply, complete, next_tokens, stream
from lmworks.generate.torch_stepper import TorchStepper, check_writes
from lmworks.model.config import ModelConfig
from lmworks.model.stored import widen
from lmworks.model.transformer import Transformer
from lmworks.text import chat
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Message = dict[str, str]


@dataclass
class LanguageModel:
    """A network with all that is needed to speak with it.

    Attributes:
        network: the torch module: ``network(ids)`` with ids (B, T) gives an output with ``.logits`` (B, T, V).
        words: its tokenizer, where it came with one; ``tokenizer`` is the same, or says what is missing.
        family: how its config and tensors are called on disk.
        source: what the person named.
        base: the source of the model that an adapter sits on; equal to ``source`` without one.
        hf_config: keys of the published config that are kept when the model is saved.
        generation: the published generation_config, kept too.
        notes: what opening it had to say.
    """

    network: Transformer
    words: Tokenizer | None
    family: Family
    source: str
    base: str
    hf_config: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> ModelConfig:
        """Sizes and words of the network."""
        return self.network.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids, and the chat template."""
        if self.words is None:
            raise InputError("this model came without a tokenizer", self.source, "put its tokenizer.json beside it")
        return self.words

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self.words = tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether it came with one."""
        return self.words is not None

    @property
    def rules(self) -> Rules:
        """What its publisher demands of every text that it writes."""
        return Rules.of(self.generation, self.config.architecture == "encoder-decoder")

    def stepper(self) -> TorchStepper:
        """The network behind the interface that generation asks for logits.

        Raises:
            InputError: it writes no texts.
        """
        return TorchStepper(self.network.eval())

    @overload
    def generate(self, prompt: str, *, stream: Literal[False] = False, **sampling: Any) -> str: ...
    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **sampling: Any) -> Iterator[str]: ...
    @overload
    def generate(self, prompt: Sequence[str], *, stream: Literal[False] = False, **sampling: Any) -> list[str]: ...

    def generate(
        self, prompt: str | Sequence[str], *, stream: bool = False, **sampling: Any
    ) -> str | list[str] | Iterator[str]:
        """Continue a text, or each of several; with an encoder-decoder: answer it.

        Args:
            prompt: a text, or a list of them (all at once; each gets what it would get alone).
            stream: yield the new text piece by piece (one prompt only).
            **sampling: fields of SamplingSettings: max_tokens, temperature, top_k, top_p, num_beams, seed, stop ...

        Returns:
            The new text alone, without the prompt; a list for a list.
        """
        settings = build(SamplingSettings, sampling, "generate")
        if isinstance(prompt, str):
            return self._answer(self.tokenizer.encode(prompt, special=True), settings, stream)
        if stream:
            raise InputError("streaming takes one prompt", "stream", "give a single text, or leave out stream=True")
        return [reply.text for reply in self.complete(prompt, settings)]

    def complete(self, prompts: Sequence[str], settings: SamplingSettings) -> list[Reply]:
        """Continue texts; each Reply has text, ids and the reason why it stopped."""
        ids = [self.tokenizer.encode(prompt, special=True) for prompt in prompts]
        return complete(self.stepper(), self.tokenizer, ids, settings, self.rules)

    @overload
    def translate(self, text: str, **sampling: Any) -> str: ...
    @overload
    def translate(self, text: Sequence[str], **sampling: Any) -> list[str]: ...

    def translate(self, text: str | Sequence[str], **sampling: Any) -> str | list[str]:
        """Answer texts with an encoder-decoder, by the beam search that its publisher advises; four beams without.

        Args:
            text: a text or a list of them, written as the model was taught ("translate English to French: ...").
            **sampling: as in :meth:`generate`.
        """
        if self.config.architecture != "encoder-decoder":
            hint = "take an encoder-decoder (as Marian or T5), or ask a decoder by lmworks generate"
            raise InputError("the model is no encoder-decoder, so it does not translate", self.source, hint)
        advised = published_beams(self.generation) if not sampling.get("temperature") else {}
        found = self.generate([text] if isinstance(text, str) else text, **{**advised, **sampling})
        return found[0] if isinstance(text, str) else found

    def fill(self, text: str, top: int = 5) -> Filled:
        """For each blank ([MASK], ___) its likeliest pieces with probabilities; ``.text`` is the text filled."""
        return fill(self.network.eval(), self.tokenizer, text, top, self.rules)

    def next_sentence(self, first: str, second: str) -> float:
        """The probability that the second sentence follows the first, of a model trained on that."""
        return next_sentence(self.network.eval(), self.tokenizer, first, second)

    def embed(
        self, texts: str | Sequence[str], pooling: Pooling = "mean", normalize: bool | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Vectors of texts (n, E); with pooling "none" a list of (tokens, E). Details: generate/fill.py."""
        texts = [texts] if isinstance(texts, str) else texts
        return embed(self.network.eval(), self.tokenizer, texts, pooling, normalize)

    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[False] = False, **sampling: Any) -> str: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[True], **sampling: Any) -> Iterator[str]: ...

    def chat(self, messages: Sequence[Message], *, stream: bool = False, **sampling: Any) -> str | Iterator[str]:
        """Answer a conversation.

        Args:
            messages: dicts with ``role`` (system, user, assistant) and ``content``; the last one is the user's.
            stream: yield the answer piece by piece.
            **sampling: as in :meth:`generate`.
        """
        settings = build(SamplingSettings, sampling, "chat")
        check_writes(self.network)
        ids, _ = chat.encode(self.tokenizer, list(messages), reply=True)
        return self._answer(ids, settings, stream)

    def score(self, texts: str | Sequence[str]) -> list[Score]:
        """How likely each text is: nats, tokens and bits per byte."""
        if self.config.architecture != "decoder":
            hint = "take a decoder; lmworks fill shows the probabilities of an encoder's words"
            fault = f"the model ({self.config.architecture}) gives no likelihood of a text by itself"
            raise InputError(fault, self.source, hint)
        return score_texts(self.network.eval(), self.tokenizer, [texts] if isinstance(texts, str) else list(texts))

    def next(self, text: str, top: int = 10) -> list[tuple[str, float]]:
        """The likeliest next tokens after a text, each with its probability."""
        return next_tokens(self.stepper(), self.tokenizer, text, top)

    def save(self, folder: str | Path, *, dtype: str = "float32", overwrite: bool = False) -> Path:
        """Write a Hugging Face folder, new or empty; an adapter is merged into its base. Nothing is left half-written.

        Args:
            folder: where to.
            dtype: how the weights are written: float32, bfloat16 or float16.
            overwrite: replace a model that was saved there.
        """
        folder = Path(folder)
        with adapters.merged(self.network):
            save_folder(
                folder,
                network=self.network,
                config=self.config,
                family=self.family,
                tokenizer=self.words,
                hf_config=self.hf_config,
                generation=self.generation,
                dtype=dtype,
                overwrite=overwrite,
            )
        return folder

    def prepare(self, precision: str = "auto") -> LanguageModel:
        """Make it fast for generation, in place.

        Adapters are merged. On a CPU, a decoder's weights that came in four bits are kept in four bits; answers may
        then differ in the last digits of a probability, and so, rarely, in a word. Encoders stay as they are there.

        Args:
            precision: of the rest: "float32", "bfloat16", or "auto": whichever this processor multiplies faster.

        Returns:
            Itself. It can generate and score, but no longer be trained or saved.
        """
        chosen, _ = machine.choose_precision(precision, self.device.type)
        adapters.merge(self.network)
        self.network.eval().requires_grad_(False)
        if self.device.type == "cpu":
            if self.config.architecture == "decoder":
                make_fast(self.network, chosen)
            else:
                widen(self.network)
        elif chosen != "float32":
            self.network.to(dtype_of(chosen))
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.network.device

    def _answer(self, ids: list[int], settings: SamplingSettings, streaming: bool) -> str | Iterator[str]:
        pieces = stream(self.stepper(), self.tokenizer, ids, settings, self.rules)
        return pieces if streaming else "".join(pieces)
