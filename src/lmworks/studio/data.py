"""The requests of the tab Data: files are taken in, and shown as a model sees them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_file, check_disk_space
from lmworks.base.settings import build, parse_overrides
from lmworks.run.token_view import FATES, TokenView, size_of
from lmworks.serve.api_errors import ApiError, one_line
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.schemas import Body
from lmworks.studio import settings_form, sources
from lmworks.studio.folders import Folders, shown
from lmworks.studio.run_requests import FORM
from lmworks.tasks.registry import AUTO, TASKS
from lmworks.tasks.settings import TaskSettings
from lmworks.text.formats import SUFFIXES
from lmworks.text.rows import DataSettings

if TYPE_CHECKING:
    from lmworks.run.data_view import DataView, Problem

PLACE = "data"
"""Folder of the first root that uploaded files go to."""
UPLOAD_LIMIT, UPLOAD_SECONDS = 500_000_000, 900.0
BODY_LIMIT = 1_000_000
MOST_PROBLEMS = 500
"""Problems of one answer."""


class DataBody(Body):
    """What to show of a data set.

    Attributes:
        model, data: as the page names them (studio/sources).
        task: empty: what suits rows and model.
        settings: ``data.NAME`` and ``task.NAME`` -> value as it is typed on a command line.
        first, count: the examples that are shown.
        tokens: most of each of their texts.
        seed: of what is sampled.
    """

    model: str = Field(max_length=1000)
    data: str = Field(max_length=1000)
    task: str = Field("", max_length=100)
    settings: dict[str, str] = Field(default_factory=dict, max_length=1000)
    first: int = Field(0, ge=0)
    count: int = Field(3, ge=1, le=20)
    tokens: int = Field(600, ge=1, le=5000)
    seed: int = Field(0, ge=0)


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/data.

    Args:
        folders: what may be read and written.
    """
    tab = _Data(folders)
    return [
        Route("/studio/api/data/choices", tab.choices),
        Route("/studio/api/data/upload", tab.upload, methods=["POST"]),
        Route("/studio/api/data/show", tab.show, methods=["POST"]),
    ]


class _Shown:
    """A data set as it was shown last, so that its next examples need not be made again."""

    def __init__(self, view: DataView, stops: bool, place: str) -> None:
        self.view, self.stops, self._place = view, stops, place
        self.tokens = TokenView(view.task.tokenizer, view.labels)
        self.problems = list(view.problems())

    def near(self, text: str) -> str:
        """A text without the folder in which the data are."""
        return text.replace(self._place, "") if self._place else text


class _Data:
    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._lock = threading.Lock()
        self._last: tuple[Any, _Shown] | None = None

    async def choices(self, request: Request) -> Response:
        """GET choices: the data sets, models and tasks that are offered, and the settings of reading."""
        data = await run_in_threadpool(sources.offered_data, self.folders)
        models = await run_in_threadpool(sources.offered_models, self.folders, False)
        tasks = [{"name": name, "about": task.learns} for name, task in TASKS.items()]
        groups = settings_form.groups(settings_form.data_settings())
        return JsonResponse({"data": data, "models": models, "tasks": tasks, "groups": groups})

    async def upload(self, request: Request) -> Response:
        """POST upload?name=NAME, the file as the body: it is in the folder data afterwards, whole, or not at all."""
        path = new_file(self.folders, request.query_params.get("name", ""))
        declared = request.headers.get("content-length", "")
        if declared.isdigit():
            _check_size(int(declared))
            check_disk_space(path, int(declared), "this file")
        size = 0
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                with atomic_file(path) as file:
                    async for part in request.stream():
                        size += len(part)
                        _check_size(size)
                        file.write(part)
        except TimeoutError:
            raise ApiError(408, f"the file did not arrive within {UPLOAD_SECONDS:g} seconds") from None
        return JsonResponse({"name": self.folders.name(path), "bytes": size})

    async def show(self, request: Request) -> Response:
        """POST show: counts, problems by row, and some examples token by token."""
        body = await read_body(request, DataBody, BODY_LIMIT)
        return JsonResponse(await run_in_threadpool(self._show, body))

    def _show(self, body: DataBody) -> dict[str, Any]:
        shown_data = self._read(body)
        view, report = shown_data.view, shown_data.view.examples.report
        chosen = range(body.first, min(body.first + body.count, len(view.examples)))
        problems = shown_data.problems
        return {
            "task": {"name": view.task.name, "learns": view.task.learns, "random": view.task.is_random},
            "kind": report.kind,
            "template": report.template,
            "columns": view.table.columns,
            "counts": {
                name: getattr(report, name) for name in ("rows", "examples", "tokens", "loss_tokens", "longest")
            },
            "unusual": list(report.unusual().items()),
            "notes": [shown_data.near(note) for note in report.notes],
            "refusal": shown_data.near(_refusal(shown_data)),
            "problems": [_problem(shown_data, problem) for problem in problems[:MOST_PROBLEMS]],
            "problem_count": len(problems),
            "first": body.first,
            "examples": [_example(shown_data, index, body.tokens, body.seed) for index in chosen],
        }

    def _read(self, body: DataBody) -> _Shown:
        """The data set of a request, made or as it was last."""
        from lmworks.run.data_view import view_data

        model, data = sources.model_source(self.folders, body.model), sources.data_source(self.folders, body.data)
        settings_form.check_names(body.settings, settings_form.data_settings())
        key = (model, data, _state(model), _state(data), body.task, sorted(body.settings.items()))
        with self._lock:
            if self._last is not None and self._last[0] == key:
                return self._last[1]
            self._last = None  # what it held is free before more is read
            data_settings, task_settings, stops = _settings(body, self.folders)
            view = view_data(model, None, data, data_settings, task_settings)
            place = f"{data if data.is_dir() else data.parent}/" if isinstance(data, Path) else ""
            self._last = key, _Shown(view, stops, place)
            return self._last[1]


