"""What a head says of the words of a text: a tag each, and the entities that these tags make.

Shapes: W words, N of them with a token that the head reads, C tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmworks.data.word_pieces import Pieces, Words
from lmworks.evaluate.outputs import probabilities as probabilities_of
from lmworks.model.config import HeadConfig
from lmworks.model.head_requests import labels_of
from lmworks.text.tags import INSIDE, OUTSIDE, Span, entities, split_tag


class Entity(NamedTuple):
    """A part of a text that has a label.

    Attributes:
        text: its characters.
        label: its type.
        start, end: where it stands: its first character, and the one after its last.
        probability: mean probability of the tags of its words.
    """

    text: str
    label: str
    start: int
    end: int
    probability: float


class TagsOfWords(NamedTuple):
    """Tags of the words of a text.

    Attributes:
        tags: W.
        probabilities: (W,) of each of them.
    """

    tags: list[str]
    probabilities: np.ndarray


class TaggedText(NamedTuple):
    """A text with the tags of its words.

    Attributes:
        words: of the text.
        tags: of each word.
        probabilities: of each tag.
        entities: what these tags make of it.
    """

    words: Words
    tags: list[str]
    probabilities: list[float]
    entities: list[Entity]


def tags_of(logits: np.ndarray, pieces: Pieces, head: HeadConfig) -> TagsOfWords:
    """The likeliest tag of each word.

    A word that shares its first token with the word before it goes on with that word's tag; one that was not read,
    since the text is too long or the tokenizer leaves it out, is O.

    Args:
        logits: (N, C) of the words that have a token, in order; of those at the end that were cut off there are none.
        pieces: tokens of the text.
        head: whose tags they are.
    """
    labels = labels_of(head)
    outside = OUTSIDE if OUTSIDE in labels else labels[0]
    shares = probabilities_of(logits, head)
    best = shares.argmax(axis=1)
    tags: list[str] = []
    probabilities = np.ones(len(pieces.firsts))
    read = 0
    for number, (first, leads) in enumerate(zip(pieces.firsts.tolist(), pieces.leads.tolist(), strict=True)):
        if leads and read < len(best):
            tags.append(labels[best[read]])
            probabilities[number] = shares[read, best[read]]
            read += 1
        elif first >= 0 and not leads:
            tags.append(_continued(tags[-1], labels))
            probabilities[number] = probabilities[number - 1]
        else:
            tags.append(outside)
    return TagsOfWords(tags, probabilities)


def _continued(tag: str, labels: Sequence[str]) -> str:
    """The tag of a word that goes on with what the word before it is."""
    prefix, kind = split_tag(tag)
    return f"{INSIDE}{kind}" if prefix == "B" and f"{INSIDE}{kind}" in labels else tag


def with_entities(words: Words, tagged: TagsOfWords) -> TaggedText:
    """A text with its entities."""
    found = [_entity(words, span, tagged.probabilities) for span in entities(tagged.tags)]
    return TaggedText(words, tagged.tags, tagged.probabilities.tolist(), found)


def _entity(words: Words, span: Span, probabilities: np.ndarray) -> Entity:
    begin, end = characters_of(words, span)
    return Entity(words.text[begin:end], span.kind, begin, end, float(probabilities[span.first : span.end].mean()))


def characters_of(words: Words, span: Span) -> tuple[int, int]:
    """Where an entity of words stands in its text."""
    last = span.end - 1
    return words.starts[span.first], words.starts[last] + len(words.tokens[last])


def mark_entities(words: Words, tags: Sequence[str]) -> str:
    """A text with its entities in brackets: ``in [Berlin location]``."""
    parts, at = [], 0
    for span in entities(tags):
        begin, end = characters_of(words, span)
        parts.append(f"{words.text[at:begin]}[{words.text[begin:end]} {span.kind}]")
        at = end
    return "".join([*parts, words.text[at:]])
