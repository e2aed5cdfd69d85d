"""fastText's own binary models: vectors of words and of their parts, so that any word has a vector.

Bojanowski et al. 2017 (Enriching Word Vectors with Subword Information): the vector of a word is the mean of its own
row and the rows of its character n-grams, which share a table by a hash of their bytes; that of a word that was not
trained on is the mean of its n-grams' rows. The layout is that of fastText 0.1 to 0.9 (versions 11 and 12): settings,
dictionary, matrix of words and n-grams, matrix of outputs. Quantized models (``.ftz``) are refused.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_file, expand_home

MAGIC, VERSION = 793712314, 12
SENTENCE_END = "</s>"
"""fastText's word for the end of a line; it has no n-grams."""
SUPERVISED = 3


class FastTextSettings(NamedTuple):
    """The settings that a model's file carries, in their order there, under fastText's names."""

    dim: int
    ws: int = 5
    epoch: int = 5
    minCount: int = 5
    neg: int = 5
    wordNgrams: int = 1
    loss: int = 2  # negative sampling
    model: int = 1  # 1: CBOW; 2: skip-gram; 3: supervised
    bucket: int = 2_000_000
    minn: int = 3
    maxn: int = 6
    lrUpdateRate: int = 100
    t: float = 1e-4


@dataclass(frozen=True)
class FastTextModel:
    """A model of fastText.

    Attributes:
        settings: as in the file.
        words: (V).
        counts: (V) how often each was met.
        word_rows: (V, E) float32.
        ngram_rows: (bucket, E) float32, of n-grams by hash.
        outputs: (V, E) float32, the other side of the objective; kept so that a model can be written again.
    """

    settings: FastTextSettings
    words: list[str]
    counts: list[int]
    word_rows: np.ndarray
    ngram_rows: np.ndarray
    outputs: np.ndarray

    def vectors(self) -> np.ndarray:
        """(V, E) float32, the vectors of the words."""
        result = np.empty(self.word_rows.shape, dtype=np.float32)
        for row, word in enumerate(self.words):
            rows = self._rows_of(word) if word != SENTENCE_END else []
            result[row] = (self.word_rows[row] + self.ngram_rows[rows].sum(axis=0)) / (len(rows) + 1)
        return result

    def vector(self, word: str) -> np.ndarray | None:
        """(E) the vector of a word that is not among the words; None where it has no n-gram."""
        rows = self._rows_of(word)
        return np.asarray(self.ngram_rows[rows].mean(axis=0)) if rows else None

    def _rows_of(self, word: str) -> list[int]:
        if not self.settings.bucket:
            return []
        return [value % self.settings.bucket for value in ngram_hashes(word, self.settings.minn, self.settings.maxn)]


def ngram_hashes(word: str, shortest: int, longest: int) -> Iterator[int]:
    """The hashes of a word's character n-grams, of ``<word>`` with its signs of beginning and end.

    32-bit FNV-1a over the bytes of UTF-8, each extended with its sign as in fastText. The signs alone are no n-gram.
    """
    characters = [sign.encode("utf-8") for sign in f"<{word}>"]
    for begin in range(len(characters)):
        value = 2166136261
        for end in range(begin, min(begin + longest, len(characters))):
            for byte in characters[end]:
                value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
            size = end - begin + 1
            if size >= shortest and not (size == 1 and (begin == 0 or end == len(characters) - 1)):
                yield value


def is_fasttext(path: str | Path) -> bool:
    """Whether a file begins as fastText's models do."""
    try:
        with expand_home(path).open("rb") as file:
            return file.read(4) == struct.pack("<i", MAGIC)
    except OSError:
        return False


# Reading


