"""A comparison of ways to adapt a model to a data set: the same rows, seeds and evaluation for all, within a budget.

The time is divided before anything is trained (comparisons/schedule), from plans that were measured. Each contender
then searches its learning rate and length on the validation part. Its final runs, one a seed, train on all training
rows and are evaluated on the test part, which nothing before has seen. comparison.json is written after each run, so
that a comparison that was killed goes on where it was, to the same table.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from lmworks.base import machine
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, duration, list_names, number, percent
from lmworks.base.files import make_folder
from lmworks.base.journal import JOURNAL
from lmworks.base.settings import merge
from lmworks.comparisons import comparison_page, contenders, processes, recommendation, results, schedule
from lmworks.comparisons.comparison_data import cheaper_options, digest, divided, refuse_few, refuse_one_label
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State, is_comparison
from lmworks.comparisons.contender_recipes import checked, measured_notes, recipe_groups, refuse_chosen
from lmworks.comparisons.contender_runs import CANARIES, QUICK_SECONDS, ContenderRuns, run_times_of
from lmworks.comparisons.contenders import RECOMMENDED
from lmworks.comparisons.planting import canaries_of
from lmworks.run.result import Say, silent
from lmworks.text import corpus, python_rows

SLACK = 1.1
"""Times the budget that a comparison may take; what would take more is shortened."""
NO_ROOM = "no room"
"""How the faults of a full disk begin."""


def run_comparison(settings: CompareSettings, out: str | Path, say: Say | None = None) -> State:
    """Begin a comparison in a new folder.

    Args:
        settings: of the comparison; not changed.
        out: its folder.
        say: called with each line of progress.

    Raises:
        InputError: the model, the data or a setting cannot be used, or the folder holds something.
    """
    folder = Path(out)
    _refuse_comparison(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("is there already and not empty", str(folder), "choose another --out")
    settings = checked(settings)
    train, validation, test = divided(settings)
    refuse_few(settings, train.kind, len(test))
    refuse_one_label(train, test)
    chosen = contenders.choose(settings.methods, settings.contender, train.kind)
    results = [
        Result(
            contender.name, contender.title, contender.kind, recipe_groups(contender, settings, train.kind, len(test))
        )
        for contender in chosen
    ]
    for result in results:
        for file in result.settings.get("data", {}).get("additional", []):
            corpus.read_additional(file, train.kind)  # refuses it before anything is measured
    counts: dict[str, Any] = {"training": len(train), "validation": len(validation), "test": len(test)}
    row_counts = {"kind": train.kind, **counts, "digest": digest(train, test)}
    notes = [*test.notes, *measured_notes(settings, train.kind, len(test))]
    state = State(settings, results, row_counts=row_counts, notes=notes, machine=machine.describe())
    make_folder(folder)
    with processes.locked(folder):
        _refuse_comparison(folder)  # another process may have begun one meanwhile
        _plant(state, folder)
        state.write(folder)
        if say is not None:
            say(f"in {folder}; after an interruption: lmworks compare --out {folder}")
        try:
            return _Session(folder, State.read(folder), say or silent).run()
        except InputError:
            if not any(result.trials for result in State.read(folder).results):  # refused before anything was run
                shutil.rmtree(folder)
            raise


def resume(folder: str | Path, say: Say | None = None) -> State:
    """Go on with a comparison that was killed or stopped; of a finished one, what it came to.

    Raises:
        InputError: there is none, its data have changed, or it is not finished and its folder may not be written.
    """
    folder = Path(folder)
    state = State.read(folder)  # refuses a folder of anything else before it is locked
    if not os.access(folder, os.W_OK) and all(result.state != "open" for result in state.results):
        state.recommendation = state.recommendation or recommendation.recommend(state, results.settle(state))
        return state
    with processes.locked(folder):
        return _Session(folder, State.read(folder), say or silent).run()


def add(folder: str | Path, name: str, say: Say | None = None, **changes: Any) -> State:
    """Add a contender to a comparison, which is given as much time as the others had on average.

    Args:
        folder: of a comparison.
        name: of the contender.
        say: called with each line of progress.
        **changes: groups of its recipe that differ from its own; of a new name with a ``method``.

    Raises:
        InputError: there is no such contender, it has a figure in the comparison, or it cannot be run.
    """
    folder = Path(folder)
    State.read(folder)  # refuses a folder of anything else before it is locked
    with processes.locked(folder):
        state = State.read(folder)
        before = state.copied()
        known = state.settings.contender
        name = contenders.known_name(name, {**({name: changes} if changes else {}), **known})
        if changes:
            refuse_chosen(changes.get("train", {}), f"contender.{name}.train")
            state.settings.contender = {**known, name: merge(known.get(name, {}), changes)}
        (contender,) = contenders.choose([name], state.settings.contender, state.row_counts["kind"])
        if any(result.name == contender.name and result.state != "left out" for result in state.results):
            fault = f"{contender.title} is compared already"
            raise InputError(fault, str(folder), "choose another name for other settings")
        state.results = [result for result in state.results if result.name != contender.name]  # one left out: once more
        shutil.rmtree(folder / contender.name, ignore_errors=True)
        groups = recipe_groups(contender, state.settings, state.row_counts["kind"], state.row_counts["test"])
        state.recommendation = {}  # that of the others alone: a session that is killed ends with another
        state.results.append(Result(contender.name, contender.title, contender.kind, groups))
        try:
            return _Session(folder, state, say or silent).run()
        except InputError:
            if not state.results[-1].trials:  # refused before anything was run
                before.write(folder)
            raise


def _refuse_comparison(folder: Path) -> None:
    """Raise if there is a comparison in a folder."""
    if is_comparison(folder):
        raise InputError("is a comparison already", str(folder), f"go on with it: lmworks compare --out {folder}")


def _plant(state: State, folder: Path) -> None:
    """Write the rows with a secret that contenders train on too, if any of them trains and the rows have a kind that
    can hide one."""
    planted, _ = canaries_of(state.row_counts["kind"], state.settings.canaries)
    if planted and any(result.kind == "trained" for result in state.results):
        python_rows.save([canary.row() for canary in planted], folder / CANARIES)
        state.notes.append(
            f"{count_of(len(planted), 'row')} with a secret planted among the rows to train on (canaries)"
        )


class _Session:
    """One session of a comparison."""

    def __init__(self, folder: Path, state: State, say: Say) -> None:
        self.folder, self.state, self.say = folder, state, say
        self.began, self.before = time.monotonic(), state.seconds
        self.runs = ContenderRuns(folder, state)

    @property
    def spent(self) -> float:
        """Seconds of all sessions so far."""
        return self.before + time.monotonic() - self.began

    def run(self) -> State:
        """Run the contenders that are open."""
        state = self.state
        is_open = any(result.state == "open" for result in state.results)
        if not is_open and (state.recommendation or len(state.done) < 2):  # else it was killed just before its end
            if not (self.folder / RECOMMENDED).is_dir():
                self._link_recommended()
            return state
        if is_open:
            self._run_open()
        state.recommendation = recommendation.recommend(state, results.settle(state))
        self._link_recommended()
        self._write()
        return state

    def _run_open(self) -> None:
        """Run the contenders that are open."""
        state = self.state
        train, _, test = divided(state.settings)
        if digest(train, test) != state.row_counts["digest"]:
            hint = "give the rows that it began with, or begin a new comparison"
            raise InputError("the data have changed since the comparison began", state.settings.source, hint)
        self.before += self.runs.killed_seconds()
        self._plan()
        while open_ := [result for result in state.results if result.state == "open"]:
            self._compare(min(open_, key=_order))

    def _link_recommended(self) -> None:
        """Give the run of the recommended contender a name that does not depend on which it is."""
        link, name = self.folder / RECOMMENDED, self.state.recommendation.get("name")
        result = next(
            (
                result
                for result in self.state.done
                if result.name == name and result.finals and result.kind != "baseline"
            ),
            None,
        )
        if link.is_dir() and not link.is_symlink():
            if not (link / JOURNAL).is_file():  # somebody's own folder
                return
            shutil.rmtree(link)  # a copy of the comparison that followed links
        link.unlink(missing_ok=True)
        if result is not None:
            with contextlib.suppress(OSError):  # a file system without links: comparison.json names it
                link.symlink_to(result.finals[0].folder, target_is_directory=True)

    def _compare(self, result: Result) -> None:
        """Run a contender, or leave it out."""
        number_ = sum(contender.state != "open" for contender in self.state.results) + 1
        self.say(f"{number_} of {len(self.state.results)}: {result.title}")
        try:
            if result.kind == "before":
                results.read_before(self.state, result, self.folder)
            else:
                for line in self.runs.run(result, self._write):
                    self.say(f"  {line}")
                results.read(self.state, result, self.folder)
            result.state = "done"
        except InputError as error:
            if error.fault.startswith(
                NO_ROOM
            ):  # which the others would lack too: there is more when the session goes on
                raise
            result.state, result.reason = "left out", _reason(error)
            self.say(f"  left out: {result.reason}")
        results.settle(self.state)
        self._shorten()
        self._write()
        if result.value is not None:
            ends = f" ({number(result.interval[0])} … {number(result.interval[1])})" if result.interval else ""
            self.say(f"  {self.state.measure['title']} {number(result.value)}{ends}, in {duration(result.seconds)}")

    def _plan(self) -> None:
        """Plan the contenders that have no plan, and divide what is left of the budget among them."""
        state, settings = self.state, self.state.settings
        new = [result for result in state.results if result.state == "open" and not result.plan]
        if not new:
            return
        time_counts = "which takes a while and is part of the budget"
        self.say(
            f"planning {count_of(len(new), 'contender')}: measuring how fast each is on this machine, {time_counts}"
        )
        asked = [result for result in new if result.kind in ("trained", "prompted")]
        plans = self._plans(asked) if asked else {}
        state.task = state.task or next((str(plan["task"]) for plan in plans.values() if "task" in plan), "")
        planned = sum("reason" not in plan for plan in plans.values())
        for note in dict.fromkeys(plan["note"] for plan in plans.values() if plan.get("note")):
            remark = f"planned times: {note}"
            state.notes += [remark] if remark not in state.notes else []
        for result in new:
            result.plan = plans.get(result.name, {"start": QUICK_SECONDS})
            if "before" in result.plan:  # evaluated once for all, and kept
                result.plan["before"] = 0.0 if state.done else result.plan["before"] / planned
            if "reason" in result.plan:
                self._leave_out(result)
        open_ = [result for result in new if result.state == "open"]
        if not open_:
            plan = new[0].plan
            raise InputError(f"no contender can be run: {plan['reason']}", plan["place"], plan["hint"])
        times = {result.name: run_times_of(result, state) for result in open_}
        is_first = not state.planned
        budget = settings.budget - self.spent if is_first else settings.budget / max(1, len(state.done)) * len(open_)
        try:
            cheaper = cheaper_options(settings, state.row_counts) if is_first else []
            spent = self.spent if is_first else 0.0
            lengths = schedule.divide(times, budget, settings.rates, settings.seeds, spent, cheaper)
        except InputError as error:
            unreliable = next((str(plan["note"]) for plan in plans.values() if plan.get("note")), "")
            hint = (
                f"{error.hint}; times were {unreliable}: try again when the machine is quiet"
                if unreliable
                else error.hint
            )
            raise InputError(error.fault, error.place, hint) from None
        for result in open_:
            length = lengths[result.name]
            result.epochs, result.searches = length.epochs or None, length.searches
            result.plan["epochs"] = length.epochs
        state.planned += (self.spent if is_first else 0.0) + sum(length.seconds for length in lengths.values())
        self._write()

    def _plans(self, results: list[Result]) -> dict[str, Any]:
        """Plans of contenders by name, made in a process of their own, with the seconds that it took to begin."""
        settings, data = self.state.settings, self.runs.data_settings(validation=False)
        contenders_ = {result.name: result.settings for result in results}
        return processes.run_job("plan", model=settings.model, data=data, contenders=contenders_)

    def _leave_out(self, result: Result) -> None:
        """Leave a contender out that cannot be run, or refuse it where it was asked for by its name."""
        plan = result.plan
        if result.name in self.state.settings.methods:
            raise InputError(plan["reason"], plan["place"], plan["hint"])
        result.state, result.reason = "left out", plan["reason"]

    def _shorten(self) -> None:
        """Shorten the trainings to come if all would take more than the budget allows, and say so."""
        state = self.state
        budget = max(state.settings.budget, state.planned)
        open_ = [result for result in state.results if result.state == "open"]
        planned = {result.name: self.runs.planned(result) for result in open_}
        trained = {name: contender for name, contender in planned.items() if contender.epochs}
        rest = sum(contender.rest for name, contender in planned.items() if name not in trained)
        expected = rest + sum(contender.rest + contender.epochs * contender.training for contender in trained.values())
        if not trained or self.spent + expected <= SLACK * budget:
            return
        lengths = schedule.shorten(trained, budget - self.spent - rest)
        shortened = []
        for result in filter(lambda result: result.name in trained, open_):
            result.is_postponed = result.name not in lengths
            if not lengths:
                result.state, result.reason = (
                    "left out",
                    "earlier ones took longer than planned: no time is left for it",
                )
            if result.is_postponed:
                continue
            result.epochs = lengths[result.name]
            steps = result.epochs * result.plan["steps"]
            result.searches = result.searches and steps * schedule.SHARES[0] >= schedule.MIN_STEPS
            if (share := result.epochs / result.plan["epochs"]) < 1.0:
                shortened.append(f"{result.title} to {percent(share)}")
        if shortened:
            note = f"shortened, since earlier ones took longer than planned: {list_names(shortened)}"
            others = [other_note for other_note in state.notes if not other_note.startswith("shortened, since")]
            state.notes = [*others, note]
            self.say(note)

    def _write(self) -> None:
        self.state.seconds = self.spent
        self.state.write(self.folder)
        comparison_page.write(self.folder, self.state)


def _order(result: Result) -> tuple[int, bool]:
    """What is not trained comes first, as its time is not ours to choose: trainings are shortened if it takes longer
    than planned. The model before training is read from the others' runs."""
    return {"trained": 1, "before": 2}.get(result.kind, 0), result.is_postponed


def _reason(error: InputError) -> str:
    return f"{error.place}: {error.fault}" if error.place else error.fault