def new_file(folders: Folders, name: str) -> Path:
    """The place of an uploaded file, at which nothing is: its own name, or that with a number.

    Raises:
        InputError: its name does not say that it is a data file.
    """
    plain = re.sub(r"[^\w.+-]+", "-", name.replace("\\", "/").rpartition("/")[2]).lstrip(".-")[-120:]
    stem, *suffixes = plain.split(".")
    ends = [suffix.lower() for suffix in suffixes if suffix.lower() != "gz"]
    if not stem or not ends or f".{ends[-1]}" not in SUFFIXES:
        hint = f"give it one of these endings, or .gz after it: {', '.join(SUFFIXES)}"
        raise InputError("its name does not say what format it has", shown(name) or "the file", hint)
    folder = folders.path(folders.name(folders.first / PLACE))
    names = [plain, *(".".join([f"{stem}-{number}", *suffixes]) for number in range(2, 1000))]
    free = next((folder / other for other in names if not (folder / other).exists()), None)
    if free is None:
        raise InputError("there are a thousand files of this name", f"{PLACE}/{plain}", "give it another name")
    return free


def _check_size(size: int) -> None:
    if size > UPLOAD_LIMIT:
        message = f"the file has more than {UPLOAD_LIMIT:,} bytes: put it into the folder that the studio shows instead"
        raise ApiError(413, message, code="body_too_large")


def _settings(body: DataBody, folders: Folders) -> tuple[DataSettings, TaskSettings, bool]:
    """Settings of data and task, and whether a run would stop at the first bad row; here all of them are listed."""
    values = parse_overrides([f"--{name}={text}" for name, text in body.settings.items()])
    task = {**values.get("task", {}), "name": body.task or AUTO}
    data = values.get("data", {})
    if additional := data.get("additional"):
        names = additional if isinstance(additional, list) else [additional]
        data["additional"] = [str(sources.data_source(folders, str(name))) for name in names]
    settings = build(DataSettings, data, FORM)
    stops = settings.on_bad_row == "stop"
    settings.on_bad_row = "skip"
    return settings, build(TaskSettings, task, FORM), stops


def _refusal(shown_data: _Shown) -> str:
    """Why a run on these rows would be refused; empty: it would not."""
    if shown_data.stops and shown_data.view.table.skipped:
        count = len(shown_data.view.table.skipped)
        return f"a run would stop at the first bad row ({count:,} in all): repair it, or set data.on_bad_row to skip"
    refusal = shown_data.view.refusal
    return "" if refusal is None else one_line(refusal)


def _problem(shown_data: _Shown, problem: Problem) -> dict[str, Any]:
    return {**problem._asdict(), "place": shown_data.near(problem.place), "text": shown_data.near(problem.text)}


def _example(shown_data: _Shown, index: int, most: int, seed: int) -> dict[str, Any]:
    """One example; tokens are lists of id, text, state and target, where there is one."""
    task, tokens = shown_data.view.task, shown_data.tokens
    example = task.sample(shown_data.view.examples[index], np.random.default_rng((seed, 0, index)))
    texts = [
        {
            "title": text.title,
            "tokens": [_token(tokens, *token) for token in text.tokens[:most]],
            "more": max(0, len(text.tokens) - most),
        }
        for text in tokens.texts(example)
    ]
    return {
        "index": index,
        "place": shown_data.near(example.place),
        "size": size_of(example),
        "dropped": example.dropped,
        "labels": tokens.labels_of(example),
        "texts": texts,
    }


def _token(tokens: TokenView, token: int, state: str, target: int | str | None) -> Sequence[Any]:
    piece = tokens.piece(token)
    if state in FATES and isinstance(target, int):
        return token, piece, state, tokens.piece(target).strip()
    return (token, piece, state) if target is None else (token, piece, state, target)


def _state(source: str | Path) -> Any:
    """What tells one state of a file from another; of a folder the newest of what is in it."""
    if not isinstance(source, Path):
        return None
    files = [source, *source.rglob("*")] if source.is_dir() else [source]
    states = [file.stat() for file in files if file.exists()]
    return len(states), sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
