"""The rungs of a ladder: what is trained on each, from the simplest model to the newest. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["counted", "trained", "vectors", "prompted"]
MOST_EPOCHS = 20.0


@dataclass(frozen=True)
class Rung:
    """One model of a ladder.

    Attributes:
        name: of its folder and on the command line.
        title: as tables show it.
        kind: counted: trained in seconds, however large its share; trained: a network, by steps that fill its share;
            vectors: averaged word vectors; prompted: an opened model that is asked.
        model: a preset, or a model to open.
        settings: groups of its recipe that differ from the preset's.
        most_epochs: passes over the training rows that its share may buy; more would learn them by heart.
        weight: its share of the budget, relative to other rungs.
    """

    name: str
    title: str
    kind: Kind
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    most_epochs: float = MOST_EPOCHS
    weight: float = 1.0


def _transformer(positions: str, **model: Any) -> Rung:
    title = f"transformer, {positions} positions"
    settings = {"model": {"positions": positions, **model}}
    return Rung(f"transformer-{positions}", title, "trained", "transformer-small", settings)


LANGUAGE = (
    Rung("uniform", "uniform", "counted", "uniform"),
    Rung("unigram", "unigram", "counted", "unigram"),
    Rung("trigram", "trigram", "counted", "ngram-3"),
    Rung("5-gram", "5-gram", "counted", "ngram-5"),
    Rung("rnn", "RNN", "trained", "rnn-small"),
    Rung("lstm", "LSTM", "trained", "lstm-small"),
    _transformer("sinusoidal", embedding_scale="root"),
    _transformer("learned"),
    _transformer("rotary"),
)
"""Language models."""
_HEAD: dict[str, Any] = {"task": {"name": "classify"}}
CLASSIFY = (
    Rung("majority", "majority class", "counted", "majority"),
    Rung("tfidf-nb", "TF-IDF, naive Bayes", "counted", "tfidf-nb"),
    Rung("tfidf-logreg", "TF-IDF, logistic regression", "counted", "tfidf-logreg"),
    Rung("tfidf-svm", "TF-IDF, linear SVM", "counted", "tfidf-svm"),
    Rung("chars-logreg", "TF-IDF of characters", "counted", "chars-logreg"),
    Rung("word-vectors", "averaged word vectors", "vectors", "word2vec"),
    Rung("cnn", "CNN", "trained", "cnn-small", _HEAD, 8.0),
    Rung("lstm", "LSTM", "trained", "lstm-small", _HEAD, 8.0),
    Rung("encoder", "encoder, fine-tuned (LoRA)", "trained", "minilm-l6", {**_HEAD, "method": "lora"}, 4.0, 3.0),
    Rung("decoder-prompt", "decoder, by prompt", "prompted", "smollm2-135m-instruct"),
)
"""Classifiers of texts."""
LADDERS = {"language": LANGUAGE, "classify": CLASSIFY}
"""Task -> its rungs, from the lowest to the highest."""
