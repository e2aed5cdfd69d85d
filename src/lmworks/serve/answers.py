"""Requests on their way through the queues, seen from the event loop: their events, their usage, their log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from lmworks.serve.api_errors import ApiError
from lmworks.serve.delivery import Inbox
from lmworks.serve.event_stream import until_hangup
from lmworks.serve.record import RequestRecord, record_of
from lmworks.serve.request import (
    Finished,
    FinishReason,
    GenerationRequest,
    Piece,
    PromptScores,
    Results,
    TextRequest,
)
from lmworks.serve.schemas import SamplingBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import Service, service_of
from lmworks.serve.text_queue import TextQueue
from lmworks.serve.token_choice import ChoiceSettings, TokenScore

AnswerEvent = PromptScores | Piece | Finished
DEFAULT_LIMIT = 256
"""New tokens of a model whose context has no end, where the request says nothing."""


async def results_of(request: Request, queue: TextQueue, texts: Sequence[Any], time_limit: float) -> list[Any]:
    """What a queue computes of texts; it does not go on when the client hangs up before.

    Args:
        request: whose body is read.
        queue: computes.
        texts: as the queue reads them.
        time_limit: seconds.

    Raises:
        Exception: that of the request, where it failed; ClientDisconnect: the client has gone.
    """
    inbox = Inbox(service_of(request).worker.outbox)
    asked = TextRequest(inbox.send, time_limit, texts, record_of(request.scope).client)
    queue.submit(asked)
    try:
        event = await until_hangup(request.receive, inbox.next())
    finally:
        asked.cancel()
    assert isinstance(event, Results)
    return event.values


@dataclass
class Answer:
    """One answer, complete.

    Attributes:
        text: new text.
        scores: of its tokens, where they were asked for.
        prompt_scores: of the prompt's tokens but its first, where they were asked for.
        finish_reason: why it ended.
    """

    text: str = ""
    scores: list[TokenScore] = field(default_factory=list)
    prompt_scores: list[TokenScore] | None = None
    finish_reason: FinishReason | None = None

    def take(self, event: AnswerEvent) -> None:
        """Take the next event of it."""
        if isinstance(event, PromptScores):
            self.prompt_scores = event.scores
        elif isinstance(event, Piece):
            self.text += event.text
            self.scores += event.scores
        else:
            self.finish_reason = event.reason


class Answers:
    """The answers to some prompts, the choices of the first prompt first.

    Args:
        service: the server.
        served: the model.
        body: the request.
        field_name: of the body, which holds the prompts.
        prompts: ids.
        settings: how tokens are chosen.
        limit: new tokens of an answer at most; None: as many as there is room for.
        scores_prompt: whether scores of prompts are wanted.
        record: of the request.

    Raises:
        ApiError: a prompt is empty, or leaves no room in the context; the model was unloaded meanwhile.
    """

    def __init__(
        self,
        service: Service,
        served: ServedModel,
        body: SamplingBody,
        field_name: str,
        prompts: Sequence[Sequence[int]],
        settings: ChoiceSettings,
        limit: int | None,
        record: RequestRecord,
        scores_prompt: bool = False,
    ) -> None:
        self._inbox, self._record, self._copies = Inbox(service.worker.outbox), record, body.copies
        self.request = GenerationRequest(self._inbox.send, service.settings.time_limit, record.client)
        if service.models.get(served.name) is not served:  # unloaded while its prompt was being made
            raise ApiError(404, f"{served.name} is not served any more", "model", "model_not_found")
        self.prompt_tokens = sum(map(len, prompts))
        self._finished: list[Finished] = []
        record.user, record.prompt_tokens = body.user, self.prompt_tokens
        for prompt in prompts:
            room = check_prompt(served, prompt, field_name)
            most = limit if limit is not None else room if room is not None else DEFAULT_LIMIT
            for copy in range(body.copies):
                seed = body.seed_number
                seeds = [seed, copy] if seed is not None and copy else seed
                served.add_choice(self.request, prompt, most, settings, seeds, scores_prompt)

    async def events(self) -> AsyncGenerator[list[AnswerEvent], None]:
        """All events of its choices, each time those that are there.

        Raises:
            Exception: that of the request, where it failed.
        """
        left = len(self.request.choices)
        while left:
            events: list[AnswerEvent] = []
            for event in await self._inbox.ready():
                assert isinstance(event, PromptScores | Piece | Finished)
                if isinstance(event, Finished):
                    left -= 1
                    self._finish(event)
                elif self._record.first_token_seconds is None:
                    self._record.first_token_seconds = round(time.monotonic() - self.request.began, 4)
                events.append(event)
            yield events

    async def all(self, request: Request) -> list[Answer]:
        """All answers, once they are complete; when the client hangs up before, they end.

        Raises:
            Exception: that of the request, where it failed; ClientDisconnect: the client has gone.
        """
        try:
            return await until_hangup(request.receive, self._gather())
        finally:
            self.request.cancel()

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object, once they are complete."""
        completion = sum(event.completion_tokens for event in self._finished)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached()},
        }

    async def _gather(self) -> list[Answer]:
        answers = [Answer() for _ in self.request.choices]
        async for events in self.events():
            for event in events:
                answers[event.index].take(event)
        return answers

    def _cached(self) -> int:
        """Tokens of the prompts that the first choice of each did not read."""
        return sum(event.reused_tokens for event in self._finished if event.index % self._copies == 0)

    def _finish(self, event: Finished) -> None:
        self._finished.append(event)
        self._record.finish_reasons.append(event.reason)
        self._record.completion_tokens = sum(event.completion_tokens for event in self._finished)
        self._record.cached_tokens = self._cached()


def check_prompt(served: ServedModel, prompt: Sequence[int], field_name: str) -> int | None:
    """How many new tokens there is room for after a prompt; None: any number.

    Raises:
        ApiError: it is empty, or leaves no room.
    """
    if not prompt:
        raise ApiError(
            400, "the prompt is empty: give at least one token to continue from", field_name, "invalid_value"
        )
    room = served.room(prompt)
    if room is not None and room < 1:
        message = f"the prompt has {len(prompt):,} tokens, and the model's context holds {served.context:,}"
        raise ApiError(400, f"{message}: shorten it", field_name, "context_length_exceeded")
    return room
