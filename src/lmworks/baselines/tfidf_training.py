"""Training of the classifiers by counts: scikit-learn computes, and what it learned is taken out as plain arrays.

Scores are linear: features (N, F) times weights (K, F), transposed, plus bias (K,). Probabilities are their softmax
(K = C), or logistic functions of them, which add up to 1 after division by their sum (K = C, or K = 1 for two labels).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.baselines.tfidf_settings import TfidfSettings
from lmworks.text.cleaning import clean, steps_of

Link = Literal["softmax", "sigmoid"]
FOLDS = 5
"""Of the cross-validation that calibrates a support vector machine."""
ITERATIONS = 1000
SEED = 0


class FittedClassifier(NamedTuple):
    """What was learned.

    Attributes:
        labels: C, sorted.
        vocabulary: F n-grams, in the order of the columns.
        idf: (F,) float64; None for counts.
        weight: (K, F) float64.
        bias: (K,) float64.
        link: how scores become probabilities.
        platt: (2, K) slope a and offset b of 1 / (1 + exp(a score + b)), where scores are calibrated so; else None.
        notes: what a person should know.
    """

    labels: list[str]
    vocabulary: list[str]
    idf: np.ndarray | None
    weight: np.ndarray
    bias: np.ndarray
    link: Link
    platt: np.ndarray | None
    notes: list[str]


def fit(texts: Sequence[str], labels: Sequence[str], settings: TfidfSettings) -> FittedClassifier:
    """Learn labels from texts.

    Raises:
        InputError: no text, one label alone, or no n-gram is left.
    """
    if not len(texts):
        raise InputError("there is no text to learn from", "texts", "give at least one text of each label")
    names = sorted(set(labels))
    number = {name: place for place, name in enumerate(names)}
    classes = np.array([number[label] for label in labels])
    if settings.classifier == "majority":
        shares = np.bincount(classes, minlength=len(names)) / len(classes)
        return FittedClassifier(names, [], None, np.zeros((len(names), 0)), np.log(shares), "softmax", None, [])
    if len(names) == 1:
        hint = "add rows with other labels, or tune majority"
        raise InputError(f"every text has the label {names[0]!r}: there is nothing to learn", "labels", hint)
    steps = steps_of(settings.cleaning)
    vectorizer = _vectorizer(settings)
    try:
        matrix = vectorizer.fit_transform([clean(text, steps) for text in texts])
    except ValueError as error:  # scikit-learn's, for an empty vocabulary
        hint = "lower --tfidf.min_df, or leave out steps of cleaning that take everything away"
        raise InputError("no n-gram of the texts is left to count", "tfidf.min_df", hint) from error
    vocabulary = [str(term) for term in vectorizer.get_feature_names_out()]
    idf = np.asarray(vectorizer.idf_, dtype=np.float64) if settings.weighting == "tfidf" else None
    weight, bias, link, platt, notes = _LEARN[settings.classifier](matrix, classes, names, settings)
    weight, bias = (np.ascontiguousarray(part, dtype=np.float64) for part in (weight, bias))
    return FittedClassifier(names, vocabulary, idf, weight, bias, link, platt, notes)


def _vectorizer(settings: TfidfSettings) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    options: dict[str, Any] = {
        "analyzer": settings.analyzer,
        "ngram_range": settings.ngram_range,
        "min_df": settings.min_df,
        "max_features": settings.max_features,
        "lowercase": False,  # a step of cleaning
    }
    if settings.weighting == "counts":
        return CountVectorizer(**options)
    return TfidfVectorizer(sublinear_tf=settings.sublinear_tf, **options)


Learned = tuple[np.ndarray, np.ndarray, Link, np.ndarray | None, list[str]]


def _naive_bayes(matrix: Any, classes: np.ndarray, names: list[str], settings: TfidfSettings) -> Learned:
    from sklearn.naive_bayes import MultinomialNB

    model = MultinomialNB(alpha=settings.alpha).fit(matrix, classes)
    return model.feature_log_prob_, model.class_log_prior_, "softmax", None, []


def _logistic_regression(matrix: Any, classes: np.ndarray, names: list[str], settings: TfidfSettings) -> Learned:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=settings.C, max_iter=ITERATIONS)
    notes = _fit_noting(model, matrix, classes)
    return model.coef_, model.intercept_, "sigmoid" if len(names) == 2 else "softmax", None, notes


def _linear_svm(matrix: Any, classes: np.ndarray, names: list[str], settings: TfidfSettings) -> Learned:
    """Scores become probabilities by Platt's scaling (Platt 1999): a logistic function of the score, fitted to scores
    of a cross-validation; the machine itself is then trained on all texts."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=settings.C, random_state=SEED, max_iter=ITERATIONS)
    counts = Counter(classes.tolist())
    folds = min(FOLDS, min(counts.values()))
    if folds < 2:
        rare = list_names([names[place] for place, count in sorted(counts.items()) if count < 2])
        notes = _fit_noting(machine, matrix, classes)
        notes.append(
            f"probabilities are not calibrated, but the logistic function of the score: a cross-validation needs two "
            f"texts of each label, and there is one of {rare}"
        )
        return machine.coef_, machine.intercept_, "sigmoid", None, notes
    model = CalibratedClassifierCV(machine, method="sigmoid", ensemble=False, cv=folds)
    notes = _fit_noting(model, matrix, classes)
    if folds < FOLDS:
        notes.append(f"probabilities are calibrated by {count_of(folds, 'fold')}: the rarest label has no more texts")
    (calibrated,) = model.calibrated_classifiers_
    platt = np.array([(sigmoid.a_, sigmoid.b_) for sigmoid in calibrated.calibrators]).T
    return calibrated.estimator.coef_, calibrated.estimator.intercept_, "sigmoid", platt, notes


def _fit_noting(model: Any, matrix: Any, classes: np.ndarray) -> list[str]:
    """Fit; that it did not converge becomes a note."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(matrix, classes)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        return [f"training did not converge in {ITERATIONS} iterations: lower --tfidf.C"]
    return []


_LEARN = {
    "naive_bayes": _naive_bayes,
    "logistic_regression": _logistic_regression,
    "linear_svm": _linear_svm,
}
