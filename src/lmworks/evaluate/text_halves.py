"""Whether an encoder still knows which texts belong together: the halves of a text are to be each other's nearest among
the halves of all texts. Any encoder can be asked this, whatever head it has."""

from __future__ import annotations

import numpy as np


def split_in_half(text: str) -> tuple[str, str]:
    """A text as two parts of about the same length, divided between two words.

    Raises:
        ValueError: it has one word or none.
    """
    text = text.strip()
    middle = len(text) // 2
    before, after = text.rfind(" ", 0, middle + 1), text.find(" ", middle)
    places = [place for place in (before, after) if place > 0]
    if not places:
        raise ValueError("a text of one word has no halves")
    place = min(places, key=lambda place: abs(place - middle))
    return text[:place].rstrip(), text[place:].lstrip()


def are_mutually_nearest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each text, whether its halves are each other's nearest by cosine among all halves of all texts.

    Args:
        first, second: (N, E) vectors of the halves.

    Returns:
        (N,) bool.
    """
    count = len(first)
    vectors = np.concatenate([first, second]).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(1)
    texts = np.arange(count)
    return (nearest[:count] == texts + count) & (nearest[count:] == texts)
