"""Metrics of texts against references, each by its reference implementation: sacrebleu, rouge-score, nltk's METEOR.

BLEU (Papineni et al. 2002), chrF (Popović 2015), chrF++ (2017) and TER (Snover et al. 2006) are figures of all texts
together; ROUGE (Lin 2004), METEOR (Lavie and Agarwal 2007), exact match and SQuAD's metrics are means over texts. Of
several references the metric's own rule holds; of means the best one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.evaluate import metrics, question_answering
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows
from lmworks.evaluate.row_figures import ComputedFigure, RowFigures

INSTALL = "pip install 'lmworks[evaluate]'"
TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")
"""Those of sacrebleu that fetch nothing."""
MANY_TOKENIZED = 100
"""Texts that end in a full stop after a space, from which on sacrebleu warns of tokenized texts."""
_ROUGE_TOKEN = re.compile("[a-z0-9]")


def bleu(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """BLEU of all texts, 0..100; details: the n-gram precisions, the brevity penalty, both lengths in tokens."""
    scorer = _bleu_scorer(options.tokenize, lowercase=options.lowercase)
    measured, score = _by_sacrebleu("bleu", scorer, rows)
    details = {
        "precisions": list(score.precisions),
        "brevity_penalty": score.bp,
        "predicted_tokens": score.sys_len,
        "reference_tokens": score.ref_len,
    }
    notes = []
    tokenized = sum(text.endswith(" .") for text in rows.predicted)
    if tokenized >= MANY_TOKENIZED and options.tokenize != "none":
        notes.append(
            f"{count_of(tokenized, 'text')} end in a full stop after a space: BLEU wants texts as people write"
        )
    if not score.totals[-1]:
        notes.append("no text has four tokens in a row: BLEU is 0, whatever they say")
    return measured._replace(details=details, notes=notes)


def chrf(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """chrF2 of all texts, 0..100: n-grams of 1 to 6 characters, recall counts twice as much as precision."""
    from sacrebleu.metrics import CHRF

    return _by_sacrebleu("chrf", CHRF(lowercase=options.lowercase), rows)[0]


def chrf_plus_plus(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """chrF2++ of all texts, 0..100: the same with words and pairs of words."""
    from sacrebleu.metrics import CHRF

    return _by_sacrebleu("chrf++", CHRF(lowercase=options.lowercase, word_order=2), rows)[0]


def ter(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Translation edit rate of all texts in percent of the references' words; less is better, above 100 is possible."""
    from sacrebleu.metrics import TER

    measured, score = _by_sacrebleu("ter", TER(), rows)
    return measured._replace(details={"edits": score.num_edits, "reference_words": score.ref_length})


def _by_sacrebleu(name: str, scorer: Any, rows: PredictedRows) -> tuple[Measurement, Any]:
    """A metric of sacrebleu, and its score. Its own bootstrap asks for statistics by text in the same way."""
    streams = [list(stream) for stream in zip_longest(*rows.references)]
    statistics = np.array(scorer._extract_corpus_statistics(list(rows.predicted), streams), dtype=np.float64)

    def scores(sums: np.ndarray) -> np.ndarray:
        return np.array([scorer._compute_score_from_stats(each).score for each in sums.tolist()])

    score = scorer._compute_score_from_stats(statistics.sum(0).tolist())
    pairs = [pair.split(":", 1) for pair in scorer.get_signature().format().split("|")]
    settings = {key: value for key, value in pairs if key != "version"}
    signature = Signature.of_library("sacrebleu", name, **settings)
    return Measurement(score.score, ComputedFigure.of_sums(statistics, scores), signature), score


def rouge(kind: str) -> Callable[[PredictedRows, MetricOptions], Measurement]:
    """ROUGE of a kind (rouge1, rouge2, rougeL, rougeLsum): the mean of the texts' F-measures, 0..1."""

    def measure(rows: PredictedRows, options: MetricOptions) -> Measurement:
        unread = sum(not any(map(_has_rouge_tokens, listed)) for listed in rows.references)
        if unread == len(rows.references):
            fault = "ROUGE reads the letters a to z and digits alone, and no reference has any"
            raise InputError(fault, "references", "of texts in other scripts: --metrics bleu,chrf")
        scorer = _rouge_scorer(kind, options)
        scores = [
            scorer.score_multi(list(listed), text)[kind]
            for text, listed in zip(rows.predicted, rows.references, strict=True)
        ]
        values = [float(score.fmeasure) for score in scores]
        details = {name: float(np.mean([getattr(score, name) for score in scores])) for name in ("precision", "recall")}
        notes = []
        if unread:
            of_all = f"{unread:,} of {count_of(len(rows.references), 'row')}"
            notes.append(
                f"{of_all} without a letter from a to z or a digit in a reference, all that ROUGE reads: 0 each"
            )
        texts = [*rows.predicted, *(text for listed in rows.references for text in listed)]
        if kind == "rougeLsum" and not any("\n" in text for text in texts):
            notes.append("no text has several lines; rougeLsum expects a sentence a line, and is rougeL without")
        settings = {"nrefs": rows.reference_count, "case": "lc", "tok": "a-z0-9", "stem": options.stem}
        signature = Signature.of_library("rouge-score", kind, **settings, score="f")
        return Measurement(float(np.mean(values)), RowFigures.of(values), signature, details, notes)

    return measure


