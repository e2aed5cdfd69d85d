"""The requests of the tab Rate: blind tests made, answered, rated and counted.

Who rates is told the texts of answers and their places, never which model wrote which: the order of models is known to
the server, by the test's seed.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.base.settings import build
from lmworks.ratings.blind_test import TEST, BlindTest, checked_rater
from lmworks.ratings.blind_test_settings import CRITERIA, BlindTestSettings
from lmworks.ratings.outcome import outcome
from lmworks.ratings.preference_pairs import write_preference_pairs
from lmworks.ratings.prompts import read_prompts
from lmworks.serve.bodies import B, read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.schemas import Body
from lmworks.serve.service import service_of
from lmworks.studio.answering import Answering
from lmworks.studio.folders import Folders
from lmworks.studio.rating_tables import outcome_tables
from lmworks.text.formats import SUFFIXES

FOLDER, PAIRS = "ratings", "pairs.jsonl"
NAME = re.compile(r"\w[\w .-]{0,63}")
PATH = "/studio/api/rate"
MOST_FILES = 500


class NewTest(Body):
    """A new blind test: the settings of ratings/blind_test_settings, and where its prompts come from."""

    name: str
    file: str | None = None
    prompts: list[str] | None = Field(None, min_length=1)
    limit: int | None = Field(None, ge=1)
    settings: dict[str, Any]


class NamedTest(Body):
    """A request about a test."""

    test: str


class RaterBody(NamedTest):
    """A request of a rater."""

    rater: str


class RatingBody(RaterBody):
    """What a rater says; without ``best`` and ``scores`` the prompt is skipped."""

    prompt: int
    best: list[int] | None = None
    scores: list[dict[str, int]] | None = None
    seconds: float | None = Field(None, ge=0)


class BlindTests:
    """The blind tests in some folders. They stay open, since their files are read once.

    Args:
        folders: where they are.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._open: dict[Path, tuple[tuple[int, int], BlindTest]] = {}

    def open(self, name: str) -> BlindTest:
        """A test by its name.

        Raises:
            InputError: there is none, or its files are damaged.
        """
        path = self._folders.path(name)
        place = path / TEST
        mark = (place.stat().st_ino, place.stat().st_mtime_ns) if place.is_file() else (0, 0)
        known, test = self._open.get(path, (None, None))
        if test is None or known != mark:  # another test may have come into its place
            test = BlindTest(path)
            self._open[path] = mark, test
        return test

    def create(self, body: NewTest) -> str:
        """A new test; its name.

        Raises:
            InputError: it cannot be made of this; names the field.
        """
        if not NAME.fullmatch(body.name):
            hint = "give letters, digits, spaces, dots, _ or -, beginning with one of the first two"
            raise InputError("cannot be the name of a test", "name", hint)
        if (body.file is None) == (body.prompts is None):
            raise InputError("either is needed", "file, prompts", "give a file of prompts, or prompts")
        if body.prompts is not None:
            prompts: list[Any] = [[{"role": "user", "content": text}] for text in dict.fromkeys(body.prompts)]
            source, notes = "typed on the page", list[str]()
        else:
            assert body.file is not None  # checked above
            prompts, notes = read_prompts(self._folders.file(body.file), body.limit)
            source = body.file
        settings = build(BlindTestSettings, {**body.settings, "source": source}, "the page")
        folder = self._folders.first / FOLDER / body.name
        return self._folders.name(BlindTest.create(folder, settings, prompts, notes).path)

    def listed(self) -> dict[str, Any]:
        """All tests, and the files that may hold prompts."""
        tests, files, faults = [], [], []
        for path, below, names in self._folders.walk():
            if JOURNAL in names:
                below.clear()
            elif TEST in names:
                name = self._folders.name(path)
                below.clear()
                try:
                    tests.append(summary(self.open(name), name))
                except InputError as error:
                    faults.append(f"{name}: {error.fault}")
            else:
                files += [self._folders.name(path / file) for file in names if Path(file).suffix.lower() in SUFFIXES]
        more = len(files) - MOST_FILES
        notes = [f"{more:,} more files are not listed: type the name"] if more > 0 else []
        return {"tests": tests, "files": files[:MOST_FILES], "faults": faults + notes, "criteria": list(CRITERIA)}


def summary(test: BlindTest, name: str) -> dict[str, Any]:
    """A test in a list."""
    raters = {rating.rater for rating in test.ratings() if not rating.is_skipped}
    settings = test.settings.model_dump(mode="json")
    return {"name": name, "settings": settings, "raters": len(raters), "progress": asdict(test.progress())}


