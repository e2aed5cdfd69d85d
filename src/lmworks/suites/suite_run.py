"""Suites run on a model: all benchmarks that it can be asked, one after the other, and why the others are left out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, make_folder
from lmworks.language_model.few_shot import Embed
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.evaluation import EVALUATION, BenchmarkResult, LeftOut, Prepared, prepare, run_benchmark
from lmworks.suites.files import Unavailable
from lmworks.suites.forms import FORMS
from lmworks.suites.registry import choose
from lmworks.suites.sensitivity import Sensitivity, measure_sensitivity
from lmworks.suites.settings import SuiteSettings

Say = Callable[[str], None]


@dataclass
class Evaluation:
    """What suites came to on a model.

    Attributes:
        model: its source.
        signature: what computed it, and the formats of its weights.
        suite: as it was asked for.
        settings: of the evaluation.
        results: in the order of the suite.
        left_out: benchmarks that were not run.
        sensitivity: of each benchmark, where it was asked for.
        seconds: that all took, without opening the model.
        folder: that has the requests; None: none is kept.
    """

    model: str
    signature: str
    suite: str
    settings: SuiteSettings
    results: list[BenchmarkResult] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    seconds: float = 0.0
    folder: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """The evaluation as a JSON object."""
        return {
            "model": self.model,
            "signature": self.signature,
            "suite": self.suite,
            "settings": self.settings.model_dump(exclude_defaults=True),
            "benchmarks": [result.as_json() for result in self.results],
            "left_out": [{"name": entry.name, "reason": entry.reason} for entry in self.left_out],
            "sensitivity": [entry.as_json() for entry in self.sensitivity],
            "seconds": round(self.seconds, 2),
        }


def run_suites(
    suite: str,
    open_model: Callable[[], EvaluatedModel],
    embed_by: Callable[[str], Embed],
    data: str | Path | None = None,
    settings: SuiteSettings | None = None,
    folder: str | Path | None = None,
    sensitivity: bool = False,
    offline: bool | None = None,
    say: Say | None = None,
) -> Evaluation:
    """Run suites on a model.

    Args:
        suite: names of suites or benchmarks, or files of suites, with commas between them.
        open_model: opens it, once all rows have been read and checked.
        embed_by: the source of an encoder -> what gives its vectors, for the nearest examples.
        data: the folder below which the files lie; None: from the hub.
        settings: of the evaluation.
        folder: new, for evaluation.json and the requests; None: nothing is kept.
        sensitivity: ask each benchmark again in other forms of the prompt.
        offline: fetch nothing.
        say: gets a line when a benchmark begins.

    Raises:
        InputError: a row cannot be used; or nothing could be run, with the first reason.
    """
    settings = settings or SuiteSettings()
    _check_new(folder)
    prepared, faults = _prepare_all(suite, data, settings, offline)
    model = open_model()
    place = None if folder is None else make_folder(Path(folder))
    evaluation = Evaluation(model.source, model.signature, suite, settings, folder=place)
    evaluation.left_out = [LeftOut(name, _in_a_line(fault)) for name, fault in faults.items()]
    started = time.perf_counter()
    for number, entry in enumerate(prepared, 1):
        benchmark = entry.chosen.benchmark
        if reason := FORMS[benchmark.form].obstacle(benchmark, model):
            evaluation.left_out.append(LeftOut(entry.chosen.name, reason))
            continue
        if say is not None:
            say(f"{number}/{len(prepared)} {entry.chosen.name}: {len(entry.questions):,} rows")
        result = run_benchmark(entry, model, settings, embed_by, place)
        evaluation.results.append(result)
        if sensitivity:
            measured = measure_sensitivity(entry, result, model, settings, embed_by, place)
            evaluation.sensitivity.append(measured)
        evaluation.seconds = time.perf_counter() - started
        if place is not None:
            write_evaluation(place, evaluation)
    if not evaluation.results:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in evaluation.left_out)
        raise InputError(f"nothing of {suite} could be asked: {reasons}", model.source, "lmworks evaluate --list")
    return evaluation


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json."""
    text = json.dumps(evaluation.as_json(), ensure_ascii=False, indent=1)
    atomic_write(folder / EVALUATION, text + "\n")


def _prepare_all(
    suite: str, data: str | Path | None, settings: SuiteSettings, offline: bool | None
) -> tuple[list[Prepared], dict[str, InputError]]:
    """The benchmarks whose files are there, and by name what is wrong with the others.

    Raises:
        InputError: a row cannot be used, or no file is there.
    """
    prepared: list[Prepared] = []
    faults: dict[str, InputError] = {}
    for chosen in choose(suite):
        try:
            prepared.append(prepare(chosen, data, settings, offline))
        except Unavailable as error:
            faults[chosen.name] = error
    if not prepared:
        raise next(iter(faults.values()))
    return prepared, faults


def _check_new(folder: str | Path | None) -> None:
    """Refuse a folder that holds something, before anything is computed."""
    place = None if folder is None else Path(folder)
    if place is not None and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError("is there already and not empty", str(place), "choose another with --out")


def _in_a_line(error: InputError) -> str:
    return f"{error.fault}; {error.hint}"
