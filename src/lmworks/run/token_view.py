"""An example token by token: what the model sees, what carries loss, what was hidden. Knows no layout.

``lmworks data show`` prints it, the studio draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lmworks.data.batch import NEXT_SENTENCE, SPAN_END, SPAN_START, Example
from lmworks.model.head_requests import SPANS, TOKENS
from lmworks.text.tokenizer import Tokenizer

GIVEN, LOSS, ANSWER, TAG = "given", "loss", "answer", "tag"
FATES = ("masked", "replaced", "left")
"""What may become of a token that is hidden."""
CLASSES = {NEXT_SENTENCE: ("the second text follows the first", "the second text does not follow the first")}
"""What the classes of a head mean, where they have no names of their own."""


class Token(NamedTuple):
    """One token that the model reads.

    Attributes:
        id: in the vocabulary.
        state: GIVEN; LOSS: it is predicted and learned; ANSWER: part of the span to find; TAG: its tag is learned; or
            one of FATES.
        target: of a hidden token the id that it had; of a tagged one its tag.
    """

    id: int
    state: str = GIVEN
    target: int | str | None = None


class TokenText(NamedTuple):
    """A text of an example.

    Attributes:
        title: "source", "target", "type 0" ...; empty where there is one text alone.
        type: kind of its tokens, of texts with hidden tokens or labels by token; None of others.
        tokens: all of them.
    """

    title: str
    type: int | None
    tokens: list[Token]


class TokenView:
    """Shows the examples of a tokenizer.

    Args:
        tokenizer: writes ids as pieces.
        labels: names of the outputs of each head.
    """

    def __init__(self, tokenizer: Tokenizer, labels: Mapping[str, Sequence[str]] | None = None) -> None:
        self.tokenizer, self.labels = tokenizer, {**CLASSES, **(labels or {})}
        self._spaced = _is_spaced(tokenizer)

    def piece(self, token: int) -> str:
        """A token as it stands in a line: with a space before it, where the tokenizer's tokens hold none."""
        piece = self.tokenizer.piece(token)
        return f" {piece}" if self._spaced and not piece.startswith("##") else piece

    def labels_of(self, example: Example) -> list[tuple[str, str]]:
        """The labels of a whole example by head, in words; and the span to find."""
        lines = []
        for head, labels in example.labels.items():
            names = self.labels.get(head)
            for label in labels.classes.tolist() if len(labels.places) == 1 and head != TOKENS else []:
                said = names[label] if names and labels.classes.ndim == 1 else _numbers(label)
                lines.append((head.replace("_", " "), said))
        if SPANS in example.labels:
            lines.append((SPANS.replace("_", " "), self._span_said(example)))
        return lines

    def texts(self, example: Example) -> list[TokenText]:
        """The texts of a sampled example."""
        if example.targets is not None:
            return self._with_targets(example)
        target = TokenText("" if example.source is None else "target", None, _predicted(example.ids, example.loss))
        if example.source is None:
            return [target]
        return [TokenText("source", None, [Token(number) for number in example.source.tolist()]), target]

    def _with_targets(self, example: Example) -> list[TokenText]:
        """A text with hidden tokens or with labels by token, in parts by the kind of its tokens."""
        types = np.zeros(len(example), dtype=int) if example.types is None else example.types
        tokens = self._tokens_with_targets(example)
        return [
            TokenText(
                "" if example.types is None else f"type {kind}",
                int(kind),
                [tokens[place] for place in np.flatnonzero(types == kind).tolist()],
            )
            for kind in np.unique(types)
        ]

    def _tokens_with_targets(self, example: Example) -> list[Token]:
        assert example.targets is not None
        (first, last), ids, tags = span_of(example), _ids_of(example).tolist(), self._tags_of(example)
        tokens = []
        for place in range(len(example)):
            target = int(example.targets[place])
            if example.loss[place]:
                tokens.append(Token(ids[place], fate(ids[place], target, self.tokenizer), target))
            elif place in tags:
                tokens.append(Token(ids[place], TAG, tags[place]))
            else:
                tokens.append(Token(ids[place], ANSWER if first <= place <= last else GIVEN))
        return tokens

    def _tags_of(self, example: Example) -> dict[int, str]:
        """Places of tokens that carry a tag -> the tag; none of an example without a head for tokens."""
        if TOKENS not in example.labels:
            return {}
        labels, names = example.labels[TOKENS], self.labels.get(TOKENS)
        pairs = zip(labels.places.tolist(), labels.classes.tolist(), strict=True)
        return {place: names[number] if names else str(number) for place, number in pairs}

    def _span_said(self, example: Example) -> str:
        """What a window points to, in words."""
        first, last = span_of(example)
        if last == 0:
            return "this window does not hold the answer, and points to its first token"
        said = self.tokenizer.decode(_ids_of(example)[first : last + 1].tolist())
        return f"tokens {first} to {last}, {said.strip()!r}"


def size_of(example: Example) -> str:
    """The tokens of an example, those that carry loss, and those that were cut, in words."""
    labelled = sum(labels.weight for labels in example.labels.values())
    sizes = f"{len(example)} tokens, {example.num_targets or labelled} with loss"
    if example.source is not None:
        parts = f"{len(example.source)} tokens of source, {len(example)} of the decoder"
        sizes = f"{parts}, {example.num_targets} with loss"
    return f"{sizes}, cut by {example.dropped}" if example.dropped else sizes


def span_of(example: Example) -> tuple[int, int]:
    """The first and the last token of the answer; (0, 0) of a window without it, (0, -1) without a head for spans."""
    labels = example.labels.get(SPANS)
    if labels is None:
        return 0, -1
    first, last = (int(labels.places[(labels.classes & mark) > 0][0]) for mark in (SPAN_START, SPAN_END))
    return first, last


def fate(input_id: int, target_id: int, tokenizer: Tokenizer) -> str:
    """What became of a hidden token: one of FATES."""
    return "masked" if input_id == tokenizer.mask_id else "left" if input_id == target_id else "replaced"


def _predicted(ids: np.ndarray, loss: np.ndarray) -> list[Token]:
    """Tokens of which each is predicted from those before; the first never carries loss: nothing stands before it."""
    marks = [False, *loss[1:].tolist()]
    return [Token(number, LOSS if mark else GIVEN) for number, mark in zip(ids.tolist(), marks, strict=False)]


def _ids_of(example: Example) -> np.ndarray:
    """The tokens whose places have labels: an encoder-decoder with a head for spans reads them one place later."""
    return example.source if example.source is not None and SPANS in example.labels else example.ids


def _numbers(label: int | list[float]) -> str:
    """A label without a name, the values of a regression, or 0 and 1 for each of several labels."""
    return ", ".join(f"{value:.6g}" for value in label) if isinstance(label, list) else str(label)


def _is_spaced(tokenizer: Tokenizer) -> bool:
    """Whether the tokens hold no spaces: decoding puts them between two of them."""
    special = set(tokenizer.specials.values())
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.piece(token)
        if token not in special and piece.isalnum():
            return " " in tokenizer.decode([token, token]).strip()
    return False
