"""Runs benchmarks on a model: rows are read and checked first, then each benchmark is asked, scored and written down.

The folder of an evaluation has ``evaluation.json`` (scores with signatures and intervals, settings, what was left out)
and ``requests/NAME.jsonl``: for each row the token ids that were sent, what came back and what would be right.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, make_folder
from lmworks.evaluate.metric_score import MetricScore
from lmworks.language_model.few_shot import Embed
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.examples import number_of_shots, shown_before
from lmworks.suites.figures import check_metrics, scores_of
from lmworks.suites.files import find_files, read_items
from lmworks.suites.form import Answers, Question
from lmworks.suites.forms import FORMS
from lmworks.suites.registry import Chosen
from lmworks.suites.settings import SuiteSettings

EVALUATION, REQUESTS = "evaluation.json", "requests"
FEWEST_ROWS = 30
"""Of fewer rows a note says that the interval is wide."""
NEAREST_AMONG = 50
"""Rows among which the nearest examples are found, where no file has any."""
CHOOSE = "choose another benchmark: lmworks evaluate --list"


@dataclass(frozen=True)
class Prepared:
    """A benchmark whose rows were read and checked.

    Attributes:
        chosen: the benchmark.
        questions: that are asked.
        examples: that may be shown before them.
        described: of its data, for signatures.
        notes: what a reader must know.
    """

    chosen: Chosen
    questions: list[Question]
    examples: list[Question]
    described: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark came to.

    Attributes:
        name, about: of the benchmark.
        by: how the model was asked: "likelihood", "vectors", "text" ...
        scores: the headline first.
        rows: that were asked.
        seconds: that it took.
        notes: what a reader must know.
        answers: of each row; not kept in evaluation.json.
    """

    name: str
    about: str
    by: str
    scores: list[MetricScore]
    rows: int
    seconds: float
    notes: list[str] = field(default_factory=list)
    answers: Answers | None = None

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "name": self.name,
            "about": self.about,
            "by": self.by,
            "rows": self.rows,
            "seconds": round(self.seconds, 2),
            "scores": [score.as_json() for score in self.scores],
            "notes": self.notes,
        }


@dataclass(frozen=True)
class LeftOut:
    """A benchmark that was not run, and why."""

    name: str
    reason: str


def prepare(chosen: Chosen, data: str | Path | None, settings: SuiteSettings, offline: bool | None = None) -> Prepared:
    """Read and check the rows of a benchmark.

    Args:
        chosen: the benchmark.
        data: the folder below which its files lie; None: from the hub.
        settings: of the evaluation.
        offline: fetch nothing.

    Raises:
        InputError: a file is missing, or a row is not as the benchmark's are.
    """
    benchmark, form = chosen.benchmark, FORMS[chosen.benchmark.form]
    check_metrics(benchmark.metrics, chosen.name)
    files = find_files(chosen.name, benchmark, data, settings.split, offline)
    questions = form.questions(benchmark, read_items(files, files.paths), settings)
    shots, notes = number_of_shots(form, benchmark, settings), []
    examples: list[Question] = []
    if shots and files.example_paths:
        examples = form.questions(benchmark, read_items(files, files.example_paths), settings)
    elif shots:
        questions, examples = _set_aside(questions, settings, shots)
        notes.append(f"without a file of examples, {len(examples)} rows are drawn to be shown, and not asked")
    whole = len(questions)
    questions = _drawn(questions, settings)
    described = {"suite": chosen.name, "split": files.split, "data": _digest(questions)}
    if len(questions) < whole:
        described["drawn"] = f"{len(questions)} of {whole} by seed {settings.seed}"
    return Prepared(chosen, questions, examples, described, notes)


def asked_again(prepared: Prepared, settings: SuiteSettings) -> Prepared:
    """The same rows in the form that other settings give their prompts."""
    benchmark, form = prepared.chosen.benchmark, FORMS[prepared.chosen.benchmark.form]
    questions, examples = (
        form.questions(benchmark, [question.item for question in listed], settings) if listed else []
        for listed in (prepared.questions, prepared.examples)
    )
    described = {**prepared.described, "data": _digest(questions)}
    return replace(prepared, questions=questions, examples=examples, described=described)


