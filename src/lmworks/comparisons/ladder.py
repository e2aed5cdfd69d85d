"""A ladder of models from the simplest to the newest on one text or one labelled file, within a budget of time.

Every rung is an ordinary run in a folder of its own. ladder.json is written after each, so that a killed ladder goes on
where it was: finished rungs are not run again, and the run that was killed is resumed.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, duration, number
from lmworks.base.files import make_folder
from lmworks.base.journal import JOURNAL, RunFolder
from lmworks.base.settings import merge
from lmworks.comparisons import ladder_page, pacing, processes
from lmworks.comparisons.ladder_settings import STATE, LadderSettings, LadderState, RungState, is_ladder
from lmworks.comparisons.pacing import RunOverhead
from lmworks.comparisons.rungs import LADDERS, Rung
from lmworks.run import api
from lmworks.run.result import Run, Say, silent
from lmworks.text import corpus

FEWEST_SECONDS = 1.0
"""Of a share of the budget; with less, no network is begun."""
GROWTH = 3.0
"""Times the seconds that the rung of counts before it took: what a rung of counts may take at most."""


class LadderTask(Protocol):
    """What all rungs of one task share: data, how a rung is trained, and how it is measured.

    Attributes:
        notes: of the data.
        prompt: what language models continue.
    """

    notes: list[str]
    prompt: str

    @property
    def compared(self) -> dict[str, Any]:
        """What is compared."""
        ...

    def groups(self, rung: Rung) -> dict[str, Any]:
        """Groups of settings for the recipe of a rung, beside the rung's own."""
        ...

    def start(self, rung: Rung, out: Path, **groups: Any) -> Run:
        """Train a rung in a new folder."""
        ...

    def measure(self, rung: Rung, step: RungState, folder: Path, say: Say, seconds: float) -> RungState:
        """The step with the figures of its rung; ``seconds`` bound a rung that is asked instead of trained."""
        ...


