"""The examples that stand before questions: the same before all, or the most similar ones (language_model/few_shot)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.language_model.few_shot import Embed, FixedExamples, NearestExamples, ShownExamples
from lmworks.suites.benchmark import Benchmark
from lmworks.suites.form import Form, FormWithExamples, Question
from lmworks.suites.prompts import Shown
from lmworks.suites.settings import SuiteSettings
from lmworks.text.rows import Row

QUESTION = "question"
"""The field of a row in which its question stands."""


def shown_before(
    form: Form,
    benchmark: Benchmark,
    questions: Sequence[Question],
    examples: Sequence[Question],
    settings: SuiteSettings,
    embed_by: Callable[[str], Embed],
) -> list[list[Shown]]:
    """For each question the examples before it.

    Args:
        form: of the benchmark.
        benchmark: whose questions they are.
        questions: that are asked.
        examples: that may be shown; where they have groups, a question is shown those of its own.
        settings: how many, and which.
        embed_by: the source of an encoder -> what gives its vectors.

    Raises:
        InputError: there are fewer examples than are to be shown.
    """
    shots = number_of_shots(form, benchmark, settings)
    if not isinstance(form, FormWithExamples) or not shots:
        return [[] for _ in questions]
    shown: dict[int, list[Shown]] = {}
    for group, members in _groups(questions, examples).items():
        own = [example for example in examples if example.group == group] if group is not None else list(examples)
        if len(own) < shots:
            of_group = f" of {group}" if group else ""
            fault = f"{shots} examples are to be shown, and there are {len(own)}{of_group}"
            raise InputError(fault, "--shots", f"--shots {len(own)}, or give a file of examples")
        chosen = _examples(own, shots, settings, embed_by)
        before = chosen.before([_text(questions[index]) for index in members])
        for index, rows in zip(members, before, strict=True):
            shown[index] = [form.shown(benchmark, row.values[QUESTION]) for row in rows]
    return [shown[index] for index in range(len(questions))]


def number_of_shots(form: Form, benchmark: Benchmark, settings: SuiteSettings) -> int:
    """How many examples stand before each question; none before whole texts."""
    if not isinstance(form, FormWithExamples) or not benchmark.prompt:
        return 0
    return benchmark.shots if settings.shots is None else settings.shots


def _groups(questions: Sequence[Question], examples: Sequence[Question]) -> dict[str | None, list[int]]:
    """Numbers of questions by their group, where the examples have the same groups; else all together."""
    known = {example.group for example in examples}
    if not all(question.group in known for question in questions) or known == {""}:
        return {None: list(range(len(questions)))}
    groups: dict[str | None, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(question.group, []).append(index)
    return groups


def _examples(
    examples: Sequence[Question], shots: int, settings: SuiteSettings, embed_by: Callable[[str], Embed]
) -> ShownExamples:
    rows = [Row({"text": _text(example), QUESTION: example}, example.item.place) for example in examples]
    if settings.shots_from == "nearest":
        embed = embed_by(settings.encoder)
        return NearestExamples(rows, embed([row.values["text"] for row in rows]), shots, embed, settings.encoder)
    drawn = np.random.default_rng(settings.seed).choice(len(rows), shots, replace=False)
    return FixedExamples([rows[index] for index in sorted(drawn.tolist())])


def _text(question: Question) -> str:
    """By what questions are compared."""
    return question.prompts[0]
