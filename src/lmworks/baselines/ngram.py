"""n-gram language models: the probability of a token after the n - 1 tokens before it (order n; 0 uniform, 1 unigram).

Probabilities are those of interpolated Kneser-Ney (baselines/kneser_ney). NumPy alone: a million tokens are counted,
estimated and scored in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmworks.base.errors import InputError
from lmworks.baselines import kneser_ney, ngram_folder
from lmworks.baselines.kneser_ney import Smoothing

MOST_ORDER = 10
DISCOUNT = 0.1
"""Of plain Kneser-Ney, as NLTK's default."""

Ids = Sequence[int] | np.ndarray


@dataclass
class Level:
    """The n-grams of one length k, from 2 on; N of them.

    Attributes:
        keys: (N,) int64, sorted: number of the context among the (k-1)-grams x V + last token.
        probabilities: (N,) float64 of the last token after the context.
        backoffs: (contexts,) float64, of each (k-1)-gram as a context: factor of the probability after the context
            without its first token, for tokens that were not seen after it.
    """

    keys: np.ndarray
    probabilities: np.ndarray
    backoffs: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """For each key its place among the n-grams, or -1."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1) if len(self.keys) else np.full(len(keys), -1)


@dataclass
class NgramModel:
    """An n-gram language model over token ids.

    Attributes:
        order: n; a token's probability depends on the n - 1 tokens before it.
        unigrams: (V,) float64, the probabilities without a context.
        levels: those of the lengths 2 to n.
        begin_id: stands before every document, as context alone; None: nothing does.
        end_id: ends a document; None: nothing does.
        smoothing, discount: how the probabilities were estimated.
        discounts: what was subtracted from counts of 1, 2, and 3 or more, of each length from 1 on.
    """

    order: int
    unigrams: np.ndarray
    levels: list[Level]
    begin_id: int | None = None
    end_id: int | None = None
    smoothing: Smoothing = "modified-kneser-ney"
    discount: float = DISCOUNT
    discounts: list[tuple[float, float, float]] = field(default_factory=list)

    @classmethod
    def train(
        cls,
        documents: Sequence[np.ndarray],
        order: int,
        vocab_size: int,
        *,
        begin_id: int | None = None,
        end_id: int | None = None,
        smoothing: Smoothing = "modified-kneser-ney",
        discount: float = DISCOUNT,
    ) -> NgramModel:
        """Count the n-grams of documents and estimate their probabilities.

        Args:
            documents: (T,) token ids each, without ``begin_id`` and ``end_id``, which are put around them.
            order: n, from 0 (uniform) to :data:`MOST_ORDER`.
            vocab_size: V; ids are below it.
            begin_id, end_id: what stands around each document, if anything.
            smoothing: modified Kneser-Ney (three discounts a length, from counts of counts), or plain (one discount).
            discount: of plain Kneser-Ney.

        Raises:
            InputError: settings out of bounds, no token, or ids outside the vocabulary.
        """
        kneser_ney.check_settings(order, vocab_size, smoothing, discount, MOST_ORDER)
        for name, token in (("begin_id", begin_id), ("end_id", end_id)):
            if token is not None:
                _check_ids(np.array([token]), vocab_size, name)
        end = [] if end_id is None else [end_id]
        checked = [_check_ids(document, vocab_size, f"document {n}") for n, document in enumerate(documents, 1)]
        whole = [np.concatenate([document, end]).astype(np.int64) for document in checked if len(document)]
        if not whole:
            raise InputError("the documents have no tokens", "documents", "give at least one token")
        if order == 0:
            uniform = np.full(vocab_size, 1 / vocab_size)
            return cls(0, uniform, [], begin_id, end_id, smoothing, discount)
        tokens, longer = kneser_ney.count(whole, order, vocab_size, begin_id, smoothing)
        unigrams, discounts = kneser_ney.estimate_tokens(tokens, smoothing, discount, order == 1)
        model = cls(order, unigrams, [], begin_id, end_id, smoothing, discount, [discounts])
        shorter = unigrams
        for counts in longer:
            estimate = kneser_ney.estimate(counts, shorter, len(shorter), vocab_size, smoothing, discount)
            model.levels.append(Level(counts.keys, estimate.probabilities, estimate.backoffs))
            model.discounts.append(estimate.discounts)
            shorter = estimate.probabilities
        return model

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.unigrams)

    @property
    def parameters(self) -> int:
        """Probabilities and backoff factors that were estimated."""
        levels = sum(len(level.probabilities) + len(level.backoffs) for level in self.levels)
        return (self.vocab_size if self.order else 0) + levels

    @property
    def nbytes(self) -> int:
        """Bytes that its arrays take."""
        arrays = [array for level in self.levels for array in (level.keys, level.probabilities, level.backoffs)]
        return self.unigrams.nbytes + sum(array.nbytes for array in arrays)

    def log_probabilities(self, ids: Ids) -> np.ndarray:
        """log p of each token of a document given all before it, (T,) float64, in nats.

        Args:
            ids: (T,) the document from its beginning, without ``begin_id``; with ``end_id`` where that is to be scored.

        Returns:
            minus infinity for a token that plain Kneser-Ney never saw.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        ids = _check_ids(ids, self.vocab_size, "ids")
        opening = self._opening
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities(np.concatenate([opening, ids]))[len(opening) :])

    def next_distribution(self, context: Ids = ()) -> np.ndarray:
        """The probability of each token after a context, (V,) float64.

        Args:
            context: all tokens of the document before it, without ``begin_id``; only the last n - 1 matter.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        size = max(self.order - 1, 0)
        ids = _check_ids(context[-size:] if size else (), self.vocab_size, "context")
        if len(ids) < size:
            ids = np.concatenate([self._opening, ids])
        probabilities = self.unigrams.copy()
        for level, node in zip(self.levels, self._nodes(ids), strict=False):
            if len(node) == 0 or node[-1] < 0:
                continue
            begin, end = np.searchsorted(level.keys, (node[-1] * self.vocab_size, (node[-1] + 1) * self.vocab_size))
            probabilities *= level.backoffs[node[-1]]
            probabilities[level.keys[begin:end] - node[-1] * self.vocab_size] = level.probabilities[begin:end]
        return probabilities

    def sample(self, rng: np.random.Generator, max_tokens: int, context: Ids = ()) -> list[int]:
        """Draw a continuation of a context, up to ``end_id`` (which is not returned) or to ``max_tokens`` tokens."""
        ids = [int(token) for token in context]
        start = len(ids)
        while len(ids) - start < max_tokens:
            totals = np.cumsum(self.next_distribution(ids))
            token = int(np.searchsorted(totals, rng.random() * totals[-1], side="right"))
            if token == self.end_id:
                break
            ids.append(token)
        return ids[start:]

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (baselines/ngram_folder).

        Raises:
            InputError: no room, or the folder cannot be written.
        """
        config = {
            "order": self.order,
            "vocab_size": self.vocab_size,
            "bos_token_id": self.begin_id,
            "eos_token_id": self.end_id,
            "smoothing": self.smoothing,
            "discount": self.discount,
            "discounts": self.discounts,
        }
        arrays = {"unigrams": self.unigrams}
        for length, level in enumerate(self.levels, 2):
            arrays |= {f"{name}.{length}": getattr(level, name) for name in ("keys", "probabilities", "backoffs")}
        ngram_folder.write(Path(folder), config, arrays)

    @classmethod
    def open(cls, folder: str | Path) -> NgramModel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file is missing or damaged.
        """
        config, arrays = ngram_folder.read(Path(folder), MOST_ORDER)
        levels = [
            Level(*(arrays[f"{name}.{length}"] for name in ("keys", "probabilities", "backoffs")))
            for length in range(2, config["order"] + 1)
        ]
        return cls(
            config["order"],
            arrays["unigrams"],
            levels,
            config.get("bos_token_id"),
            config.get("eos_token_id"),
            config["smoothing"],
            config["discount"],
            [tuple(discounts) for discounts in config["discounts"]],
        )

    @property
    def _opening(self) -> np.ndarray:
        return np.array([] if self.begin_id is None else [self.begin_id], dtype=np.int64)

    def _nodes(self, ids: np.ndarray) -> list[np.ndarray]:
        """For each length k from 1 to n - 1 the number of the k-gram that ends at each token, (T,); -1: never seen."""
        nodes = [ids]
        for level in self.levels[:-1]:
            nodes.append(self._longer(level, nodes[-1], ids))
        return nodes

    def _longer(self, level: Level, node: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The same for n-grams that are longer by one token."""
        found = np.full(len(ids), -1, dtype=np.int64)
        places = np.flatnonzero(node[:-1] >= 0) + 1
        found[places] = level.find(node[places - 1] * self.vocab_size + ids[places])
        return found

    def _probabilities(self, ids: np.ndarray) -> np.ndarray:
        """p of each token given all before it, (T,).

        The longest n-gram that was seen gives its probability; each longer context that was seen, its backoff factor.
        """
        result, node = self.unigrams[ids], ids
        for level in self.levels:
            longer = self._longer(level, node, ids)
            places = np.flatnonzero(node[:-1] >= 0) + 1
            result[places] *= level.backoffs[node[places - 1]]
            seen = longer >= 0
            result[seen] = level.probabilities[longer[seen]]
            node = longer
        return result


def _check_ids(ids: Ids, vocab_size: int, place: str) -> np.ndarray:
    """Token ids as (T,) int64.

    Raises:
        InputError: they are not whole numbers in one dimension, or one is outside the vocabulary.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError("are no token ids", place, "give whole numbers in one dimension")
    array = array.astype(np.int64)
    if array.size and not (array.min() >= 0 and array.max() < vocab_size):
        wrong = int(array[(array < 0) | (array >= vocab_size)][0])
        raise InputError(f"{wrong} is no id of the {vocab_size} of the vocabulary", place, "use the model's tokenizer")
    return array
