"""The requests of the tab Start: plan, start, watch, stop and resume runs of tune, pretrain and compare.

A run is a process of its own (studio/processes); nothing of it is kept in the server.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmworks.adapt import registry as methods
from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.baselines import tfidf_settings
from lmworks.comparisons.comparison_state import STATE
from lmworks.comparisons.contenders import CONTENDERS
from lmworks.run import ngram_recipe
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import EventStream, JsonResponse
from lmworks.serve.schemas import Body
from lmworks.studio import processes, progress, settings_form, sources
from lmworks.studio.folders import Folders, shown
from lmworks.studio.plans import failure_of, planning
from lmworks.studio.run_requests import PLACES, RunBody, RunRequest, resume_words
from lmworks.tasks.registry import TASKS

BODY_LIMIT = 1_000_000
MOST_POINTS = 2000
"""Points of a curve in one answer; of more, some between are left out."""
SHOWN_STATES = ("running", "stopped")
"""States of runs that are listed though no studio started them."""


class RunName(Body):
    """A run by the name of its folder."""

    run: str = Field(max_length=1000)


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/start.

    Args:
        folders: what may be read and written.
    """
    tab = _Start(folders)
    paths = {
        "choices": (tab.choices, "GET"),
        "form": (tab.form, "GET"),
        "command": (tab.command, "POST"),
        "plan": (tab.plan, "POST"),
        "begin": (tab.begin, "POST"),
        "runs": (tab.runs, "GET"),
        "watch": (tab.watch, "GET"),
        "stop": (partial(tab.change, processes.stop), "POST"),
        "resume": (partial(tab.change, tab.resume), "POST"),
        "forget": (partial(tab.change, processes.forget), "POST"),
    }
    return [Route(f"/studio/api/start/{name}", handle, methods=[method]) for name, (handle, method) in paths.items()]