def run_ladder(settings: LadderSettings, out: str | Path, say: Say | None = None) -> LadderState:
    """Begin a ladder in a new folder.

    Args:
        settings: of the ladder; not changed.
        out: its folder.
        say: called with each line of progress.

    Raises:
        InputError: the data or a setting cannot be used, or the folder holds something or is worked on.
    """
    folder = Path(out)
    if is_ladder(folder):
        raise InputError("is a ladder already", str(folder), f"go on with it: lmworks ladder --out {folder}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("is there already and not empty", str(folder), "choose another --out")
    task = settings.task
    if task == "auto":
        task = "classify" if corpus.read(settings.source, settings.data).kind == "labels" else "language"
    settings = settings.model_copy(update={"task": task}, deep=True)
    settings.check_names(task)
    steps = [
        RungState(rung.name, rung.title, f"{number}-{rung.name}")
        for number, rung in enumerate(LADDERS[task], 1)
        if not settings.only or rung.name in settings.only
    ]
    make_folder(folder)
    with processes.locked(folder):
        state = LadderState(settings, steps)
        state.write(folder)
        try:
            return _Session(folder, state, say or silent).run()
        except InputError:
            if not LadderState.read(folder).compared:  # refused before anything was run
                shutil.rmtree(folder)
            raise


def resume(folder: str | Path, say: Say | None = None) -> LadderState:
    """Go on with a ladder that was killed or stopped; of a finished one, its figures.

    Raises:
        InputError: there is none, or another process works on it.
    """
    folder = Path(folder)
    LadderState.read(folder)  # refused where there is none, before a lock is made there
    with processes.locked(folder):
        return _Session(folder, LadderState.read(folder), say or silent).run()


class _Session:
    """One session of a ladder."""

    def __init__(self, folder: Path, state: LadderState, say: Say) -> None:
        self.folder, self.state, self.say = folder, state, say
        self.began, self.before = time.monotonic(), state.seconds
        self.rungs = {rung.name: rung for rung in LADDERS[state.settings.task]}
        self.overhead = RunOverhead()
        self.task: LadderTask

    @property
    def spent(self) -> float:
        """Seconds of all sessions so far."""
        return self.before + time.monotonic() - self.began

    def run(self) -> LadderState:
        """Run the rungs that are open."""
        state = self.state
        if all(step.state != "open" for step in state.steps):
            self._write()
            return state
        self._add_killed_seconds()
        if not state.compared:
            self._remove_partial_data()
        self.task = self._ladder_task()
        state.compared, state.prompt = self.task.compared, self.task.prompt
        state.notes = state.notes or self.task.notes
        self._write()
        for place, step in enumerate(state.steps):
            if step.state == "open":
                self.say(f"rung {place + 1} of {len(state.steps)}: {step.title}")
                state.steps[place] = self._run_rung(place, step)
                self._write()
                self.say(_result(state.steps[place]))
        self._write()
        return state

    def _ladder_task(self) -> LadderTask:
        if self.state.settings.task == "language":
            from lmworks.comparisons.language import LanguageLadderTask

            return LanguageLadderTask(self.folder, self.state.settings)
        from lmworks.comparisons.classify import ClassifierLadderTask

        return ClassifierLadderTask(self.folder, self.state.settings)

    def _run_rung(self, place: int, step: RungState) -> RungState:
        """A rung, done or left out."""
        began, rung, folder = time.monotonic(), self.rungs[step.name], self.folder / step.folder
        is_new = not (folder / JOURNAL).is_file()
        try:
            if rung.kind in ("counted", "trained") and (reason := self._train(place, rung, folder)):
                return self._left_out(step, reason, began)
            step = self.task.measure(rung, step, folder, self.say, self._share(place))
        except InputError as error:
            return self._left_out(step, f"{error.place}: {error.fault}" if error.place else error.fault, began)
        trained, notes = _training_seconds(folder) or step.training_seconds, step.notes
        if rung.kind == "trained":
            if is_new:
                self.overhead.record(folder, time.monotonic() - began)
            notes = [*notes, *filter(None, [pacing.cut_short(folder)])]
        seconds = step.seconds + time.monotonic() - began
        return replace(step, state="done", seconds=seconds, training_seconds=trained, notes=notes)

    def _train(self, place: int, rung: Rung, folder: Path) -> str:
        """Train a rung, or say why it is left out."""
        share = self._share(place)
        if (folder / JOURNAL).is_file() and RunFolder(folder).events("start"):
            self._finish(api.resume(folder, self.say))
            return _too_short(rung, folder)
        shutil.rmtree(folder, ignore_errors=True)  # killed before it began
        groups = merge(merge(rung.settings, self.task.groups(rung)), self.state.settings.rung.get(rung.name, {}))
        if rung.kind == "counted":
            if reason := self._too_slow(place):
                return reason
            self._finish(self.task.start(rung, folder, **groups))
            return ""
        seconds = self.overhead.training_seconds(share)
        if share < FEWEST_SECONDS or seconds < pacing.LEAST_SHARE * share:
            rest = f", and all but training takes {duration(self.overhead.seconds)}" if self.overhead.seconds else ""
            return f"its share of the budget is {duration(max(0.0, share))}{rest}"
        self.say(f"  at most {duration(seconds)} of training, in a share of {duration(share)}")
        training = pacing.training(seconds, rung.most_epochs)
        if {"steps", "epochs"} & groups.get("train", {}).keys():
            del training["epochs"]
        self._finish(self.task.start(rung, folder, **merge({"train": training}, groups)))
        return _too_short(rung, folder)

    def _share(self, place: int) -> float:
        """Seconds of the rung at a place: what is left, divided among the rungs that fill what they get."""
        filling = [step for step in self.state.steps[place:] if self.rungs[step.name].kind in ("trained", "prompted")]
        weights = [self.rungs[step.name].weight for step in filling]
        weight = self.rungs[self.state.steps[place].name].weight
        return (self.state.settings.budget - self.spent) * weight / (sum(weights) or 1.0)

    def _too_slow(self, place: int) -> str:
        """Why a rung of counts is left out: judged by the one before it."""
        left = self.state.settings.budget - self.spent
        earlier = [step.seconds for step in self.state.steps[:place] if self.rungs[step.name].kind == "counted"]
        expected = GROWTH * earlier[-1] if earlier else 0.0
        if left <= 0 or expected > left:
            return f"{duration(max(0.0, left))} of the budget are left, and it may take {duration(expected)}"
        return ""

    def _left_out(self, step: RungState, reason: str, began: float) -> RungState:
        return replace(step, state="left out", reason=reason, seconds=step.seconds + time.monotonic() - began)

    @staticmethod
    def _finish(run: Run) -> None:
        if run.stopped == "interrupted":
            raise KeyboardInterrupt

    def _add_killed_seconds(self) -> None:
        """Count what killed sessions spent on the run that they left unfinished."""
        for step in self.state.steps:
            folder = self.folder / step.folder
            if step.state == "open" and (folder / JOURNAL).is_file():
                more = pacing.seconds_alive(RunFolder(folder)) - step.killed_seconds
                step.killed_seconds += more
                step.seconds += more
                self.before += more

    def _remove_partial_data(self) -> None:
        """Remove what a session left that was killed while it read the data, so that a new one says all notes of them.

        The folder was empty when the ladder began: all in it is the ladder's own.
        """
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (STATE, processes.LOCK):
                path.unlink()

    def _write(self) -> None:
        self.state.seconds = self.spent
        self.state.write(self.folder)
        ladder_page.write(self.folder, self.state)


def _too_short(rung: Rung, folder: Path) -> str:
    """Why a network is left out after its training; empty of others, and of one that had steps enough."""
    few = pacing.too_few_steps(folder) if rung.kind == "trained" else None
    if few is None:
        return ""
    return f"its share of the budget bought {count_of(few, 'step')}; the fewest are {pacing.MIN_TRAINED_STEPS}"


def _training_seconds(folder: Path) -> float | None:
    """The seconds of training alone that a run's journal has: of its steps, or as its end says; None without a run."""
    if not (folder / JOURNAL).is_file():
        return None
    run = RunFolder(folder)
    seconds = [float(event["seconds"]) for event in run.events("step")]
    return sum(seconds) if seconds else next((event.get("training_seconds") for event in run.events("finish")), None)


def _result(step: RungState) -> str:
    if step.state == "left out":
        return f"  left out: {step.reason}"
    ends = f" ({number(step.interval[0])} … {number(step.interval[1])})" if step.interval else ""
    return f"  {number(step.value)}{ends} in {duration(step.seconds)}"
