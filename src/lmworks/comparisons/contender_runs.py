"""The runs of a contender in a comparison: its search, its final runs, and what is measured of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import duration, number
from lmworks.base.journal import JOURNAL, RunFolder, is_locked
from lmworks.base.settings import merge
from lmworks.comparisons import comparison_figure, processes, schedule
from lmworks.comparisons.comparison_state import Result, State, Trial
from lmworks.comparisons.contender_recipes import data_and_groups
from lmworks.comparisons.pacing import seconds_alive
from lmworks.comparisons.planting import CANARY_KINDS, canaries_of
from lmworks.comparisons.schedule import RunTimes
from lmworks.train.settings import MOST_STEPS

DEFAULT_EPOCH_LIMIT = 3.0
"""Upper limit of epochs where train.epochs is not set."""
QUICK_SECONDS = 8.0
"""Expected of a contender that counts words or asks nothing."""
WRITTEN = "instructions"
"""The task of rows with written answers, where no contender names another."""
CANARIES, RETAINED = "canaries.jsonl", "retained.json"
"""Rows that are planted among those to train on; what the base can do, measured once."""
ENDING_SECONDS = 30.0
"""For which the process of a killed session is waited for."""
MEASURED_TOKENS, REPRODUCED_TOKENS, CANARY_TOKENS = 14_000, 20_000, 600
"""What measuring use and forgetting takes, roughly, in tokens of training; what reproduced rows add, where answers are
written; and what each canary adds, planted or not: a hundred other secrets of some six tokens each."""
SEARCHED: dict[str, Any] = {"task_rows": 0, "general_bytes": 0, "samples": 0}
"""What a run of a search evaluates besides the validation part: nothing."""


class ContenderRuns:
    """Runs contenders, each run in a process of its own.

    Attributes:
        folder: of the comparison.
        state: of the comparison.
    """

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state

    def data_settings(self, validation: bool) -> dict[str, Any]:
        """The group ``data`` of a run's recipe, as all contenders have it.

        Args:
            validation: whether the validation part is held out and the test part left out, or the test part held out.
        """
        settings = self.state.settings
        data = settings.data.model_dump(mode="json", exclude_unset=True)
        if (self.folder / CANARIES).is_file():
            data["additional"] = [*settings.data.additional, str((self.folder / CANARIES).resolve())]
        return {**data, "source": settings.source, "validation": settings.validation if validation else 0.0}

    def killed_seconds(self) -> float:
        """Seconds that killed sessions spent on runs that they left unfinished, not counted before."""
        total = 0.0
        for result in self.state.results:
            for trial in result.trials:
                folder = self.folder / trial.folder
                if trial.state == "open" and (folder / JOURNAL).is_file():
                    more = max(0.0, seconds_alive(RunFolder(folder)) - trial.killed_seconds)
                    trial.killed_seconds += more
                    trial.seconds += more
                    total += more
        return total

    def planned(self, result: Result) -> schedule.Planned:
        """What the runs of a contender, none of which is done, are expected to take."""
        times, runs = run_times_of(result, self.state), self._runs_of(result)
        return schedule.Planned(result.epochs or 0.0, times.steps, times.training(*runs), times.fixed(*runs))

    def _runs_of(self, result: Result) -> tuple[list[int], int]:
        """The runs of each round of its search, and its final runs."""
        return schedule.rounds(self.state.settings.rates) if result.searches else [], self.state.settings.seeds

    def run(self, result: Result, write: Callable[[], None]) -> Iterator[str]:
        """Run a contender; yields lines of progress.

        Args:
            result: changed.
            write: writes the state; called before and after each run.

        Raises:
            InputError: a run was refused.
        """
        while result.searches and (trial := self._open(result, self._next_in_search)) is not None:
            self._run_trial(result, trial, write)
            said = "the loss was no number any more" if trial.score is None else f"validation {number(trial.score)}"
            yield f"{_how(trial)}: {said}, {duration(trial.seconds)}"
        if not result.chosen:
            result.chosen = _choice(result)
        while (trial := self._open(result, self._next_final)) is not None:
            self._run_trial(result, trial, write)
        if result.measuring_seconds is None:
            yield "measuring what it costs in use" + (
                ", what it forgot and memorised" if result.kind == "trained" else ""
            )
            self._measure(result)
        write()

    def _measure(self, result: Result) -> None:
        """Measure the first final run besides its figures."""
        began = time.monotonic()
        parts = [] if result.kind == "baseline" else ["in_use"]
        if result.kind == "trained":
            parts += ["forgetting", *(["memorisation"] if self.state.row_counts["kind"] in CANARY_KINDS else [])]
        if parts:
            settings, run = self.state.settings, self.folder / result.finals[0].folder
            planted = settings.canaries if (self.folder / CANARIES).is_file() else 0
            job = {"run": str(run), "parts": parts, "kind": self.state.row_counts["kind"], "canaries": planted}
            measurements = processes.run_job("measure", **job, retained=str(self.folder / RETAINED))
            result.notes += measurements.pop("notes")
            result.in_use, result.memorisation = measurements.get("in_use", {}), measurements.get("memorisation", {})
            result.forgetting |= measurements.get("forgetting", {})
        result.measuring_seconds = time.monotonic() - began

    def _open(self, result: Result, next_: Callable[[Result], Trial | None]) -> Trial | None:
        """The run that was begun and not finished, or the next one."""
        unfinished = next((trial for trial in result.trials if trial.state == "open"), None)
        if unfinished is not None:
            return unfinished
        trial = next_(result)
        if trial is not None:
            result.trials.append(trial)
        return trial

    def _next_in_search(self, result: Result) -> Trial | None:
        """The next run of a search by successive halving; None: it is over."""
        assert result.epochs is not None
        before: list[Trial] = []
        rates = self.state.settings.rates
        for count, share in zip(schedule.rounds(rates), schedule.SHARES, strict=True):
            done = [trial for trial in result.search if trial.share == share]
            if len(done) < count:
                ranked = sorted(before, key=_rank)
                first = schedule.learning_rates(result.plan["learning_rate"], rates)
                rate = ranked[len(done)].learning_rate if ranked else first[len(done)]
                place = f"{result.name}/search-{len(result.search) + 1}"
                return Trial(place, learning_rate=rate, epochs=result.epochs * share, share=share)
            before = done
        return None

    def _next_final(self, result: Result) -> Trial | None:
        """The final run with the next seed; None: all are done."""
        seed = len(result.finals)
        if seed == (self.state.settings.seeds if result.kind == "trained" else 1):
            return None
        chosen = result.chosen
        return Trial(f"{result.name}/seed-{seed}", seed, chosen.get("learning_rate"), chosen.get("epochs"))

    def _run_trial(self, result: Result, trial: Trial, write: Callable[[], None]) -> None:
        """Do a run, or go on with it. A run of the search that diverges has no score.

        Raises:
            InputError: it was refused.
        """
        write()
        began = time.monotonic()
        folder = self.folder / trial.folder
        while (folder / JOURNAL).is_file() and is_locked(folder) and time.monotonic() - began < ENDING_SECONDS:
            time.sleep(0.2)  # a process whose parent was killed saves what it has
        has_begun = (folder / JOURNAL).is_file() and bool(RunFolder(folder).events("start"))
        if not has_begun or result.kind == "baseline":  # killed before it began, or done in a moment
            shutil.rmtree(folder, ignore_errors=True)
        fault: InputError | None = None
        try:
            self._start(result, trial)
            if trial.share is not None and (validation := _validation(folder)) is not None:
                trial.score, trial.better, trial.loss = validation
        except InputError as error:
            fault = None if trial.share is not None and _has_diverged(folder) else error
        if trial.share is not None:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            shutil.rmtree(folder / "final", ignore_errors=True)
        trial.state, trial.seconds = "done", trial.seconds + time.monotonic() - began
        if fault is not None:
            raise fault
        if result.kind != "classical":
            self.state.task = self.state.task or comparison_figure.task_of(folder)
        write()

    def _start(self, result: Result, trial: Trial) -> None:
        """Start the process of a run, and wait for its end."""
        folder = self.folder / trial.folder
        model, groups = self.state.settings.model, dict(result.settings)
        if result.kind == "classical":
            model = groups.pop("model")
        data, groups = data_and_groups(groups, self.data_settings(validation=trial.share is not None))
        if result.kind == "baseline":
            job = {"rows": groups["rows"], "samples": groups["samples"], "task": self.state.task or WRITTEN}
            processes.run_job("nearest", data=data, out=str(folder), **job)
        else:
            job = {"model": model, "data": data, "groups": self._with_trial(groups, trial), "out": str(folder)}
            processes.run_job("run", **job)

    def _with_trial(self, groups: dict[str, Any], trial: Trial) -> dict[str, Any]:
        """The groups of the recipe of one run."""
        if trial.epochs is None:
            return groups
        train = {
            "epochs": trial.epochs,
            "seed": int(groups.get("train", {}).get("seed", 0)) + trial.seed,
            "evaluate_every": MOST_STEPS,
        }
        if trial.learning_rate is not None:
            train["learning_rate"] = trial.learning_rate
        more: dict[str, Any] = {"train": train}
        if trial.share is not None:
            more["evaluate"] = SEARCHED
        return merge(groups, more)


def _has_diverged(folder: Path) -> bool:
    """Whether a run ended since its loss was no number."""
    return (folder / JOURNAL).is_file() and bool(RunFolder(folder).events("failure"))


def _validation(folder: Path) -> comparison_figure.Validation | None:
    """The score of a run on the validation part."""
    return comparison_figure.validation_score(
        comparison_figure.final_evaluation(folder), comparison_figure.task_of(folder)
    )


def _rank(trial: Trial) -> tuple[float, float, float]:
    """Best first; of equal ones that of the lower loss, then the shorter."""
    sign = -1.0 if trial.better == "higher" else 1.0
    score = float("inf") if trial.score is None else sign * trial.score
    return score, trial.loss or 0.0, trial.epochs or 0.0


def _choice(result: Result) -> dict[str, Any]:
    """Learning rate and length of the final runs: those of the best run of the search."""
    if result.search:
        if all(trial.score is None for trial in result.search):
            raise InputError(
                "the loss was no number any more at any learning rate", result.name, "lower ones: --rates 5"
            )
        best = min(result.search, key=_rank)
        return {"learning_rate": best.learning_rate, "epochs": best.epochs, "by": "search"}
    if result.kind != "trained":
        return {}
    return {"learning_rate": result.plan["learning_rate"], "epochs": result.epochs, "by": "default"}


def _how(trial: Trial) -> str:
    return f"learning rate {trial.learning_rate:g}, {number(trial.epochs or 0.0)} epochs"


def run_times_of(result: Result, state: State) -> RunTimes:
    """The times of a contender's runs, by its plan.

    Args:
        result: of the contender, with its plan.
        state: of the comparison.
    """
    plan, row_counts = result.plan, state.row_counts
    if result.kind == "before":
        return RunTimes(0.0)
    if result.kind in ("baseline", "classical"):
        return RunTimes(QUICK_SECONDS)
    of_training = plan["epoch"] * row_counts["validation"] / max(1, row_counts["training"])
    of_test = plan["evaluation"] * row_counts["validation"] / max(1, row_counts["test"])
    return RunTimes(
        start=plan["start"] + plan["process"],
        epoch=plan["epoch"] if result.kind == "trained" else 0.0,
        steps=max(1.0, plan["steps"]),
        validation=min(of_training, of_test),
        test=plan["evaluation"] + plan["before"],
        measuring=_measuring_seconds(state) if result.kind == "trained" else QUICK_SECONDS,
        most_epochs=plan["most_epochs"] if plan["is_length_set"] else max(DEFAULT_EPOCH_LIMIT, plan["most_epochs"]),
    )


def _measuring_seconds(state: State) -> float:
    """What measuring a trained contender takes: nearly the same for all, as long as the mean of those that were
    measured, or else by how fast they train."""
    trained = [result for result in state.results if result.kind == "trained"]
    if measured := [result.measuring_seconds for result in trained if result.measuring_seconds is not None]:
        return sum(measured) / len(measured)
    kind = state.row_counts["kind"]
    tokens = MEASURED_TOKENS + CANARY_TOKENS * sum(map(len, canaries_of(kind, state.settings.canaries)))
    tokens += REPRODUCED_TOKENS if kind in CANARY_KINDS else 0
    speeds = [result.plan["token"] for result in trained if "token" in result.plan]
    return QUICK_SECONDS + tokens * sum(speeds) / len(speeds)
