"""The answers of models to the prompts of a blind test, in a file: each is made once, and every rater sees the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.json_lines import JsonLines


@dataclass(frozen=True)
class Answer:
    """What a model answers to a prompt.

    Attributes:
        text: the answer; None where there can be none.
        finish_reason: "stop", or "length": it was cut off at ``max_tokens``.
        failure: why there can be none.
    """

    text: str | None
    finish_reason: str | None = None
    failure: str | None = None


class Answers:
    """The answers of a blind test.

    Args:
        path: the file.
        models: of the test.
        prompts: how many there are.
    """

    def __init__(self, path: Path, models: Sequence[str], prompts: int) -> None:
        self._lines, self._models, self._prompts = JsonLines(path), models, prompts
        self._read = 0
        self._given: dict[tuple[int, str], Answer] = {}

    @property
    def notes(self) -> list[str]:
        """What was wrong with the file and does not stop the work."""
        return self._lines.notes

    def add(self, prompt: int, model: str, answer: Answer) -> None:
        """Keep an answer. An earlier one of the same model to the same prompt stays, whatever process made it.

        Raises:
            InputError: the test has no such model or prompt, or the file cannot be written.
        """
        if model not in self._models or not 0 <= prompt < self._prompts:
            fault = f"there is no prompt {prompt} for a model {model!r}"
            raise InputError(fault, "answer", f"models: {', '.join(self._models)}; prompts: 0 to {self._prompts - 1}")
        self._lines.append({"time": round(time.time(), 3), "prompt": prompt, "model": model, **asdict(answer)})

    def all(self) -> dict[tuple[int, str], Answer]:
        """The answers that are there, by prompt and model.

        Raises:
            InputError: the file is damaged.
        """
        lines = self._lines.objects()
        for number, line in enumerate(lines[self._read :], self._read + 1):
            try:
                answer = Answer(line["text"], line["finish_reason"], line["failure"])
                self._given.setdefault((line["prompt"], line["model"]), answer)
            except (KeyError, TypeError) as error:
                place = f"{self._lines.path}:{number}"
                raise InputError("is no answer", place, "delete the line: the answer is made again") from error
        self._read = len(lines)
        return self._given

    def missing(self) -> list[tuple[int, str]]:
        """Prompts and models of the answers that are still to be made, in order."""
        given = self.all()
        every = [(prompt, model) for prompt in range(self._prompts) for model in self._models]
        return [key for key in every if key not in given]

    def failures(self) -> list[str]:
        """Which models cannot answer how many prompts, and why: a sentence for each reason."""
        counts = Counter(
            (model, answer.failure) for (_, model), answer in self.all().items() if answer.failure is not None
        )
        return [
            f"{model} cannot answer {count_of(count, 'prompt')}: {reason}" for (model, reason), count in counts.items()
        ]

    def texts(self) -> list[dict[str, str]]:
        """For each prompt the texts of its answers, by model; none where an answer is still missing. A model that
        cannot answer has no text."""
        given = self.all()
        texts = []
        for prompt in range(self._prompts):
            answers = {model: given[prompt, model] for model in self._models if (prompt, model) in given}
            is_complete = len(answers) == len(self._models)
            texts.append(
                {model: answer.text for model, answer in answers.items() if is_complete and answer.text is not None}
            )
        return texts


def differ(texts: dict[str, str]) -> bool:
    """Whether there are two answers or more, not all of them the same: there is something to compare."""
    return len(set(texts.values())) > 1


def are_identical(texts: dict[str, str]) -> bool:
    """Whether there are two answers or more, and all of them the same."""
    return len(texts) > 1 and len(set(texts.values())) == 1
