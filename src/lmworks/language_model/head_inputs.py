"""Texts, and pairs of texts, as models with a head read them: in training, in evaluation and when they predict.

An encoder and a decoder read a text with the tokenizer's special tokens around it. The encoder of an encoder-decoder
reads the same, and its decoder reads it again, shifted by one token, as BART's and T5's classes do (Lewis et al. 2020,
section 3.1). Knows no task and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example, Labels
from lmworks.data.documents import Frame, frame_of, frame_with_end
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.text.tokenizer import Tokenizer

PAIR_SEPARATOR = "\n"
"""Between two texts of a model whose tokenizer puts nothing between them."""


@dataclass(frozen=True)
class HeadInputs:
    """How texts become the input of a model with a head.

    Attributes:
        frame: special tokens around a text and between two.
        has_types: whether tokens of a second text have a type of their own.
        decoder_start: what the decoder of an encoder-decoder reads first; None for other models.
        context: most tokens of an input.
    """

    frame: Frame
    has_types: bool
    decoder_start: int | None
    context: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None, context: int) -> HeadInputs:
        """The inputs of a model.

        Args:
            tokenizer: the model's.
            model: its config.
            decoder_start: of an encoder-decoder, where the model's files say it; else its padding or end token.
            context: most tokens of an input.

        Raises:
            InputError: the tokenizer lacks a token, or the context has no room for a text.
        """
        frame, start = frame_of(tokenizer), None
        if model.architecture == "encoder-decoder":
            frame = frame_with_end(tokenizer, "a model with a head")
            start = next((token for token in (decoder_start, tokenizer.pad_id) if token is not None), frame.closing[-1])
        context = min(context, model.max_position_embeddings)
        if context <= len(frame) + len(frame.middle) + 1:
            raise InputError(f"a context of {context} tokens has no room for a text", "data.max_tokens", "raise it")
        return cls(frame, model.type_vocab_size > 1, start, context)

    def room(self, is_pair: bool) -> int:
        """Tokens that remain for a text, or for both texts of a pair."""
        return self.context - len(self.frame) - (len(self.frame.middle) if is_pair else 0)

    def encode(self, tokenizer: Tokenizer, inputs: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Token ids of the one or two texts of each input, without special tokens: what :meth:`example` takes.

        Where the tokenizer puts nothing between two texts, both are encoded as one with PAIR_SEPARATOR between them.
        """
        parts = [
            list(texts) if self.frame.middle or len(texts) < 2 else [PAIR_SEPARATOR.join(texts)] for texts in inputs
        ]
        ids = iter(tokenizer.encode_many([text for texts in parts for text in texts]))
        return [[next(ids) for _ in texts] for texts in parts]

    def example(self, parts: Sequence[Sequence[int]], place: str = "") -> Example:
        """The input of one or two texts, without labels; what is too long is cut at the end of the longer text.

        Args:
            parts: ids of each text without special tokens.
            place: of the row.
        """
        lengths = [len(part) for part in parts]
        excess = max(0, sum(lengths) - self.room(len(parts) > 1))
        kept = _shortened(lengths, excess)
        texts = [list(part[:length]) for part, length in zip(parts, kept, strict=True)]
        first = [*self.frame.opening, *texts[0]]
        second = [*self.frame.middle, *texts[1]] if len(texts) > 1 else []
        ids = np.array([*first, *second, *self.frame.closing], dtype=np.int32)
        types = None
        if self.has_types and second:
            types = np.zeros(len(ids), dtype=np.int32)
            types[len(first) + len(self.frame.middle) :] = 1
        nothing = np.zeros(len(ids), dtype=bool)
        example = Example(ids, nothing, place, dropped=excess, targets=np.zeros(len(ids), np.int32), types=types)
        if self.decoder_start is None:
            return example
        shifted = np.concatenate([[self.decoder_start], ids[:-1]]).astype(np.int32)
        return replace(example, ids=shifted, source=ids, types=None)

    def with_label(self, example: Example, head: HeadConfig, label: int | np.ndarray) -> Example:
        """The example with a label of the whole text: its class, or (C,) labels or values."""
        labels: Mapping[str, Labels] = {head.name: Labels.of_text(label, head.places(len(example))[0])}
        return replace(example, labels=labels)


def _shortened(lengths: Sequence[int], excess: int) -> list[int]:
    """Lengths of one or two texts without ``excess`` tokens, taken from the longer one first."""
    if len(lengths) == 1:
        return [lengths[0] - excess]
    longer = 0 if lengths[0] >= lengths[1] else 1
    first = min(excess, abs(lengths[0] - lengths[1]))
    kept = list(lengths)
    kept[longer] -= first
    rest = excess - first
    kept[longer] -= rest - rest // 2
    kept[1 - longer] -= rest // 2
    return kept
