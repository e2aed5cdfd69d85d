"""Settings of the classifiers by counts of words or characters, and their presets. Imports no scikit-learn."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build, nearest, spelled
from lmworks.text.cleaning import STEPS, steps_of


class TfidfSettings(Settings):
    """A classifier of texts by the words or characters that occur in them."""

    classifier: Literal["majority", "naive_bayes", "logistic_regression", "linear_svm"] = Field(
        "logistic_regression", description="What is learned from the counts; majority: nothing but the labels' shares."
    )
    weighting: Literal["counts", "tfidf"] = Field(
        "tfidf", description="counts: a bag of words; tfidf: rare words count more, long texts as much as short ones."
    )
    analyzer: Literal["word", "char_wb"] = Field("word", description="Words, or characters within words.")
    ngram_range: tuple[int, int] = Field((1, 1), description="Shortest and longest n-grams of words or characters.")
    min_df: int = Field(1, ge=1, description="n-grams that fewer training texts contain are left out.")
    max_features: int | None = Field(None, ge=1, description="Largest vocabulary; the most frequent n-grams stay.")
    sublinear_tf: bool = Field(False, description="Of tfidf: 1 + log(count) instead of the count.")
    C: float = Field(1.0, gt=0, description="Of logistic_regression and linear_svm: inverse of the regularization.")
    alpha: float = Field(1.0, gt=0, description="Of naive_bayes: additive smoothing of the counts.")
    cleaning: tuple[str, ...] = Field(
        ("case",), description=f"Steps of cleaning before words are counted, of {', '.join(STEPS)}."
    )

    @field_validator("cleaning", mode="before")
    @classmethod
    def _steps(cls, value: Any) -> Any:
        """``html,case`` is a list; unknown steps are refused."""
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            try:
                return tuple(step.name for step in steps_of(names))
            except InputError as error:
                raise ValueError(f"{error.fault} ({error.hint})") from error
        return names

    @field_validator("ngram_range", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        """``1,2`` is a pair; a number alone is both ends."""
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, value)
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("ngram_range")
    @classmethod
    def _order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError("the shortest n-gram is at least 1, and not longer than the longest")
        return value


_WORDS = {"ngram_range": [1, 2], "min_df": 2}
PRESETS: dict[str, dict[str, Any]] = {
    "majority": {"classifier": "majority", "weighting": "counts"},
    "bow-nb": {"classifier": "naive_bayes", "weighting": "counts"},
    "tfidf-nb": {"classifier": "naive_bayes", "alpha": 0.1},
    "tfidf-logreg": {"classifier": "logistic_regression", "sublinear_tf": True, "C": 10.0, **_WORDS},
    "tfidf-svm": {"classifier": "linear_svm", "sublinear_tf": True, **_WORDS},
    "chars-logreg": {
        "classifier": "logistic_regression",
        "analyzer": "char_wb",
        "ngram_range": [2, 5],
        "min_df": 2,
        "max_features": 200_000,
        "sublinear_tf": True,
        "C": 10.0,
    },
}
ABOUT = {
    "majority": "always the commonest label, with the labels' shares as probabilities",
    "bow-nb": "counts of words, multinomial naive Bayes",
    "tfidf-nb": "TF-IDF of words, multinomial naive Bayes",
    "tfidf-logreg": "TF-IDF of words and pairs of words, logistic regression",
    "tfidf-svm": "TF-IDF of words and pairs of words, linear support vector machine",
    "chars-logreg": "TF-IDF of 2 to 5 characters within words, logistic regression",
}
USED_BY = {
    "C": ("logistic_regression", "linear_svm"),
    "alpha": ("naive_bayes",),
    **dict.fromkeys(
        ("weighting", "analyzer", "ngram_range", "min_df", "max_features", "cleaning"),
        ("naive_bayes", "logistic_regression", "linear_svm"),
    ),
}
"""Setting -> the classifiers that use it; a setting that is not listed has its own rule (sublinear_tf: with tfidf)."""


def settings_of(preset: str, changes: dict[str, Any] | None = None, origin: str = "tfidf") -> TfidfSettings:
    """The settings of a preset; ``changes``, which come from ``origin``, take precedence.

    Raises:
        InputError: there is no such preset, or a setting is invalid or not used by its classifier.
    """
    name = spelled(preset, PRESETS)
    if name not in PRESETS:
        near = nearest(name, list(PRESETS))
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(PRESETS)}"
        raise InputError(f"there is no preset {preset!r}", "model", hint)
    settings = build(TfidfSettings, {**PRESETS[name], **(changes or {})}, origin)
    unchanged = TfidfSettings(**PRESETS[name])
    for setting in changes or {}:
        users = USED_BY.get(setting)
        if getattr(settings, setting) != getattr(unchanged, setting) and users and settings.classifier not in users:
            hint = f"leave it out; it serves {', '.join(users)}"
            raise InputError(f"{settings.classifier} does not use it", f"tfidf.{setting}", hint)
    if "sublinear_tf" in (changes or {}) and settings.sublinear_tf and settings.weighting == "counts":
        raise InputError("counts do not use it", "tfidf.sublinear_tf", "leave it out, or add --tfidf.weighting tfidf")
    return settings


def is_preset(name: str) -> bool:
    """Whether this is the name of a preset."""
    return spelled(name, PRESETS) in PRESETS
