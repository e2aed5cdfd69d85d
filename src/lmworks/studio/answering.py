"""Makes the answers of a blind test with the models that are here, in the background: each is made once, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from lmworks.base.seeds import derived_seed
from lmworks.generate.sampling import SamplingSettings
from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import BlindTest
from lmworks.serve.answers import check_prompt
from lmworks.serve.api_errors import ApiError, about_field, as_api_error
from lmworks.serve.delivery import Inbox
from lmworks.serve.request import Finished, GenerationRequest, Piece, QueueFull
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import Service
from lmworks.serve.token_choice import ChoiceSettings
from lmworks.studio.models import Models, described
from lmworks.text.messages import Message

AT_A_TIME = 16
"""Answers that are asked for at a time: enough to fill a batch, few enough to leave places to people who chat."""


class Answering:
    """The blind tests whose answers are being made.

    Args:
        models: that are here.
        service: the server's state.
    """

    def __init__(self, models: Models, service: Service) -> None:
        self._models, self._service = models, service
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._failures: dict[Path, str] = {}

    def is_running(self, test: BlindTest) -> bool:
        """Whether answers of a test are being made."""
        return test.path in self._tasks

    def failure(self, test: BlindTest) -> str | None:
        """Why the answers of a test came to an end before all were made."""
        return self._failures.get(test.path)

    def start(self, test: BlindTest) -> None:
        """Make the answers that are missing, unless that goes on already."""
        if not self.is_running(test):
            self._failures.pop(test.path, None)
            task = self._tasks[test.path] = asyncio.ensure_future(self._make(test))
            task.add_done_callback(lambda done: self._end(test, done))

    def stop(self, test: BlindTest) -> None:
        """Make no more answers; those that are made stay."""
        if task := self._tasks.get(test.path):
            task.cancel()

    def _end(self, test: BlindTest, task: asyncio.Task[None]) -> None:
        del self._tasks[test.path]
        if not task.cancelled() and (error := task.exception()) is not None and isinstance(error, Exception):
            self._failures[test.path] = as_api_error(error).message

    async def _make(self, test: BlindTest) -> None:
        """Make all missing answers, prompt by prompt, so that rating can begin with the first.

        Raises:
            ApiError, InputError: a model is not here, or cannot answer at all.
        """
        served = {}
        missing = await run_in_threadpool(test.answers.missing)
        for name in dict.fromkeys(model for _, model in missing):
            served[name] = await self._models.open(name)
            if served[name].scheduler is None:
                raise ApiError(400, f"{name} writes no texts: make a test without it", "models", "model_kind")
        places = asyncio.Semaphore(AT_A_TIME)

        async def make(prompt: int, model: str) -> None:
            async with places:
                answer = await self._answer(test, prompt, served[model])
                await run_in_threadpool(test.answers.add, prompt, model, answer)

        tasks = [asyncio.ensure_future(make(prompt, model)) for prompt, model in missing]
        try:
            await asyncio.gather(*tasks)
        finally:  # where one fails, the others are not made either
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, test: BlindTest, prompt: int, served: ServedModel) -> Answer:
        """One answer, or why there can be none."""
        try:
            with about_field("prompt"):
                ids, stop = await run_in_threadpool(_read, served, test.prompts[prompt])
            room = check_prompt(served, ids, "prompt")
        except ApiError as error:
            return Answer(None, failure=error.message)
        settings = test.settings
        sampling = SamplingSettings(temperature=settings.temperature, top_p=settings.top_p, stop=stop)
        limit = settings.max_tokens if room is None else min(settings.max_tokens, room)
        seed = derived_seed(settings.seed, f"{served.name} {prompt}")
        while True:
            inbox = Inbox(self._service.worker.outbox)
            request = GenerationRequest(inbox.send, self._service.settings.time_limit)
            served.add_choice(request, ids, limit, ChoiceSettings(sampling), seed)
            try:
                return await _written(request, inbox, served)
            except QueueFull as error:
                await asyncio.sleep(error.retry_after)


def _read(served: ServedModel, messages: Sequence[Message]) -> tuple[list[int], list[str]]:
    """The ids of a conversation as a model reads it, and texts at which its answer ends. A model that only continues
    texts, since it learned no conversations, reads the text of a single message.

    Raises:
        InputError: it cannot read this.
    """
    if described(served)["reads"] == "text" and len(messages) == 1:
        return served.text(messages[0]["content"]), []
    prompt = served.conversation(messages)
    return prompt.ids, list(prompt.stop)


async def _written(request: GenerationRequest, inbox: Inbox, served: ServedModel) -> Answer:
    """Submit a request and wait for its answer; whoever does not wait any more cancels it.

    Raises:
        QueueFull: too many wait already.
    """
    assert served.scheduler is not None  # whoever asks has checked it
    served.scheduler.submit(request)
    text = ""
    try:
        while True:
            event = await inbox.next()
            if isinstance(event, Piece):
                text += event.text
            elif isinstance(event, Finished):
                return Answer(text.strip(), event.reason)
    finally:
        request.cancel()
