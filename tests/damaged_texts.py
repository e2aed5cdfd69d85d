"""Sentences of Python's documentation, and what a poor model might have written in their place."""

from __future__ import annotations

import random
import re
from pydoc_data.topics import topics

SENTENCE = re.compile(r"(?<=\n\n)[A-Z][^\n]{20,}(?:\n[^\n]+)*?\.(?=\n\n)")


def sentences(count: int) -> list[str]:
    """Paragraphs of the documentation, each as one line."""
    found = [" ".join(text.split()) for topic in topics.values() for text in SENTENCE.findall(topic)]
    return list(dict.fromkeys(found))[:count]


def damaged(texts: list[str], seed: int, share: float = 0.2) -> list[str]:
    """The texts with words left out, repeated, exchanged, in another case; a few are cut or empty."""
    dice = random.Random(seed)
    return [_damaged(text, dice, share) for text in texts]


def _damaged(text: str, dice: random.Random, share: float) -> str:
    words: list[str] = []
    for word in text.split():
        kind = dice.random() / share
        if kind < 0.3:
            continue
        words.append(word.upper() if kind < 0.5 else word[::-1] if kind < 0.7 else word)
        if 0.7 <= kind < 1:
            words.append(word)
    if dice.random() < share / 2:
        words = words[: dice.randrange(len(words) + 1)]
    return " ".join(words)


def relabelled(labels: list[str], seed: int, share: float = 0.3) -> list[str]:
    """Labels of which a share is another one."""
    dice = random.Random(seed)
    names = sorted(set(labels))
    return [dice.choice(names) if dice.random() < share else label for label in labels]
