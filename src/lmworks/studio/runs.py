"""The tab Runs: the runs, comparisons and ladders in the folders; cards side by side; their pages for a frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lmworks.base import figures, notation
from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.comparisons import comparison_page, ladder_page
from lmworks.comparisons.comparison_state import State, is_comparison
from lmworks.comparisons.ladder_settings import LadderState, is_ladder
from lmworks.reports import card, facts, page
from lmworks.reports.runs import READING_ERRORS, fault, row
from lmworks.serve.api_errors import ApiError
from lmworks.serve.event_stream import JsonResponse
from lmworks.studio.access import FRAME_POLICY
from lmworks.studio.folders import Folders

MOST_BESIDE = 6
"""Cards side by side."""
MOST_POINTS = 400
"""Of a curve."""


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/runs.

    Args:
        folders: what may be read.
    """
    shelf = Shelf(folders)

    async def list_all(request: Request) -> Response:
        return JsonResponse(await run_in_threadpool(shelf.overview))

    async def show_cards(request: Request) -> Response:
        return JsonResponse(await run_in_threadpool(shelf.cards, request.query_params.getlist("name")))

    async def show_page(request: Request) -> Response:
        html = await run_in_threadpool(shelf.page, request.query_params.get("name", ""))
        return HTMLResponse(html, headers={"Content-Security-Policy": FRAME_POLICY})

    return [
        Route("/studio/api/runs", list_all),
        Route("/studio/api/runs/cards", show_cards),
        Route("/studio/api/runs/page", show_page),
    ]


class Shelf:
    """The runs, comparisons and ladders in the folders.

    Args:
        folders: where they are looked for.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._finished: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}
        """Rows of finished runs, by the state of their journals: a card of many steps takes time."""

    def overview(self) -> dict[str, Any]:
        """All of them.

        Returns:
            runs: as of lmworks.reports.runs.overview, newest first; groups: name, kind (comparison or ladder) and title
            of each; faults: what is wrong with runs that cannot be read.
        """
        runs, groups, faults = list[dict[str, Any]](), list[dict[str, Any]](), list[str]()
        for path in self._places():
            name = self._folders.name(path)
            try:
                if (path / JOURNAL).is_file():
                    runs.append({**self._row(path), "name": name})
                else:
                    groups.append({"name": name, **_group(path)})
            except READING_ERRORS as error:
                faults.append(f"{name}: {fault(error)}")
        runs.sort(key=lambda run: run["started"] or 0.0, reverse=True)
        return {"runs": runs, "groups": groups, "faults": faults}

    def cards(self, names: list[str]) -> dict[str, Any]:
        """Some runs beside each other.

        Returns:
            cards: of each run what the page shows; differences: settings of their recipes that are not the same, as
            {"setting", "values"} with a text for each run, None where its recipe has no such setting.

        Raises:
            ApiError: there are none, or too many.
            InputError: one of them is no run, or cannot be read.
        """
        if not 1 <= len(names) <= MOST_BESIDE:
            raise ApiError(400, f"give 1 to {MOST_BESIDE} runs, not {len(names)}", "name", "invalid_value")
        paths = [self._folders.path(name) for name in names]
        built = [self._read(path, name) for path, name in zip(paths, names, strict=True)]
        cards = [_shown(values, name) for values, name in zip(built, names, strict=True)]
        return {"cards": cards, "differences": differences([_recipe(path) for path in paths])}

    def page(self, name: str) -> str:
        """The page of a run, comparison or ladder as it stands now.

        Raises:
            InputError: there is no such one, or it cannot be read.
        """
        path = self._folders.path(name)
        if is_comparison(path):
            return comparison_page.render(State.read(path))
        if is_ladder(path):
            return ladder_page.render(LadderState.read(path))
        return page.render(self._read(path, name))

    def _places(self) -> Iterator[Path]:
        for path, below, files in self._folders.walk():
            if JOURNAL in files:
                below.clear()
                yield path
            elif is_comparison(path) or is_ladder(path):
                yield path

    def _row(self, path: Path) -> dict[str, Any]:
        state = (path / JOURNAL).stat()
        key = state.st_mtime_ns, state.st_size
        known = self._finished.get(path)
        if known is not None and known[0] == key:
            return known[1]
        values = row(path, path)
        if values["state"] == "finished":
            self._finished[path] = key, values
        return values

    def _read(self, path: Path, name: str) -> dict[str, Any]:
        try:
            return card.build(path)
        except READING_ERRORS as error:
            raise InputError(fault(error), name, "choose another run") from error


def _group(path: Path) -> dict[str, Any]:
    """A comparison or a ladder of the list."""
    if is_comparison(path):
        settings = State.read(path).settings
        return {"kind": "comparison", "title": f"{facts.title(settings.model)} on {facts.title(settings.source)}"}
    return {"kind": "ladder", "title": f"on {facts.title(LadderState.read(path).settings.source)}"}


def _shown(built: dict[str, Any], name: str) -> dict[str, Any]:
    """What the page shows of a card: figures as numbers, what surrounds them as texts."""
    run, costs, curves = built["run"], built["costs"], built["curves"]
    measured = ("key", "title", "unit", "better", "before", "after", "verdict")
    energy = (costs["energy"] or {}).get("joules")
    lines = [
        ("method", run["method"]),
        ("state", facts.state(run)),
        *facts.run_lines(built),
        ("time", figures.duration(costs["seconds"]) if costs["seconds"] else None),
        ("peak memory", figures.byte_size(costs["peak_memory"]) if costs["peak_memory"] else None),
        ("energy", figures.energy(energy) if energy else None),
    ]
    return {
        "name": name,
        "title": f"{facts.title(run['model'])} on {facts.data_title(built)}",
        "summary": built["summary"],
        "state": run["state"],
        "measures": [{key: measure.get(key) for key in measured} for measure in built["measures"]],
        "facts": [[key, text] for key, text in lines if text and key != "result"],
        "curves": {kind: thinned(curves[kind]) for kind in ("training", "held_out")},
    }


def thinned(points: list[list[float]], most: int = MOST_POINTS) -> list[list[float]]:
    """At most so many points of a curve, at equal distances, the last among them."""
    step = -(-len(points) // most) or 1
    return points[len(points) - 1 :: -step][::-1] if points else []


def _recipe(folder: Path) -> dict[str, Any]:
    """The settings of a run's recipe by their dotted names; empty where it has none that can be read."""
    try:
        return dict(_settings(notation.read_yaml(folder / "recipe.yaml"), ""))
    except InputError:
        return {}


def _settings(values: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def differences(recipes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Settings in which recipes differ, in the order of the first; a recipe that has none of a setting has None.

    Where a run was written (``out``) is none of them.
    """
    names = dict.fromkeys(name for recipe in recipes for name in recipe if name != "out")
    listed = []
    for name in names:
        values = [_written(recipe[name]) if name in recipe else None for recipe in recipes]
        if len(set(values)) > 1:
            listed.append({"setting": name, "values": values})
    return listed


def _written(value: Any) -> str:
    """A value as recipes have it."""
    return value if isinstance(value, str) else notation.write_yaml(value, flow=True).strip()
