"""Where a comparison stands, and what it came to: comparison.json. Imports no torch."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import read_object
from lmworks.comparisons.comparison_settings import CompareSettings

STATE = "comparison.json"
VERSION = 2
FORMER_KEYS = {"rows": "row_counts"}
"""Key in a file of version 1 -> key in this version."""
FORMER_RESULT_KEYS = {"rows": "numerators", "weights": "denominators", "measuring": "measuring_seconds"}
"""The same for the keys of each of its results."""


@dataclass
class Trial:
    """One run of a contender.

    Attributes:
        folder: of the run, below the comparison's.
        seed: of training.
        learning_rate, epochs: of training; None where nothing is trained by steps.
        share: of the contender's full length, in the search; None: a final run, evaluated on the test part.
        seconds: that it took, those of killed sessions too.
        killed_seconds: those of killed sessions alone.
        score: the figure on the validation part; None: not evaluated there, or no number.
        better: which scores are better: higher or lower.
        loss: on the validation part: of equal scores, that of the lower one is better.
        state: open or done.
    """

    folder: str
    seed: int = 0
    learning_rate: float | None = None
    epochs: float | None = None
    share: float | None = None
    seconds: float = 0.0
    killed_seconds: float = 0.0
    score: float | None = None
    better: str = "higher"
    loss: float | None = None
    state: str = "open"


@dataclass
class Result:
    """A contender in a comparison.

    Attributes:
        name, title, kind: of the contender.
        settings: groups of its recipe.
        state: open, done, or left out.
        reason: why it was left out.
        plan: before anything is trained: "task"; seconds: "process" and "start" (until a run trains), "epoch",
            "evaluation" (of the test part), "before" (of the same before training), "token"; "steps" of an epoch;
            "epochs" that it was given, "most_epochs", "is_length_set"; "parameters", "trainable", "memory" (bytes),
            "learning_rate", "note".
        epochs: the full length of its training that the budget allows; None: nothing is trained by steps.
        searches: whether learning rate and length are searched.
        is_postponed: whether it waits until the others are done, since there may be no time for it.
        trials: its runs so far, the final ones last.
        chosen: learning_rate and epochs of the final runs.
        value: the measure on the test part: sum of ``numerators`` / sum of ``denominators``.
        interval: the ends of its 95 % interval (bootstrap over rows).
        by_seed: the measure of each final run.
        numerators, denominators: by test row, means over seeds.
        difference: to the best: "value", "interval", "p", "p_holm"; empty for the best itself.
        cost: of training (reports/cost.Cost), and "search_seconds", "all_seconds".
        forgetting: by measure: "title", "unit", "better", "before", "after", "interval" of the change.
        memorisation: "exposure" ("planted", "control", "expected", "most": bits) and "reproduced" ("trained",
            "held_out": shares; "rows", "tokens").
        in_use: "speed" as saved and "merged" (each as run/inference.InferenceSpeed), "disk", "base_disk", "note".
        measuring_seconds: that measuring these took; None: not measured yet.
        answers: for some test rows: "prompt", "reference", "answer", "score".
        notes: what a reader should know.
    """

    name: str
    title: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    state: str = "open"
    reason: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    searches: bool = False
    is_postponed: bool = False
    trials: list[Trial] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    interval: list[float] | None = None
    by_seed: list[float] = field(default_factory=list)
    numerators: list[float] = field(default_factory=list)
    denominators: list[float] = field(default_factory=list)
    difference: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    forgetting: dict[str, Any] = field(default_factory=dict)
    memorisation: dict[str, Any] = field(default_factory=dict)
    in_use: dict[str, Any] = field(default_factory=dict)
    measuring_seconds: float | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def search(self) -> list[Trial]:
        """The runs of its search."""
        return [trial for trial in self.trials if trial.share is not None]

    @property
    def finals(self) -> list[Trial]:
        """Its final runs, one a seed."""
        return [trial for trial in self.trials if trial.share is None]

    @property
    def seconds(self) -> float:
        """All that it took."""
        return sum(trial.seconds for trial in self.trials) + (self.measuring_seconds or 0.0)


@dataclass
class State:
    """A whole comparison as comparison.json holds it.

    Attributes:
        settings: of the comparison, its contenders settled.
        results: one a contender.
        seconds: spent so far, in all sessions.
        planned: seconds that it was planned to take; 0: not planned yet.
        row_counts: "kind", and numbers of rows: "training", "validation", "test"; "digest" of all.
        task: what is learned.
        measure: "key", "title", "unit", "better", "signature" of what is compared; empty before the first result.
        best: name of the contender with the best figure; empty before there are two.
        machine: on which it was measured.
        recommendation: "name", and "reasons", sentences; empty before the end.
        notes: of the data, and what was cut short.
    """

    settings: CompareSettings
    results: list[Result]
    seconds: float = 0.0
    planned: float = 0.0
    row_counts: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    measure: dict[str, Any] = field(default_factory=dict)
    best: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    recommendation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write comparison.json, whole or not at all."""
        plain = {name: value for name, value in asdict(self).items() if name != "settings"}
        # what is not set stays so: data.document, for one, is only then recognised by the file's lines
        settings = self.settings.model_dump(mode="json", exclude_unset=True)
        values = {"version": VERSION, "settings": settings, **plain}
        atomic_write(folder / STATE, json.dumps(values, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> State:
        """The comparison in a folder.

        Raises:
            InputError: there is none, or neither this version nor the former one wrote it.
        """
        path = folder / STATE
        if not path.is_file():
            hint = "begin one: lmworks compare MODEL FILE --out FOLDER"
            raise InputError("is the folder of no comparison", str(folder), hint)
        values = _with_current_keys(read_object(path))
        if values.pop("version", None) != VERSION:
            raise InputError("was written by another version of lmworks", str(path), "begin the comparison anew")
        try:
            state = cls._of(values)
            state.check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a file that was edited
            fault = f"is damaged: {type(error).__name__}: {str(error).splitlines()[0]}"
            raise InputError(fault, str(path), "restore it from a copy, or begin the comparison anew") from None
        return state

    @classmethod
    def _of(cls, values: dict[str, Any]) -> State:
        settings = CompareSettings.model_validate(values.pop("settings"))
        results = [
            Result(**{**result, "trials": [Trial(**trial) for trial in result["trials"]]})
            for result in values.pop("results")
        ]
        return cls(settings, results, **values)

    def check(self) -> None:
        """Look for what every comparison has.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or of another type.
        """
        for name in ("kind", "training", "test", "digest") if self.results else ():
            self.row_counts[name]
        for name in ("name", "title", "reasons") if self.recommendation else ():
            self.recommendation[name]
        if self.recommendation and all(result.name != self.recommendation["name"] for result in self.done):
            raise ValueError(f"it recommends {self.recommendation['name']!r}, of which it has no figure")
        for result in self.results:
            if result.value is not None:
                self.measure["better"]
                abs(result.value)

    def copied(self) -> State:
        """A copy that shares nothing with it."""
        return deepcopy(self)

    @property
    def done(self) -> list[Result]:
        """The contenders with a figure."""
        return [result for result in self.results if result.state == "done" and result.value is not None]


def _with_current_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The values of comparison.json, those of version 1 under the keys of this version."""
    if values.get("version") != 1:
        return values
    results = [
        {FORMER_RESULT_KEYS.get(key, key): value for key, value in result.items()} for result in values["results"]
    ]
    for result in results:  # early files of version 1 have what each run was expected to take, which nothing reads
        result["trials"] = [
            {key: value for key, value in trial.items() if key != "expected"} for trial in result["trials"]
        ]
    renamed = {FORMER_KEYS.get(key, key): value for key, value in values.items()}
    return {**renamed, "results": results, "version": VERSION}


def is_comparison(folder: str | Path) -> bool:
    """Whether a folder is one of a comparison."""
    return (Path(folder) / STATE).is_file()
