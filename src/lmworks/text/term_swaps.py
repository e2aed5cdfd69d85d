"""Texts in which terms are exchanged for their counterparts: he for she, nurse for doctor, Anna for Mehmet.

Each pair has a first and a second term. A text that has any of them is written twice, with the first terms alone and
with the second ones alone, so that the two differ in nothing else. Knows no file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

GENDER = (
    ("he", "she"), ("him", "her"), ("his", "her"), ("himself", "herself"), ("man", "woman"), ("men", "women"),
    ("boy", "girl"), ("boys", "girls"), ("father", "mother"), ("son", "daughter"), ("brother", "sister"),
    ("brothers", "sisters"), ("husband", "wife"), ("uncle", "aunt"), ("king", "queen"), ("gentleman", "lady"),
    ("mr", "mrs"), ("male", "female"), ("actor", "actress"), ("waiter", "waitress"), ("dad", "mom"),
)  # fmt: skip
"""English terms for men and women."""


class Swapped(NamedTuple):
    """A text with the first terms, and with the second ones.

    Attributes:
        number: of the text among those that were given.
        first, second: the text, written both ways.
    """

    number: int
    first: str
    second: str


def swap_terms(texts: Sequence[str], pairs: Sequence[tuple[str, str]] = GENDER) -> tuple[list[Swapped], int]:
    """The texts that have a term, each written both ways.

    Whole words are exchanged; a capital at the beginning, and capitals alone, stay. A term that belongs to several
    pairs (her: him or his) cannot be exchanged back.

    Args:
        texts: any texts.
        pairs: first and second terms.

    Returns:
        These texts, and the number of those that were left out, since a term of theirs belongs to several pairs.
    """
    to_first, to_second = ({pair[1 - side].lower(): pair[side] for pair in pairs} for side in (0, 1))
    counts = Counter(term.lower() for pair in pairs for term in dict.fromkeys(pair))
    pattern = _pattern([term for pair in pairs for term in pair])
    swapped, ambiguous = [], 0
    for number, text in enumerate(texts):
        found = {match[0].lower() for match in pattern.finditer(text)}
        if not found:
            continue
        if any(counts[term] > 1 for term in found):
            ambiguous += 1
            continue
        first = pattern.sub(lambda match: _exchange(match[0], to_first), text)
        second = pattern.sub(lambda match: _exchange(match[0], to_second), text)
        swapped.append(Swapped(number, first, second))
    return swapped, ambiguous


def _exchange(word: str, counterparts: dict[str, str]) -> str:
    """The counterpart of a word, in its case; the word itself where it is on the right side already."""
    other = counterparts.get(word.lower())
    if other is None:
        return word
    if word.isupper() and sum(map(str.isalpha, word)) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


def _pattern(terms: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(set(terms), key=lambda term: (-len(term), term))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
