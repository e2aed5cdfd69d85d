"""Batch: the interface between tasks and losses.

Causal, masked, span and instruction training differ only in the numbers inside; classification heads have labels
by their names. A packed batch is one flat row of whole documents; a padded batch has one document per row. In both,
tokens attend to each other when their segments are equal; segment 0 is padding. In an encoder-decoder the decoder's
document attends to the source with the same segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

LANGUAGE = "language"  # the name of the language head's loss; no other head has it
CONTRASTIVE = "contrastive"  # the name of the loss of vectors of texts (model/contrastive), which has no head
NEXT_SENTENCE = "next_sentence"  # the head of BERT and ALBERT for pairs of sentences; class 0: the second follows


SPAN_START, SPAN_END = 1, 2  # marks of the tokens where a span starts and ends, as bits of a label


class Labels(NamedTuple):
    """The labels of one document for one head.

    Attributes:
        places: (N,) int64 index of the tokens that the head reads.
        classes: (N,) int64 the right class at each of them; (N, C) float32 where the head gives several labels (0 or
            1) or values; of a span (N,) int64 marks of all tokens among which its ends are, see SPAN_START; of texts to
            compare (CONTRASTIVE) the role of the text whose vector the token is a part of.
        weight: of the document in the loss: as many as it has labels, one for a span.
        scale: of the cosines of texts to compare.
    """

    places: np.ndarray
    classes: np.ndarray
    weight: int
    scale: float = 1.0

    @classmethod
    def of_text(cls, label: int | np.ndarray, place: int = 0) -> Labels:
        """One class for the whole text, read at one token; or (C,) labels or values."""
        if isinstance(label, np.ndarray):
            return cls(np.array([place], dtype=np.int64), label[None].astype(np.float32), 1)
        return cls(np.array([place], dtype=np.int64), np.array([label], dtype=np.int64), 1)

    @classmethod
    def of_tokens(cls, places: np.ndarray, classes: np.ndarray) -> Labels:
        """(N,) classes of tokens."""
        return cls(places.astype(np.int64), classes.astype(np.int64), len(places))

    @classmethod
    def of_span(cls, tokens: np.ndarray, start: int, end: int) -> Labels:
        """A span from token ``start`` to token ``end``, both inside; ``tokens``: (N,) those that it may lie among."""
        marks = np.where(tokens == start, SPAN_START, 0) | np.where(tokens == end, SPAN_END, 0)
        return cls(tokens.astype(np.int64), marks.astype(np.int64), 1)


@dataclass(frozen=True)
class Example:
    """One document as tokens: what tasks build and packing consumes.

    Without `targets` each place predicts the next token (causal models and decoders): `loss` marks the tokens that are
    predicted. With `targets` each place predicts its own target (encoders): `loss` marks these places.

    Attributes:
        ids: (T,) int32 token ids; of the decoder, where there are two stacks.
        loss: (T,) bool; True where the prediction of this token carries loss (aligned with ids, not shifted).
        place: ``file:line`` of the row it came from.
        bytes: UTF-8 bytes of the text whose tokens carry loss (for bits per byte); 0: not known.
        dropped: tokens that were cut off because the document was too long.
        targets: (T,) int32 id to predict at each place itself; None: each place predicts the next token.
        source: (S,) int32 ids that the encoder of an encoder-decoder reads; None: there is none.
        types: (T,) int32 kind of each token (0 first, 1 second sentence); None: all 0.
        labels: of classification heads, by their names.
        origin: further data from which the task samples (the document of a window, words, other sentences).
        lengths: tokens of each of several texts in it, which do not attend to one another; (): it is one text.
    """

    ids: np.ndarray
    loss: np.ndarray
    place: str = ""
    bytes: int = 0
    dropped: int = 0
    targets: np.ndarray | None = None
    source: np.ndarray | None = None
    types: np.ndarray | None = None
    labels: Mapping[str, Labels] = field(default_factory=dict)
    origin: object | None = None
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> int:
        """Tokens of the source and its own."""
        return len(self.ids) + (len(self.source) if self.source is not None else 0)

    @property
    def width(self) -> int:
        """Its own tokens that pass through the network: without targets the last one predicts nothing."""
        return len(self.ids) if self.targets is not None else max(1, len(self.ids) - 1)

    @property
    def size(self) -> int:
        """Tokens that pass through the network: those of the source and its own."""
        return self.width + (len(self.source) if self.source is not None else 0)

    def parts(self) -> list[object]:
        """Everything that a model sees of it and is asked for: what a hash of an example covers."""
        heads = {name: (labels.places, labels.classes) for name, labels in sorted(self.labels.items())}
        parts: list[object] = [self.ids, self.loss, self.targets, self.source, self.types, heads, self.bytes]
        return [*parts, self.lengths] if self.lengths else parts

    @property
    def num_targets(self) -> int:
        """Tokens whose prediction carries loss; without targets nothing predicts the first token."""
        return int((self.loss if self.targets is not None else self.loss[1:]).sum())


ExampleTransform = Callable[[Example, "np.random.Generator"], Example]
"""The random part of a task, as dynamic masking: the same example gives another one at each call. (Quoted, since
numpy.random is slow to import, and only training draws.)"""


def count_labels(examples: Iterable[Example]) -> Counter[str]:
    """By head, the weight of the labels that these examples have for it."""
    counts: Counter[str] = Counter()
    for example in examples:
        counts.update({head: labels.weight for head, labels in example.labels.items()})
    return counts


class HeadLabels(NamedTuple):
    """The labels of a batch for one head.

    Attributes:
        places: (N,) int64 index, in the flattened ids, of the tokens that the head reads.
        classes: (N,) int64 or (N, C) float32, as in Labels.
        weight: sum of the documents' weights.
        scale: as in Labels.
    """

    places: torch.Tensor
    classes: torch.Tensor
    weight: int
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """What the encoder of an encoder-decoder reads: int64, shape (B, S).

    Attributes:
        ids: token ids.
        positions: position inside its own document, from 0.
        segments: number of the document of the decoder's row that reads it, from 1; 0 is padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Token ids and what to predict at each place, all of shape (B, T) but where said.

    Attributes:
        ids: int64 token ids.
        targets: int64 id to predict at each place (for causal models: the next token's).
        weights: float32 weight of each place's loss; 0 where nothing is to be predicted.
        positions: int64 position inside its own document, from 0.
        segments: int64 document number inside its row, from 1; 0 is padding.
        tokens: number of tokens that are not padding, with those of the source.
        types: int64 kind of each token; None: all 0.
        source: input of the encoder; None: there is no encoder.
        labels: of classification heads, by their names; a head without labels in this batch is not among them.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    tokens: int
    types: torch.Tensor | None = None
    source: Source | None = None
    labels: Mapping[str, HeadLabels] = field(default_factory=dict)

    def document_of(self, places: torch.Tensor) -> torch.Tensor:
        """(N,) places in the flattened ids -> (N,) number of the document at each, from 0."""
        return places // self.ids.shape[1] if len(self.ids) > 1 else self.segments.flatten()[places] - 1

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device == self.ids.device:
            return self

        def move(part: torch.Tensor) -> torch.Tensor:
            return part.to(device, non_blocking=True)

        source = None if self.source is None else Source(*(move(part) for part in vars(self.source).values()))
        labels = {
            name: of_head._replace(places=move(of_head.places), classes=move(of_head.classes))
            for name, of_head in self.labels.items()
        }
        tensors: dict[str, Any] = {
            field.name: move(part) for field in fields(self) if hasattr(part := getattr(self, field.name), "device")
        }
        return replace(self, source=source, labels=labels, **tensors)