def run_benchmark(
    prepared: Prepared,
    model: EvaluatedModel,
    settings: SuiteSettings,
    embed_by: Callable[[str], Embed],
    folder: Path | None = None,
) -> BenchmarkResult:
    """Ask a model a benchmark's questions, and score its answers.

    Args:
        prepared: of :func:`prepare`.
        model: that is asked.
        settings: of the evaluation.
        embed_by: the source of an encoder -> what gives its vectors.
        folder: where the requests are kept; None: nowhere.

    Raises:
        InputError: the model cannot be asked.
    """
    benchmark, form = prepared.chosen.benchmark, FORMS[prepared.chosen.benchmark.form]
    if reason := form.obstacle(benchmark, model):
        raise InputError(f"{prepared.chosen.name} cannot be asked of this model: {reason}", model.source, CHOOSE)
    started = time.perf_counter()
    shown = shown_before(form, benchmark, prepared.questions, prepared.examples, settings, embed_by)
    answers = form.answers(benchmark, prepared.questions, shown, model, settings)
    described = {**prepared.described, "by": answers.by, **answers.described}
    if "template" in answers.described:  # it was asked by a prompt
        shots = len(shown[0])
        described |= {"shots": shots, **({"examples": f"{settings.shots_from} {digest(shown)}"} if shots else {})}
    scores = [
        replace(score, signature=score.signature.with_settings(**described))
        for score in scores_of(benchmark.metrics, answers.rows)
    ]
    seconds = time.perf_counter() - started
    notes = [*prepared.notes, *answers.notes]
    if len(answers.rows) < FEWEST_ROWS:
        notes.append(f"{len(answers.rows)} rows say little: see the interval")
    if folder is not None:
        _write_requests(folder / REQUESTS / f"{prepared.chosen.name}.jsonl", answers)
    return BenchmarkResult(
        prepared.chosen.name, benchmark.about, answers.by, scores, len(answers.rows), seconds, notes, answers
    )


def _drawn(questions: list[Question], settings: SuiteSettings) -> list[Question]:
    """At most as many questions as the settings say, drawn at random, in order; pairs stay together."""
    if settings.limit is None or len(questions) <= settings.limit:
        return questions
    pairs: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        pairs.setdefault(question.pair or f"row {index}", []).append(index)
    names, kept = list(pairs), list[int]()
    for place in np.random.default_rng(settings.seed).permutation(len(names)):
        if len(kept) + len(pairs[names[place]]) <= settings.limit:
            kept += pairs[names[place]]
    return [questions[index] for index in sorted(kept)] or questions[: settings.limit]


def _set_aside(questions: list[Question], settings: SuiteSettings, shots: int) -> tuple[list[Question], list[Question]]:
    """Questions to ask, and others to show, drawn at random."""
    count = min(len(questions) // 2, max(shots, NEAREST_AMONG if settings.shots_from == "nearest" else 0))
    drawn = set(np.random.default_rng(settings.seed).choice(len(questions), count, replace=False).tolist())
    asked = [question for index, question in enumerate(questions) if index not in drawn]
    return asked, [questions[index] for index in sorted(drawn)]


def _digest(questions: Sequence[Question]) -> str:
    """Of what is asked, by which two evaluations of the same rows in the same words are known."""
    return digest([[question.prompts, question.options, question.references, question.texts] for question in questions])


def digest(values: Any) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(values, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:8]


def _write_requests(path: Path, answers: Answers) -> None:
    """A line for each row: what was sent, what came back, what would be right."""
    make_folder(path.parent)
    lines = []
    for answer in answers.rows:
        question = answer.question
        named = {rule or "answer": value for rule, value in answer.predictions.items()}
        row = {"row": question.item.number, "place": question.item.place, "predictions": named}
        row |= {"references": answer.references, **({"group": question.group} if question.group else {})}
        lines.append(json.dumps({**row, **answer.record}, ensure_ascii=False, default=_plain))
    atomic_write(path, "".join(f"{line}\n" for line in lines))


def _plain(value: Any) -> Any:
    """Numbers of NumPy as Python's."""
    return value.item() if hasattr(value, "item") else str(value)
