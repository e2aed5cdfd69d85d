"""What a rater says of the answers to one prompt, and its line in the file of ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.json_file import check_kinds
from lmworks.ratings.blind_test_settings import BlindTestSettings

LOWEST, HIGHEST = 1, 5
"""Of scores, the numbers between them too."""
Scores = dict[str, dict[str, int]]
"""model -> criterion -> score."""


@dataclass(frozen=True)
class Rating:
    """One rater, one prompt. Without ``best`` and ``scores``, it was skipped.

    Attributes:
        rater: a name.
        prompt: number of the prompt, from 0.
        order: the models in the order in which their answers were shown.
        best: those whose answers are the best; all of them: a tie. None where scores were given.
        scores: of each answer by each criterion. None where the best was chosen.
        seconds: from showing to rating, as far as known.
    """

    rater: str
    prompt: int
    order: list[str]
    best: list[str] | None = None
    scores: Scores | None = None
    seconds: float | None = None

    @property
    def is_skipped(self) -> bool:
        """Whether nothing was said."""
        return self.best is None and self.scores is None

    def mean_score(self, model: str) -> float:
        """The mean over criteria of a model's scores."""
        assert self.scores is not None  # whoever asks has checked it
        return sum(self.scores[model].values()) / len(self.scores[model])

    @property
    def preferred(self) -> list[str]:
        """The models whose answers are the best: those that were chosen, or that have the highest mean score."""
        if self.best is not None:
            return self.best
        if self.scores is None:
            return []
        means = {model: self.mean_score(model) for model in self.order}
        return [model for model in self.order if means[model] == max(means.values())]

    def preference(self, first: str, second: str) -> int:
        """1: the first model's answer is better, -1: the second's is, 0: neither, or nothing was said of it.

        Of answers that are not the best of more than two, a choice says nothing.
        """
        if self.scores is not None:
            one, other = self.mean_score(first), self.mean_score(second)
            return (one > other) - (one < other)
        return (first in self.preferred) - (second in self.preferred)

    def line(self, time: float) -> dict[str, Any]:
        """The line of the file; ``time`` in seconds since 1970."""
        return {
            "time": round(time, 3),
            "rater": self.rater,
            "prompt": self.prompt,
            "order": self.order,
            "best": self.best,
            "scores": self.scores,
            "seconds": self.seconds,
        }


def rating_of(line: Mapping[str, Any], settings: BlindTestSettings, prompts: int, place: str) -> Rating:
    """The rating of a line.

    Args:
        line: of the file.
        settings: of the test.
        prompts: how many there are.
        place: of the line, for the error.

    Raises:
        InputError: it is none: a value is missing, of another kind, or of another test.
    """
    kinds: dict[str, tuple[type, ...]] = {"rater": (str,), "prompt": (int,), "order": (list,), "best": (list,)}
    check_kinds(line, {**kinds, "scores": (dict,), "seconds": (float,)}, place)
    values: list[Any] = [line.get(name) for name in ("rater", "prompt", "order", "best", "scores")]
    rater, prompt, order, best, scores = values
    is_known = rater and prompt in range(prompts) and order and all(model in settings.models for model in order)
    if not (is_known and all(model in order for model in best or ()) and _are_scores(scores, order, settings.criteria)):
        raise InputError("is no rating of this test", place, "restore the line, or delete it where it is damaged")
    return Rating(rater, prompt, order, best, scores, line.get("seconds"))


def _are_scores(scores: dict[str, Any] | None, order: list[str], criteria: list[str]) -> bool:
    """Whether there are no scores, or one of each model by each criterion."""
    if scores is None:
        return True
    return set(scores) == set(order) and all(
        isinstance(given, dict)
        and set(given) == set(criteria)
        and all(isinstance(score, int) for score in given.values())
        for given in scores.values()
    )