class _Start:
    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    async def choices(self, request: Request) -> Response:
        """GET choices: models, new models and data sets that are offered."""
        new = [{"name": name, "about": about} for name, about in sources.new_models().items()]
        models = await run_in_threadpool(sources.offered_models, self.folders)
        data = await run_in_threadpool(sources.offered_data, self.folders)
        return JsonResponse({"models": models, "new_models": new, "data": data})

    async def form(self, request: Request) -> Response:
        """GET form?verb=VERB&model=MODEL: the settings in groups, and what may be chosen besides."""
        verb, model = request.query_params.get("verb", "tune"), request.query_params.get("model", "")
        if verb not in PLACES:
            raise InputError("is no verb", shown(verb), f"one of: {', '.join(PLACES)}")
        rows = settings_form.settings_of(verb, model)
        is_quick = tfidf_settings.is_preset(model) or ngram_recipe.is_preset(model)
        return JsonResponse(
            {
                "groups": settings_form.groups(rows),
                "methods": [] if is_quick else _methods(verb),
                "tasks": [] if is_quick else [{"name": name, "about": task.learns} for name, task in TASKS.items()],
                "plans": verb != "compare" and not is_quick,
            }
        )

    async def command(self, request: Request) -> Response:
        """POST command: the command line of a form, once it is checked."""
        asked = RunRequest(await read_body(request, RunBody, BODY_LIMIT), self.folders)
        asked.check()
        return JsonResponse({"command": shlex.join(["lmworks", *asked.words(asked.body.verb)])})

    async def plan(self, request: Request) -> Response:
        """POST plan: server-sent events while the plan of a form is made (studio/plans)."""
        asked = RunRequest(await read_body(request, RunBody, BODY_LIMIT), self.folders)
        asked.check()
        if asked.body.verb == "compare":
            raise InputError("makes its plans itself, as a part of its budget", "a comparison", "start it")
        return EventStream(planning(asked.words("plan"), self.folders.first), lambda: None)

    async def begin(self, request: Request) -> Response:
        """POST begin: start the run of a form, in a process of its own."""
        asked = RunRequest(await read_body(request, RunBody, BODY_LIMIT), self.folders)
        asked.check()
        folder = asked.folder
        processes.forget(folder)  # of an earlier run of this name that failed before it began, or is gone
        words = asked.words(asked.body.verb, folder)
        await run_in_threadpool(processes.start, folder, words, self.folders.first)
        return JsonResponse({"run": self.folders.name(folder), "command": shlex.join(["lmworks", *words])})

    async def change(self, act: Any, request: Request) -> Response:
        """POST stop, resume, forget: act on a run, and give how it stands then."""
        run = self._known((await read_body(request, RunName, BODY_LIMIT)).run)
        await run_in_threadpool(act, run)
        return JsonResponse(await run_in_threadpool(self._described, run))

    def resume(self, run: Path) -> None:
        """Go on with a run.

        Raises:
            InputError: it works, has finished, or never began.
        """
        state = progress.state_of(run)
        if state.state != "stopped":
            raise InputError(f"is {state.state}", self.folders.name(run), "a run that was stopped can be resumed")
        processes.start(run, resume_words(run, self.folders), self.folders.first)

    def _known(self, name: str) -> Path:
        """The folder of a run, or where one was to be.

        Raises:
            InputError: it is outside of the folders, or there is nothing of a run.
        """
        run = self.folders.path(name)
        if processes.read(run) is None and not any((run / file).is_file() for file in (JOURNAL, STATE)):
            raise InputError("there is no such run", shown(name), "reload the list")
        return run

    async def runs(self, request: Request) -> Response:
        """GET runs: those that a studio started, and others that work or can be resumed, newest first."""
        listed = await run_in_threadpool(lambda: [self._described(run) for run in dict.fromkeys(self._listed())])
        return JsonResponse({"runs": sorted(listed, key=lambda run: run["started"] or 0.0, reverse=True)})

    def _listed(self) -> Iterator[Path]:
        for place, below, files in self.folders.walk():
            yield from processes.runs_with_process(place)
            if JOURNAL in files or STATE in files:
                below[:] = []
                if progress.state_of(place).state in SHOWN_STATES:
                    yield place

    def _described(self, run: Path) -> dict[str, Any]:
        state = progress.state_of(run)
        failure = ""
        if state.state == "failed" or (state.state == "stopped" and state.words):
            lines = processes.output_of(run)[0].splitlines()
            failure = failure_of(lines) if state.state == "failed" else _error_of(lines)
        command = shlex.join(["lmworks", *state.words]) if state.words else ""
        return {"run": self.folders.name(run), "command": command, "failure": failure, **vars(state)}

    async def watch(self, request: Request) -> Response:
        """GET watch?run=RUN&journal=N&output=N&trial=NAME: what a run has written since the places N, and how it
        stands."""
        given = request.query_params
        run = self._known(given.get("run", ""))
        journal, output = (_place(given.get(name, "")) for name in ("journal", "output"))
        return JsonResponse(await run_in_threadpool(self._watched, run, journal, output, given.get("trial", "")))

    def _watched(self, run: Path, journal: int, output: int, trial: str) -> dict[str, Any]:
        described = self._described(run)  # before the rest is read: what it writes at its end is not missed
        work, table = run, None
        if described["kind"] == "comparison":
            table = progress.comparison_rows(run)
            work = progress.newest_run(run) or run
        now = "" if work == run else work.relative_to(run).as_posix()
        reader = progress.JournalReader(work, journal if now == trial else 0)
        events = reader.read()
        text, end = processes.output_of(run, output)
        points = {name: _thinned(line) for name, line in progress.curve_points(events).items()}
        return {
            **described,
            "trial": now,
            "is_new": now != trial,
            "journal": reader.place,
            "points": points,
            "progress": progress.progress_of(events),
            "table": table,
            "text": text,
            "output": end,
        }


def _methods(verb: str) -> list[dict[str, str]]:
    """The methods that a verb offers, with what they are; the default first. Of a comparison: its contenders."""
    if verb == "compare":
        return [{"name": contender.name, "about": contender.title} for contender in CONTENDERS.values()]
    default = methods.default("new" if verb == "pretrain" else "opened").name
    names = sorted(methods.METHODS, key=lambda name: name != default)
    return [{"name": name, "about": methods.METHODS[name].summary} for name in names]


def _error_of(lines: list[str]) -> str:
    """The error at the end of an output; empty where it ended without one."""
    return failure_of(lines) if any(line.startswith("error: ") for line in lines[-3:]) else ""


def _place(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """Every n-th point, and the last."""
    every = -(-len(points) // MOST_POINTS) or 1
    thinned = points[::every]
    return thinned if every == 1 or thinned[-1] == points[-1] else [*thinned, points[-1]]
