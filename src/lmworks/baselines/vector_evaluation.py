"""How good word vectors are: analogies by category, and similarities of words beside those that people gave.

Analogies: Mikolov et al. 2013a, questions-words.txt, by the sum of unit vectors (3CosAdd), the words of the question
left out. Similarities: Finkelstein et al. 2002 (WordSim-353). Upper and lower case are the same, and the first of two
words that differ in it alone, the more frequent one, stands for both, as in gensim's evaluation. Questions with a word
that has no vector are left out and counted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.baselines.word_vectors import WordVectors
from lmworks.evaluate import progress
from lmworks.evaluate.regression import pearson, spearman
from lmworks.text.plain_text import read_text, split_lines

MOST_FREQUENT = 300_000
"""Words that are evaluated, the first of the file, as in gensim's evaluation."""
AT_ONCE = 1 << 24
"""Cosines that are computed at once."""


@dataclass
class Category:
    """Analogies of one category.

    Attributes:
        name: as the file has it.
        total: its questions.
        known: those of which all four words have vectors.
        correct: those among them that are answered with the expected word.
    """

    name: str
    total: int = 0
    known: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float | None:
        """The share of the known questions that are answered; None where none is known."""
        return self.correct / self.known if self.known else None


class Analogy(NamedTuple):
    """first is to second as third is to expected, in upper case."""

    first: str
    second: str
    third: str
    expected: str


@dataclass
class Similarity:
    """Cosines of pairs of words beside similarities that people gave.

    Attributes:
        total: pairs.
        known: pairs of which both words have vectors.
        pearson, spearman: correlations over the known pairs; None where they are not defined.
    """

    total: int
    known: int
    pearson: float | None
    spearman: float | None


def published_list(name: str) -> Path:
    """A list that gensim's wheel carries as data of its tests: ``questions-words.txt``, ``wordsim353.tsv``.

    Raises:
        InputError: gensim is not installed, or without this file.
    """
    spec = importlib.util.find_spec("gensim")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "test" / "test_data" / name
        if path.is_file():
            return path
    raise InputError(f"{name} comes with gensim, which is not installed", hint="pip install 'lmworks[vectors]'")


# Analogies


def evaluate_analogies(vectors: WordVectors, path: str | Path, most_frequent: int = MOST_FREQUENT) -> list[Category]:
    """Analogies answered, by category.

    Args:
        vectors: of the words.
        path: lines ``: CATEGORY``, each followed by lines of four words: the first is to the second as the third is to
            the fourth.
        most_frequent: how many words of the vectors, the first ones, take part.

    Raises:
        InputError: the file cannot be read; names the line.
    """
    questions = list(read_analogies(path))
    rows = _rows_by_upper_case(vectors, most_frequent)
    same = np.array([rows[word.upper()] for word in vectors.words[:most_frequent]])  # (V) each word's first form
    progress.begin("analogies", sum(len(analogies) for _, analogies in questions))
    categories = []
    for name, analogies in questions:
        known = [[rows[word] for word in analogy] for analogy in analogies if all(word in rows for word in analogy)]
        progress.report(len(analogies) - len(known))
        correct = _count_correct(vectors, np.array(known, dtype=np.int64).reshape(-1, 4), same)
        categories.append(Category(name, len(analogies), len(known), correct))
    return categories


def sum_of(categories: Sequence[Category]) -> Category:
    """All categories as one."""
    return Category(
        "all",
        sum(category.total for category in categories),
        sum(category.known for category in categories),
        sum(category.correct for category in categories),
    )


def read_analogies(path: str | Path) -> Iterator[tuple[str, list[Analogy]]]:
    """The analogies of a file, in upper case, by category.

    Raises:
        InputError: the file cannot be read, or a line is neither a category nor four words.
    """
    name: str | None = None
    analogies: list[Analogy] = []
    for number, line in enumerate(split_lines(read_text(path)), 1):
        if line.startswith(":"):
            if name is not None:
                yield name, analogies
            name, analogies = line[1:].strip(), []
            continue
        words = line.upper().split()
        if not words:
            continue
        if name is None or len(words) != 4:
            fault = "four words are expected" if name is not None else "a line with a category is expected first"
            raise InputError(fault, f"{path}:{number}", 'as in ": family" and, below it, "boy girl king queen"')
        analogies.append(Analogy(*words))
    if name is None:
        raise InputError("has no analogies", str(path), 'write a line ": NAME" and, below it, lines of four words')
    yield name, analogies


def _rows_by_upper_case(vectors: WordVectors, most_frequent: int) -> dict[str, int]:
    """The first row of each word in upper case."""
    rows: dict[str, int] = {}
    for row, word in enumerate(vectors.words[:most_frequent]):
        rows.setdefault(word.upper(), row)
    return rows


def _count_correct(vectors: WordVectors, questions: np.ndarray, same: np.ndarray) -> int:
    """Of questions (n, 4) of rows, how many are answered with the last one.

    ``same`` (V) is the row that stands for all forms of a word.
    """
    unit = vectors.unit[: len(same)]
    forms: dict[int, list[int]] = {}
    for row in np.flatnonzero(same != np.arange(len(same))).tolist():
        forms.setdefault(int(same[row]), []).append(row)
    correct = 0
    size = max(1, AT_ONCE // len(unit))
    for begin in range(0, len(questions), size):
        part = questions[begin : begin + size]
        cosines = (unit[part[:, 1]] - unit[part[:, 0]] + unit[part[:, 2]]) @ unit.T  # up to the length of the sum
        for number, row in enumerate(part[:, :3].tolist()):
            cosines[number, row] = -np.inf
            for word in row:
                cosines[number, forms.get(word, [])] = -np.inf
        correct += int((same[cosines.argmax(axis=1)] == part[:, 3]).sum())
        progress.report(len(part))
    return correct


# Similarities


def evaluate_similarities(vectors: WordVectors, path: str | Path, most_frequent: int = MOST_FREQUENT) -> Similarity:
    """Correlation of cosines with similarities that people gave.

    Args:
        vectors: of the words.
        path: lines of two words and a number with tabs between them; lines that begin with # are left out.
        most_frequent: how many words of the vectors, the first ones, take part.

    Raises:
        InputError: the file cannot be read; names the line.
    """
    rows = _rows_by_upper_case(vectors, most_frequent)
    pairs = read_pairs(path)
    known = [(rows[a], rows[b], score) for a, b, score in pairs if a in rows and b in rows]
    if len(known) < 2:
        return Similarity(len(pairs), len(known), None, None)
    cosines = np.array([float(vectors.unit[a] @ vectors.unit[b]) for a, b, _ in known])
    scores = np.array([score for *_, score in known])
    return Similarity(len(pairs), len(known), pearson(scores, cosines), spearman(scores, cosines))


def read_pairs(path: str | Path) -> list[tuple[str, str, float]]:
    """Pairs of words in upper case with their similarities.

    Raises:
        InputError: the file cannot be read, or a line has something else.
    """
    pairs = []
    for number, line in enumerate(split_lines(read_text(path)), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("\t")]
        try:
            first, second, score = parts[0].upper(), parts[1].upper(), float(parts[2])
            if len(parts) != 3 or not first or not second or not np.isfinite(score):
                raise ValueError
        except (ValueError, IndexError):
            fault = "two words and a number are expected, with tabs between them"
            raise InputError(fault, f"{path}:{number}", "as in: tiger<tab>cat<tab>7.35") from None
        pairs.append((first, second, score))
    return pairs
