"""Texts changed as people and keyboards change them: typing errors, upper case, lower case. Knows no file."""

from __future__ import annotations

import hashlib
import re

import numpy as np

RATE = 0.1
"""The share of words that get a typing error; one word at least does."""
LEAST_LETTERS = 4
_WORD = re.compile(rf"[^\W\d_]{{{LEAST_LETTERS},}}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    sign: "".join(row[place + step] for step in (-1, 1) if 0 <= place + step < len(row))
    for row in _ROWS
    for place, sign in enumerate(row)
}
"""The keys beside a letter on a keyboard with the English layout."""
PERTURBATIONS = ("typos", "upper case", "lower case")


def perturb(text: str, name: str, seed: int = 0) -> str:
    """A text after one of PERTURBATIONS.

    Args:
        text: any text.
        name: of the perturbation.
        seed: of typing errors; the same text and seed give the same ones.
    """
    if name == "typos":
        return typos(text, seed=seed)
    return text.upper() if name == "upper case" else text.lower()


def typos(text: str, rate: float = RATE, seed: int = 0) -> str:
    """A text with typing errors in some of its words of LEAST_LETTERS letters or more: two letters exchanged, one left
    out, one written twice, or a neighbouring key.

    Args:
        text: any text.
        rate: the share of these words.
        seed: the same text and seed give the same errors.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    digest = hashlib.sha256(f"{seed} {text}".encode("utf-8", errors="replace")).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    chosen = random.choice(len(words), max(1, round(rate * len(words))), replace=False)
    for number in sorted(chosen.tolist(), reverse=True):  # from the end, so that places stay
        begin, end = words[number].span()
        text = text[:begin] + _mistyped(text[begin:end], random) + text[end:]
    return text


def _mistyped(word: str, random: np.random.Generator) -> str:
    """A word with one error, which is never the word itself."""
    place = int(random.integers(1, len(word) - 1))
    pair = word[place] + word[place + 1]
    near = NEIGHBOURS.get(word[place].lower(), "")
    error = int(random.integers(4))
    if error == 0 and pair[0] != pair[1]:
        return word[:place] + pair[::-1] + word[place + 2 :]
    if error == 1 and near:
        return word[:place] + near[int(random.integers(len(near)))] + word[place + 1 :]
    if error == 2:
        return word[:place] + word[place] + word[place:]
    return word[:place] + word[place + 1 :]