def _has_rouge_tokens(text: str) -> bool:
    return _ROUGE_TOKEN.search(text.lower()) is not None


def _rouge_scorer(kind: str, options: MetricOptions) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InputError("ROUGE is computed by rouge-score, which is not installed", kind, INSTALL) from error
    return RougeScorer([kind], use_stemmer=options.stem)


class _NoSynonyms:
    """In place of WordNet: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """METEOR, the mean over texts, 0..1: words match exactly, by stem, and by WordNet's synonyms where nltk has it."""
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError as error:
        raise InputError("METEOR is computed by nltk, which is not installed", "meteor", INSTALL) from error
    split = tokenizer(options.tokenize)
    wordnet, name = _wordnet()
    values = [
        float(meteor_score([split(reference) for reference in listed], split(text), wordnet=wordnet))
        for text, listed in zip(rows.predicted, rows.references, strict=True)
    ]
    settings = {"nrefs": rows.reference_count, "case": "lc", "tok": options.tokenize, "match": "exact+stem"}
    notes = []
    if name:
        settings["match"] += f"+{name}"
    else:
        notes.append("WordNet is not installed: words match exactly or by stem (python -m nltk.downloader wordnet)")
    signature = Signature.of_library("nltk", "meteor", **settings)
    return Measurement(float(np.mean(values)), RowFigures.of(values), signature, {}, notes)


def _wordnet() -> tuple[Any, str]:
    """nltk's WordNet and its name; without it what knows no synonym, and an empty name."""
    from nltk.corpus import wordnet

    try:
        return wordnet, f"wordnet-{wordnet.get_version()}"
    except LookupError:
        return _NoSynonyms(), ""


def tokenizer(name: str) -> Callable[[str], list[str]]:
    """sacrebleu's tokenizer of that name.

    Raises:
        InputError: there is none, or it asks for something that is not installed.
    """
    split = _bleu_scorer(tokenize=name).tokenizer
    return lambda text: list(split(text.strip()).split())


def _bleu_scorer(tokenize: str, **settings: Any) -> Any:
    from sacrebleu.metrics import BLEU

    if tokenize not in TOKENIZERS:
        raise InputError(f"there is no tokenizer {tokenize!r}", "--tokenize", f"one of {', '.join(TOKENIZERS)}")
    try:
        return BLEU(tokenize=tokenize, force=True, **settings)
    except (ImportError, RuntimeError) as error:
        extra = "ko" if tokenize.startswith("ko") else "ja"
        hint = f"pip install 'sacrebleu[{extra}]', or --tokenize char"
        raise InputError("this tokenizer's dictionary is not installed", f"--tokenize {tokenize}", hint) from error


def exact_match(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """The share of texts that are one of their references, but for white space at the ends."""
    lower = str.lower if options.lowercase else str
    values = [
        max(metrics.exact_match(lower(text), lower(reference)) for reference in listed)
        for text, listed in zip(rows.predicted, rows.references, strict=True)
    ]
    settings = {"nrefs": rows.reference_count, "case": "lc" if options.lowercase else "mixed", "ends": "stripped"}
    return _mean(values, Signature("exact_match").with_settings(**settings))


def squad_exact_match(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """The same but for case, ASCII punctuation and English articles: SQuAD's exact match, 0..1."""
    return _squad("squad_exact_match", 0, rows)


def token_f1(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """The mean F1 of the words that a text shares with its reference: SQuAD's F1, 0..1."""
    return _squad("token_f1", 1, rows)


def _squad(name: str, column: int, rows: PredictedRows) -> Measurement:
    pairs = zip(rows.predicted, rows.references, strict=True)
    values = [question_answering.scores(text, listed)[column] for text, listed in pairs]
    return _mean(values, question_answering.signature(name, rows.reference_count))


def _mean(values: list[float], signature: Signature) -> Measurement:
    return Measurement(float(np.mean(values)), RowFigures.of(values), signature)
