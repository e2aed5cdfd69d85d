"""How varied texts are, without references: distinct-n, self-BLEU, repetition.

distinct-n (Li et al. 2016): different n-grams of all texts, divided by the number of n-grams. Self-BLEU (Zhu et al.
2018): the mean BLEU of each text with all others as its references. Repetition (Welleck et al. 2020, seq-rep-n): the
share of a text's n-grams that it had before, the mean over texts. None of them is better higher or lower by itself:
human texts have a value, and that is what to compare with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows
from lmworks.evaluate.row_figures import ComputedFigure, RowFigures
from lmworks.evaluate.text_metrics import tokenizer

REPEATED = 4
"""n of the n-grams of which repetitions are counted."""
ORDERS = 4
"""Longest n-grams of BLEU."""
Ngrams = list[tuple[str, ...]]


def distinct(n: int) -> Callable[[PredictedRows, MetricOptions], Measurement]:
    """Distinct-n of all texts, 0..1; details: both counts. Its interval is the jackknife's: resampled texts, some of
    them twice, would have fewer different n-grams than any real ones."""

    def measure(rows: PredictedRows, options: MetricOptions) -> Measurement:
        each = [ngrams(tokens, n) for tokens in _tokens(rows, options)]
        texts_of = Counter(gram for grams in each for gram in set(grams))
        different, total = len(texts_of), sum(map(len, each))
        if not total:
            fault = f"distinct-{n} needs a text of {count_of(n, 'token')}, and none has as many"
            raise InputError(fault, "predictions", "take distinct1, or longer texts")
        own = np.array([sum(texts_of[gram] == 1 for gram in set(grams)) for grams in each])
        left = total - np.array([len(grams) for grams in each])
        value = different / total
        without = np.where(left > 0, (different - own) / np.maximum(left, 1), value)
        influence = (len(each) - 1) * (value - without)
        details = {"different": different, "ngrams": total}
        signature = _signature(f"distinct{n}", options)
        return Measurement(value, ComputedFigure.of_influence(value, influence), signature, details)

    return measure


def repetition(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """The mean share of repeated n-grams of a text, 0..1; texts without any n-gram do not count."""
    each = [ngrams(tokens, REPEATED) for tokens in _tokens(rows, options)]
    counted = np.array([float(bool(grams)) for grams in each])
    if not counted.any():
        fault = f"repetition counts {REPEATED}-grams, and no text has {REPEATED} tokens"
        raise InputError(fault, "predictions", "take longer texts")
    values = np.array([1 - len(set(grams)) / len(grams) if grams else 0.0 for grams in each])
    short = int(len(each) - counted.sum())
    notes = [f"{count_of(short, 'text')} of fewer than {REPEATED} tokens did not count"] if short else []
    signature = _signature("repetition", options).with_settings(n=REPEATED)
    return Measurement(float(values.sum() / counted.sum()), RowFigures.of(values, counted), signature, {}, notes)


def self_bleu(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Self-BLEU, 0..100, of at least two texts, computed by sacrebleu from counts that are made once for all texts.

    An n-gram counts in a text as often as it stands at most in one of the others: of each n-gram the greatest and the
    second greatest count suffice. The interval holds the other texts fixed.
    """
    from sacrebleu.metrics import BLEU

    texts = _tokens(rows, options)
    if len(texts) < 2:
        raise InputError("self-BLEU compares texts with each other, and there is one", "predictions", "give several")
    counts = [Counter(gram for n in range(1, ORDERS + 1) for gram in ngrams(tokens, n)) for tokens in texts]
    greatest = _greatest_counts(counts)
    lengths = np.array([len(tokens) for tokens in texts])
    values = []
    for number, own in enumerate(counts):
        correct, total = [0] * ORDERS, [0] * ORDERS
        for gram, count in own.items():
            first, holder, second = greatest[gram]
            total[len(gram) - 1] += count
            correct[len(gram) - 1] += min(count, second if holder == number else first)
        size = int(lengths[number])
        score = BLEU.compute_bleu(correct, total, size, _closest(lengths, number), "exp", effective_order=True)
        values.append(score.score)
    settings = {"case": "lc" if options.lowercase else "mixed", "tok": options.tokenize, "eff": "yes", "smooth": "exp"}
    signature = Signature.of_library("sacrebleu", "self_bleu", refs="all-others", **settings)
    return Measurement(float(np.mean(values)), RowFigures.of(values), signature)


def ngrams(tokens: Sequence[str], n: int) -> Ngrams:
    """All n-grams of a text, in order."""
    return [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]


def _greatest_counts(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """n-gram -> its greatest count in a text, the number of that text, its greatest count in another text."""
    greatest: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for number, own in enumerate(counts):
        for gram, count in own.items():
            first, holder, second = greatest.get(gram, (0, -1, 0))
            if count > first:
                greatest[gram] = count, number, first
            else:
                greatest[gram] = first, holder, max(second, count)
    return greatest


def _closest(lengths: np.ndarray, number: int) -> int:
    """The length of another text that is closest to that of this one; of two equally close the shorter."""
    others = np.delete(lengths, number)
    distance = np.abs(others - lengths[number])
    return int(others[distance == distance.min()].min())


def _tokens(rows: PredictedRows, options: MetricOptions) -> list[list[str]]:
    split = tokenizer(options.tokenize)
    return [split(text.lower() if options.lowercase else text) for text in rows.predicted]


def _signature(name: str, options: MetricOptions) -> Signature:
    case = "lc" if options.lowercase else "mixed"
    return Signature(name).with_settings(case=case, tok=options.tokenize, per="ngrams")
