"""A blind test: people compare the answers of models to the same prompts, without names and in random order.

It is a folder: ``test.json`` (settings and prompts), ``answers.jsonl`` and ``ratings.jsonl``. The last two are only
appended to, and a rating is on the disk before its rater sees the next prompt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, atomic_write
from lmworks.base.json_file import read_object
from lmworks.base.json_lines import JsonLines
from lmworks.base.seeds import derived_seed
from lmworks.base.settings import build
from lmworks.ratings.answers import Answers, are_identical, differ
from lmworks.ratings.blind_test_settings import BlindTestSettings
from lmworks.ratings.rating import HIGHEST, LOWEST, Rating, Scores, rating_of
from lmworks.text.messages import Message

TEST, ANSWERS, RATINGS = "test.json", "answers.jsonl", "ratings.jsonl"
VERSION = 1
LONGEST_NAME = 64


@dataclass(frozen=True)
class Progress:
    """Where a test stands, for one rater or for all of them together.

    Attributes:
        prompts: all of them.
        missing: answers that are still to be made.
        identical: prompts to which all models answer the same; they count as ties and are not shown.
        unanswered: prompts that fewer than two models can answer; they are not shown.
        rated, skipped: prompts.
        left: prompts that can be rated now.
    """

    prompts: int
    missing: int
    identical: int
    unanswered: int
    rated: int
    skipped: int
    left: int


class BlindTest:
    """A blind test on the disk.

    Args:
        folder: its folder.

    Attributes:
        path: the folder.
        settings: of the test.
        prompts: conversations, messages each.
        notes: about the prompts.
        answers: of the models.

    Raises:
        InputError: there is none in that folder, or its files are damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder)
        place = self.path / TEST
        if not place.is_file():
            raise InputError(f"has no {TEST}: it is no blind test", str(self.path), "make one with lmworks studio")
        content = read_object(place)
        if content.get("version") != VERSION:
            fault = f"has version {content.get('version')!r}, and {VERSION} is read here"
            raise InputError(fault, str(place), "open it with the version of lmworks that wrote it")
        self.settings = build(BlindTestSettings, content["settings"], place)
        self.prompts: list[list[Message]] = content["prompts"]
        self.notes: list[str] = content["notes"]
        self.answers = Answers(self.path / ANSWERS, self.settings.models, len(self.prompts))
        self._ratings = JsonLines(self.path / RATINGS)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        settings: BlindTestSettings,
        prompts: Sequence[Sequence[Message]],
        notes: Sequence[str] = (),
    ) -> BlindTest:
        """A new test.

        Args:
            folder: to be made.
            settings: of the test.
            prompts: conversations (ratings/prompts).
            notes: about them.

        Raises:
            InputError: there is something in the folder, there is no prompt, or the place cannot be written.
        """
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError("is there already and not empty", str(path), "choose another name")
        if not prompts:
            raise InputError("there is no prompt", "prompts", "give one or more")
        content = {"version": VERSION, "created": round(time.time(), 3), "settings": settings.model_dump(mode="json")}
        content |= {"notes": list(notes), "prompts": [list(prompt) for prompt in prompts]}
        with atomic_folder(path) as folder:
            for name in (ANSWERS, RATINGS):
                atomic_write(folder / name, b"")
            atomic_write(folder / TEST, json.dumps(content, ensure_ascii=False, indent=1))
        return cls(path)

    def file_notes(self) -> list[str]:
        """What was wrong with the files: a last line that a killed process left unfinished."""
        self.answers.all()
        self._ratings.objects()
        return [*self.answers.notes, *self._ratings.notes]

    def order(self, prompt: int, rater: str) -> list[str]:
        """The models in the order in which a rater sees their answers; seed, prompt and rater alone decide it."""
        return self._order(self.answers.texts()[prompt], prompt, rater)

    def _order(self, texts: dict[str, str], prompt: int, rater: str) -> list[str]:
        random = np.random.default_rng(derived_seed(self.settings.seed, f"answers {prompt} {rater}"))
        models = list(texts)
        return [models[place] for place in random.permutation(len(models))]

    def next_prompt(self, rater: str) -> int | None:
        """The number of the next prompt that a rater is to see, in an order of the rater's own; None: there is none."""
        texts = self.answers.texts()
        decided = {rating.prompt for rating in self.ratings() if rating.rater == rater}
        random = np.random.default_rng(derived_seed(self.settings.seed, f"prompts {rater}"))
        sequence = random.permutation(len(self.prompts)).tolist()
        return next((prompt for prompt in sequence if prompt not in decided and differ(texts[prompt])), None)

    def ratings(self) -> list[Rating]:
        """The ratings that hold, in the order in which they were made: of each rater and prompt the last one, unless it
        was taken back.

        Raises:
            InputError: a line is no rating.
        """
        holding: dict[tuple[str, int], Rating] = {}
        for number, line in enumerate(self._ratings.objects(), 1):
            place = f"{self._ratings.path}:{number}"
            if "undo" in line:
                holding.pop((line.get("rater", ""), line["undo"]), None)
                continue
            rating = rating_of(line, self.settings, len(self.prompts), place)
            holding.pop((rating.rater, rating.prompt), None)
            holding[rating.rater, rating.prompt] = rating
        return list(holding.values())

    def rate(
        self,
        rater: str,
        prompt: int,
        best: Sequence[int] | None = None,
        scores: Sequence[dict[str, int]] | None = None,
        seconds: float | None = None,
    ) -> Rating:
        """Keep what a rater says; without ``best`` and ``scores`` the prompt is skipped.

        Args:
            rater: a name.
            prompt: its number.
            best: places, from 0, of the best answers in the order shown; all of them: a tie. Answers of the same text
                are equally good.
            scores: of each answer, in the order shown, by criterion.
            seconds: that it took.

        Returns:
            The rating as it is kept, on the disk already.

        Raises:
            InputError: a value is none that the test knows; names it.
        """
        rater = checked_rater(rater)
        if not 0 <= prompt < len(self.prompts):
            raise InputError(f"there is no prompt {prompt}", "prompt", f"give 0 to {len(self.prompts) - 1}")
        texts = self.answers.texts()[prompt]
        if not differ(texts):
            raise InputError(f"prompt {prompt} has no answers to compare", "prompt", "ask for the next one")
        unfitting = {"choice": scores, "scores": best}[self.settings.by]
        if unfitting is not None:
            field = "best" if self.settings.by == "choice" else "scores"
            raise InputError(f"this test is rated by {self.settings.by}", "rating", f"give {field}")
        order = self._order(texts, prompt, rater)
        chosen = None if best is None else _chosen(texts, order, best)
        given = None if scores is None else self._scores(order, scores)
        rating = Rating(rater, prompt, order, chosen, given, seconds)
        self._ratings.append(rating.line(time.time()))
        return rating

    def undo(self, rater: str) -> int | None:
        """Take back a rater's last rating that holds.

        Returns:
            The number of its prompt; None where there was no rating.
        """
        prompt = next((rating.prompt for rating in reversed(self.ratings()) if rating.rater == rater), None)
        if prompt is not None:
            self._ratings.append({"time": round(time.time(), 3), "rater": rater, "undo": prompt})
        return prompt

    def progress(self, rater: str | None = None) -> Progress:
        """Where the test stands for a rater; without one, for all of them together."""
        ratings = [rating for rating in self.ratings() if rater in (None, rating.rater)]
        rated = {rating.prompt for rating in ratings if not rating.is_skipped}
        skipped = {rating.prompt for rating in ratings} - rated
        texts, missing = self.answers.texts(), self.answers.missing()
        incomplete = {prompt for prompt, _ in missing}
        shown = {prompt for prompt, answers in enumerate(texts) if differ(answers)}
        identical = sum(map(are_identical, texts))
        unanswered = len(self.prompts) - len(incomplete) - len(shown) - identical
        left = len(shown - rated - skipped)
        return Progress(len(self.prompts), len(missing), identical, unanswered, len(rated), len(skipped), left)

    def _scores(self, order: list[str], scores: Sequence[dict[str, int]]) -> Scores:
        names = self.settings.criteria
        if len(scores) != len(order) or any(set(given) != set(names) for given in scores):
            raise InputError("are not complete", "scores", f"score each of {len(order)} answers by {', '.join(names)}")
        for given in scores:
            for name, score in given.items():
                if not isinstance(score, int) or isinstance(score, bool) or not LOWEST <= score <= HIGHEST:
                    raise InputError(f"{score!r} is no score", f"scores: {name}", f"give {LOWEST} to {HIGHEST}")
        return {model: {name: given[name] for name in names} for model, given in zip(order, scores, strict=True)}


def _chosen(texts: dict[str, str], order: list[str], best: Sequence[int]) -> list[str]:
    """The models whose answers have the text of one of the best."""
    for place in best:
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(order):
            raise InputError(f"{place!r} is no answer's place", "best", f"give 0 to {len(order) - 1}")
    if not best:
        raise InputError("is empty", "best", "give the places of the best answers; all of them for a tie")
    chosen = {texts[order[place]] for place in best}
    return [model for model in order if texts[model] in chosen]


def checked_rater(name: str) -> str:
    """A rater's name without white space around it.

    Raises:
        InputError: it is empty, too long, or has signs that cannot be seen.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError("is no name of a rater", "rater", f"give 1 to {LONGEST_NAME} characters, as your initials")
    return name