def read_fasttext(path: str | Path, limit: int | None = None, errors: str = "strict") -> FastTextModel:
    """A model of fastText; its matrices stay in the file and are read where they are used.

    Args:
        path: the file.
        limit: read only this many words, the first ones, which are the most frequent.
        errors: what becomes of words that are not UTF-8, as in ``bytes.decode``: "strict" refuses the file.

    Raises:
        InputError: the file is quantized, of another version, or damaged.
    """
    path = expand_home(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(path, content)
        _, version = reader.values("<ii")
        settings = FastTextSettings(*reader.values("<12id"))
        size, words, labels, _, pruned = reader.values("<iiiqq")
        if version not in (11, 12) or min(size, words, labels) < 0 or words + labels != size or settings.dim < 1:
            fault = f"is of fastText's version {version}, or its beginning is damaged"
            raise InputError(fault, str(path), "give a model of version 11 or 12, or its .vec file")
        if version == 11 and settings.model == SUPERVISED:
            settings = settings._replace(maxn=0)  # as fastText does: such models were trained without n-grams
        entries = [reader.entry(number, errors) for number in range(1, size + 1)]
        if pruned > 0 or reader.values("<?")[0]:
            raise InputError("is quantized (.ftz)", str(path), "give the model that it was made of, or its .vec file")
        inputs = reader.matrix(settings.dim)
        if len(inputs) != words + settings.bucket:
            fault = f"has {len(inputs)} rows, where {words} words and {settings.bucket} n-grams are expected"
            raise InputError(fault, str(path), "the file is damaged: fetch or write it again")
        reader.values("<?")
        outputs = reader.matrix(settings.dim)
    kept = min(words, limit or words)
    names, counts = [name for name, _ in entries[:kept]], [count for _, count in entries[:kept]]
    return FastTextModel(settings, names, counts, inputs[:kept], inputs[words:], outputs[:kept])


class _Reader:
    """Goes through a file of fastText."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.position = path, content, 0

    def values(self, layout: str) -> tuple:
        end = self.position + struct.calcsize(layout)
        if end > len(self.content):
            raise self.cut_off()
        values = struct.unpack(layout, self.content[self.position : end])
        self.position = end
        return values

    def entry(self, number: int, errors: str) -> tuple[str, int]:
        """A word or label of the dictionary with its count."""
        end = self.content.find(b"\0", self.position)
        if end < 0:
            raise self.cut_off()
        word = self.content[self.position : end]
        self.position = end + 1
        try:
            name = word.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            hint = "in Python: lmworks.word_vectors(path, errors='replace')"
            raise InputError("the word is not UTF-8", f"{self.path}, word {number}", hint) from error
        return name, self.values("<qb")[0]

    def matrix(self, width: int) -> np.ndarray:
        """A matrix of float32, which stays in the file."""
        rows, columns = self.values("<qq")
        if columns != width or rows < 0:
            fault = f"a matrix has {columns} columns, and the settings say {width}"
            raise InputError(
                fault, f"{self.path}, byte {self.position}", "the file is damaged: fetch or write it again"
            )
        if self.position + 4 * rows * columns > len(self.content):
            raise self.cut_off()
        begin, self.position = self.position, self.position + 4 * rows * columns
        if not rows:
            return np.zeros((0, width), dtype=np.float32)
        return np.memmap(self.path, dtype="<f4", mode="r", offset=begin, shape=(rows, columns))

    def cut_off(self) -> InputError:
        fault = f"the file ends at byte {len(self.content)}, within the model"
        return InputError(fault, str(self.path), "the file is cut off: fetch or write it again")


# Writing


def write_fasttext(path: str | Path, model: FastTextModel) -> Path:
    """Write a model as fastText opens it.

    Raises:
        InputError: a word is empty or holds a character that ends it in the file, or the file cannot be written.
    """
    path = expand_home(path)
    encoded = [word.encode("utf-8") for word in model.words]
    for word in encoded:
        if not word or b"\0" in word:
            raise InputError(f"the word {word.decode()!r} cannot be written in this format", str(path), "leave it out")
    settings = model.settings._replace(bucket=len(model.ngram_rows))
    with atomic_file(path) as file:
        file.write(struct.pack("<ii12id", MAGIC, VERSION, *settings))
        file.write(struct.pack("<iiiqq", len(encoded), len(encoded), 0, sum(model.counts), -1))
        for word, count in zip(encoded, model.counts, strict=True):
            file.write(word + b"\0" + struct.pack("<qb", count, 0))
        inputs = (model.word_rows, model.ngram_rows)
        for parts in (inputs, (model.outputs,)):
            file.write(struct.pack("<?qq", False, sum(map(len, parts)), settings.dim))
            for part in parts:
                for begin in range(0, len(part), 4096):  # matrices that lie in a file are not read whole
                    file.write(np.ascontiguousarray(part[begin : begin + 4096], dtype="<f4").tobytes())
    return path
