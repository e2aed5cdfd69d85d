"""A model as benchmarks ask it: how likely options are, texts, vectors, labels; and which of these it cannot give.

Imports no torch by itself: what a decoder in the native engine is asked, it answers there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.documents import frame_of
from lmworks.evaluate import progress
from lmworks.evaluate.text_windows import Ids, signature_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import Reply, complete
from lmworks.model.head_requests import SEQUENCE, TOKENS, labels_of
from lmworks.model.sizes import key_value_bytes
from lmworks.text.tokenizer import Tokenizer

CACHE_BYTES = 1 << 28  # largest KV cache of the texts that are written at a time
GENERATED_AT_ONCE = 64


class EvaluatedModel:
    """A language model that is evaluated.

    Args:
        model: opened, with the methods of ``LanguageModel`` or ``NativeModel``.
        open_for_vectors: opens it for vectors, where this one gives none: a decoder in the native engine.

    Attributes:
        source: what the person named.
    """

    def __init__(self, model: Any, open_for_vectors: Callable[[], Any] | None = None) -> None:
        if hasattr(model, "ngram"):
            hint = "lmworks score measures how well it predicts texts"
            raise InputError("is an n-gram model, which benchmarks do not ask", model.source, hint)
        self.model, self._open_for_vectors = model, open_for_vectors
        self.source: str = model.source
        self._notes: list[str] = []

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids."""
        return self.model.tokenizer

    @property
    def architecture(self) -> str:
        """Encoder, decoder or encoder-decoder."""
        return self.model.architecture

    @property
    def context(self) -> int | None:
        """Tokens of a prompt with what follows it; None: any number."""
        return self.model.context

    @property
    def signature(self) -> str:
        """What computes, and the formats of the weights."""
        if getattr(self.model, "encoder_weights", None) is not None:
            from lmworks.generate.native_weights import formats_of

            return signature_of("native", formats_of(self.model.encoder_weights))
        return self.model.signature

    @property
    def likelihood(self) -> str:
        """The kind of likelihood that it gives options: "likelihood" of a decoder, "pseudo-likelihood" of a masked
        encoder; empty: none."""
        if self.architecture == "decoder":
            return "likelihood"
        is_masked = self.architecture == "encoder" and self.model.config.language_head
        return "pseudo-likelihood" if is_masked and self.tokenizer.mask_id is not None else ""

    @property
    def frame_tokens(self) -> int:
        """Special tokens that stand around every text of an encoder."""
        return len(frame_of(self.tokenizer)) if self.architecture == "encoder" else 0

    @property
    def writes(self) -> bool:
        """Whether it writes texts."""
        return self.architecture != "encoder" and self.model.config.language_head

    def classifier_labels(self, texts: int) -> list[str]:
        """The labels of its head for inputs of so many texts, or those of single texts that a run taught it to write;
        empty without any."""
        if not texts:
            return []
        if (form := self.model.input_format) is not None and form.kind == "label":
            return list(form.labels) if texts == 1 else []
        head = self.model.config.head(SEQUENCE)
        return labels_of(head) if head is not None and head.problem == "single_label" else []

    @property
    def gives_values(self) -> bool:
        """Whether its head gives texts a value."""
        head = self.model.config.head(SEQUENCE)
        return head is not None and head.problem == "regression" and head.size == 1

    @property
    def tags(self) -> list[str]:
        """The tags of its head for words; empty without one."""
        head = self.model.config.head(TOKENS)
        return labels_of(head) if head is not None else []

    def choice_likelihoods(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[np.ndarray]:
        """log p of each choice after its prompt, by the kind of :attr:`likelihood`."""
        progress.begin("options", sum(map(len, choices)))
        if self.architecture == "decoder":
            return self.model.choice_likelihoods(prompts, choices)
        from lmworks.evaluate.pseudo_likelihood import choice_pseudo_likelihoods

        return choice_pseudo_likelihoods(self.model.network, self.tokenizer, prompts, choices)

    def are_greedy(self, prompts: Sequence[Ids], ends: Sequence[Ids]) -> list[bool]:
        """Whether each end is what the model writes after its prompt where it always takes the likeliest token."""
        written = self.write(prompts, SamplingSettings(max_tokens=max(map(len, ends))))
        return [reply.ids[: len(end)] == list(end) for reply, end in zip(written, ends, strict=True)]

    def write(self, prompts: Sequence[Ids], settings: SamplingSettings) -> list[Reply]:
        """The text that follows each prompt, some at a time, in the order given."""
        stepper, rules = self.model.stepper(), self.model.rules
        replies: dict[int, Reply] = {}
        progress.begin("texts", len(prompts))
        for group in self._groups([len(prompt) for prompt in prompts], settings.max_tokens):
            ids = [prompts[index] for index in group]
            replies.update(zip(group, complete(stepper, self.tokenizer, ids, settings, rules), strict=True))
            progress.report(len(group))
        return [replies[index] for index in range(len(prompts))]

    def predict(self, inputs: Sequence[Sequence[str]]) -> list[Any]:
        """What its head, or the labels that it writes, say of inputs of one or two texts each."""
        progress.begin("rows", len(inputs))
        single = [texts[0] if len(texts) == 1 else list(texts) for texts in inputs]
        return self.model.predict(single)

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[Any]:
        """The tags that its head gives the words of sentences."""
        progress.begin("sentences", len(sentences))
        return self.model.tag_words(sentences)

    def head_ids(self, inputs: Sequence[Sequence[str]]) -> list[list[int]]:
        """The ids that a head reads of inputs; empty where labels are written."""
        if self.model.config.head(SEQUENCE) is None:
            return [[] for _ in inputs]
        from lmworks.language_model.head_inputs import HeadInputs

        network, start = self.model.network, self.model.rules.decoder_start_token_id
        read = HeadInputs.of(self.tokenizer, network.config, start, network.max_text_tokens)
        examples = map(read.example, read.encode(self.tokenizer, inputs))
        return [(example.ids if example.source is None else example.source).tolist() for example in examples]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(n, E) vectors of length 1; texts that are longer than the model reads are cut, which is noted."""
        from lmworks.embeddings.vectors import embed_texts

        made = embed_texts(self._vector_model, list(texts), normalize=True)
        if made.cut:
            self._notes.append(f"{made.cut:,} of {len(texts):,} texts cut to {made.limit} tokens for their vectors")
        return made.matrix

    def taken_notes(self) -> list[str]:
        """What became of texts since the last call, as sentences."""
        notes, self._notes = self._notes, []
        return notes

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids that :meth:`vectors` reads of each text."""
        from lmworks.generate.text_vectors import pooling_of, text_ids

        pooling = pooling_of(own=self._vector_model.pooling)
        context = self._vector_model.text_states().context
        limit = pooling.max_tokens or context
        return text_ids(context, self.tokenizer, list(texts), pooling, limit)[0]

    @cached_property
    def _vector_model(self) -> Any:
        """What computes vectors: the model, or the same opened for them."""
        if hasattr(self.model, "text_states"):
            return self.model
        if self._open_for_vectors is None:
            raise InputError("this model was not opened for vectors", self.source, "open it by lmworks.load")
        return self._open_for_vectors()

    def _groups(self, lengths: Sequence[int], new: int) -> list[list[int]]:
        """Indices of prompts, neighbours in length together, as many as fit into a KV cache of CACHE_BYTES."""
        token_bytes = key_value_bytes(self.model.config, 1)
        groups: list[list[int]] = []
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            room = CACHE_BYTES // ((lengths[groups[-1][0]] + new) * token_bytes) if groups else 0
            if not groups or len(groups[-1]) >= min(max(room, 1), GENERATED_AT_ONCE):
                groups.append([])
            groups[-1].append(index)
        return groups