def shown(test: BlindTest, rater: str, prompt: int | None) -> dict[str, Any]:
    """What a rater sees of a prompt: its messages and the texts of the answers, in the rater's order."""
    progress = asdict(test.progress(rater))
    if prompt is None:
        return {"prompt": None, "progress": progress}
    answers = test.answers.all()
    order = [answers[prompt, model] for model in test.order(prompt, rater)]
    return {
        "prompt": prompt,
        "messages": test.prompts[prompt],
        "answers": [{"text": answer.text, "is_cut": answer.finish_reason == "length"} for answer in order],
        "progress": progress,
    }


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/rate.

    Args:
        folders: what may be read and written.
    """
    tests = BlindTests(folders)
    requests = _Requests(tests)
    ways = {
        "tests": requests.create,
        "test": requests.show,
        "answer": requests.answer,
        "stop": requests.stop,
        "next": requests.next,
        "rating": requests.rate,
        "undo": requests.undo,
        "outcome": requests.outcome,
        "pairs": requests.pairs,
    }
    posts = [Route(f"{PATH}/{word}", way, methods=["POST"]) for word, way in ways.items()]
    return [Route(f"{PATH}/tests", requests.list_tests), *posts]


class _Requests:
    """The endpoints."""

    def __init__(self, tests: BlindTests) -> None:
        self._tests = tests
        self._answering: Answering | None = None

    async def list_tests(self, request: Request) -> Response:
        """All tests."""
        return JsonResponse(await run_in_threadpool(self._tests.listed))

    async def create(self, request: Request) -> Response:
        """Make a test, and begin with its answers."""
        body = await _read(request, NewTest)
        name = await run_in_threadpool(self._tests.create, body)
        self._answers(request).start(await run_in_threadpool(self._tests.open, name))
        return JsonResponse({"test": name})

    async def show(self, request: Request) -> Response:
        """A test, and how far its answers are."""
        name = (await _read(request, NamedTest)).test
        test = await run_in_threadpool(self._tests.open, name)
        answering = self._answers(request)
        state = {"is_answering": answering.is_running(test), "failure": answering.failure(test)}
        notes = await run_in_threadpool(lambda: [*test.notes, *test.answers.failures(), *test.file_notes()])
        return JsonResponse({**await run_in_threadpool(summary, test, name), **state, "notes": notes})

    async def answer(self, request: Request) -> Response:
        """Make the answers that are missing."""
        self._answers(request).start(await self._test(await _read(request, NamedTest)))
        return JsonResponse({})

    async def stop(self, request: Request) -> Response:
        """Make no more of them now."""
        self._answers(request).stop(await self._test(await _read(request, NamedTest)))
        return JsonResponse({})

    async def next(self, request: Request) -> Response:
        """What a rater is to see next."""
        body = await _read(request, RaterBody)
        return JsonResponse(await run_in_threadpool(_next, await self._test(body), checked_rater(body.rater)))

    async def rate(self, request: Request) -> Response:
        """Keep a rating; what the rater is to see next."""
        body = await _read(request, RatingBody)
        return JsonResponse(await run_in_threadpool(_rate, await self._test(body), body))

    async def undo(self, request: Request) -> Response:
        """Take back a rater's last rating, and show its prompt again."""
        body = await _read(request, RaterBody)
        return JsonResponse(await run_in_threadpool(_undo, await self._test(body), checked_rater(body.rater)))

    async def outcome(self, request: Request) -> Response:
        """What the ratings say so far."""
        test = await self._test(await _read(request, NamedTest))
        return JsonResponse(await run_in_threadpool(lambda: outcome_tables(outcome(test))))

    async def pairs(self, request: Request) -> Response:
        """Write the preference pairs into the test's folder."""
        body = await _read(request, NamedTest)
        test = await self._test(body)
        count = await run_in_threadpool(write_preference_pairs, test, test.path / PAIRS)
        return JsonResponse({"file": f"{body.test}/{PAIRS}", "pairs": count})

    async def _test(self, body: NamedTest) -> BlindTest:
        return await run_in_threadpool(self._tests.open, body.test)

    def _answers(self, request: Request) -> Answering:
        if self._answering is None:
            self._answering = Answering(request.app.state.models, service_of(request))
        return self._answering


async def _read(request: Request, schema: type[B]) -> B:
    return await read_body(request, schema, service_of(request).settings.body_bytes)


def _next(test: BlindTest, rater: str) -> dict[str, Any]:
    return shown(test, rater, test.next_prompt(rater))


def _rate(test: BlindTest, body: RatingBody) -> dict[str, Any]:
    rating = test.rate(body.rater, body.prompt, body.best, body.scores, body.seconds)
    return _next(test, rating.rater)


def _undo(test: BlindTest, rater: str) -> dict[str, Any]:
    prompt = test.undo(rater)
    return _next(test, rater) if prompt is None else shown(test, rater, prompt)
