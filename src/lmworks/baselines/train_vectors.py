"""Texts -> static word vectors: word2vec and fastText by gensim, GloVe by baselines/glove.

Mikolov et al. 2013a, 2013b (word2vec: CBOW and skip-gram with negative sampling); Bojanowski et al. 2017 (fastText).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.baselines import glove
from lmworks.baselines.fasttext_file import FastTextModel, FastTextSettings
from lmworks.baselines.sentences import Sentences, read_sentences
from lmworks.baselines.vector_settings import EPOCHS, RATES, WINDOWS, VectorSettings
from lmworks.baselines.word_vectors import WordVectors
from lmworks.evaluate import progress

MISSING = "pip install 'lmworks[vectors]'"
"""What installs gensim."""


class Training(NamedTuple):
    """Word vectors and how their training went.

    Attributes:
        vectors: of the words that occur often enough, most frequent first.
        words: words of the text that were trained on, counted with repetition.
        total: words of the text.
        losses: GloVe: the mean term of the objective in each epoch.
    """

    vectors: WordVectors
    words: int
    total: int
    losses: list[float]


def train(texts: Iterable[str], settings: VectorSettings) -> Training:
    """Word vectors of texts, of which each line is a sentence.

    Raises:
        InputError: gensim is missing, a setting does not belong to the algorithm, or too few words occur often enough.
    """
    settings.check()
    library = None if settings.algorithm == "glove" else import_gensim()
    sentences = read_sentences(texts, settings.min_count, settings.lowercase)
    losses: list[float] = []
    if library is None:
        vectors, losses = glove.train(
            sentences,
            settings.vector_size,
            settings.window or WINDOWS["glove"],
            settings.epochs or EPOCHS["glove"],
            settings.learning_rate or RATES["glove"],
            100.0 if settings.x_max is None else settings.x_max,
            0.75 if settings.alpha is None else settings.alpha,
            settings.seed,
        )
        trained = WordVectors(sentences.words, vectors)
    else:
        trained = _train_by_gensim(library, sentences, settings)
    return Training(trained, len(sentences.ids), sentences.total, losses)


def import_gensim() -> Any:
    """gensim's models.

    Raises:
        InputError: it is not installed.
    """
    try:
        import gensim.models
    except ImportError as error:
        raise InputError("word2vec and fastText are trained by gensim, which is not installed", hint=MISSING) from error
    return gensim.models


def _train_by_gensim(models: Any, sentences: Sentences, settings: VectorSettings) -> WordVectors:
    name = settings.algorithm
    epochs = settings.epochs or EPOCHS[name]
    arguments: dict[str, Any] = {
        "vector_size": settings.vector_size,
        "window": settings.window or WINDOWS[name],
        "min_count": 1,  # rarer words are left out already
        "sg": int(settings.architecture == "skip-gram"),
        "negative": settings.negative or 5,
        "sample": 1e-3 if settings.sample is None else settings.sample,
        "alpha": settings.learning_rate or RATES[name],
        "seed": settings.seed,
        "workers": settings.workers,
    }
    if name == "fasttext":
        parts = {"min_n": settings.min_n or 3, "max_n": settings.max_n or 6, "bucket": settings.bucket or 200_000}
        model = models.FastText(**arguments, **parts)
    else:
        model = models.Word2Vec(**arguments)
    progress.begin("words", epochs * len(sentences.ids))
    level = logging.getLogger("gensim").level
    logging.getLogger("gensim").setLevel(logging.ERROR)  # it warns of every text of less than a million words
    try:
        model.build_vocab(sentences)
        model.train(
            sentences,
            total_examples=len(sentences.ends),
            total_words=len(sentences.ids),
            epochs=epochs,
            callbacks=[_progress(models, len(sentences.ids))],
        )
    finally:
        logging.getLogger("gensim").setLevel(level)
    return WordVectors(
        model.wv.index_to_key,
        model.wv.vectors,
        subwords=_fasttext_model(model, sentences, settings) if name == "fasttext" else None,
    )


def _fasttext_model(model: Any, sentences: Sentences, settings: VectorSettings) -> FastTextModel:
    """gensim's model of fastText, with the settings that fastText's files carry."""
    counts = dict(zip(sentences.words, sentences.counts.tolist(), strict=True))
    words = list(model.wv.index_to_key)
    carried = FastTextSettings(
        dim=settings.vector_size,
        ws=model.window,
        epoch=model.epochs,
        minCount=settings.min_count,
        neg=model.negative,
        model=2 if model.sg else 1,
        bucket=model.wv.bucket,
        minn=model.wv.min_n,
        maxn=model.wv.max_n,
        t=model.sample,
    )
    rows = (model.wv.vectors_vocab, model.wv.vectors_ngrams, model.syn1neg)
    return FastTextModel(carried, words, [counts[word] for word in words], *rows)


def _progress(models: Any, words: int) -> Any:
    """gensim's callback that reports an epoch."""

    class Progress(models.callbacks.CallbackAny2Vec):
        def on_epoch_end(self, model: Any) -> None:
            progress.report(words)

    return Progress()
