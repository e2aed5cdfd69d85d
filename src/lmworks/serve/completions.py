"""POST /v1/completions: texts continued as they are."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import Answer, AnswerEvent, Answers
from lmworks.serve.api_errors import ApiError, about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import MARK, EventStream, EventTemplate, JsonResponse, to_event
from lmworks.serve.record import record_of
from lmworks.serve.request import Piece, PromptScores
from lmworks.serve.schemas import CompletionBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import service_of
from lmworks.serve.token_choice import TokenScore
from lmworks.serve.token_scores import CompletionScores, joined


async def completions(request: Request) -> Response:
    """Continue one text or several."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, CompletionBody, service.settings.body_bytes)
    served, scheduler = service.writer(body.model, request)
    scores_prompt = body.echo and body.logprobs is not None
    if scores_prompt and not scheduler.backend.scores_prompts:
        message = f"logprobs with echo: true is not supported by {body.model}, which the native engine does not compute"
        raise ApiError(400, message, "logprobs", "unsupported_parameter")
    with about_field("prompt"):
        prompts = [await run_in_threadpool(_ids, served, prompt) for prompt in body.prompts]
    with about_field("logit_bias"):
        settings = body.settings(scheduler.backend.vocab_size, body.logprobs)
    answers = Answers(service, served, body, "prompt", prompts, settings, body.max_tokens, record, scores_prompt)
    scheduler.submit(answers.request)
    writer = _Writer(f"cmpl-{record.id}", served, body, prompts)
    if body.stream:
        return EventStream(writer.chunks(answers), answers.request.cancel)
    choices = [writer.choice(index, answer) for index, answer in enumerate(await answers.all(request))]
    return JsonResponse({**writer.head(), "choices": choices, "usage": answers.usage()})


def _ids(served: ServedModel, prompt: str | list[int]) -> list[int]:
    """A prompt that is text or ids, as ids."""
    return served.text(prompt) if isinstance(prompt, str) else served.check_ids(prompt)


class _Writer:
    """Writes the objects of one response."""

    def __init__(self, name: str, served: ServedModel, body: CompletionBody, prompts: Sequence[Sequence[int]]) -> None:
        self._name, self._served, self._body, self._created = name, served, body, int(time.time())
        count = len(prompts) * body.n
        self._prompts = [prompts[index // body.n] for index in range(count)]
        self._echoes = [self._echo(index) for index in range(count)]
        self._scores = [CompletionScores(served.tokenizer, body.logprobs or 0) for _ in range(count)]
        streamed = range(count if body.stream else 0)
        self._texts = [EventTemplate(self._chunk(self._choice(index, MARK, [], None))) for index in streamed]

    def head(self) -> dict[str, Any]:
        """What all objects of the response begin with."""
        return {"id": self._name, "object": "text_completion", "created": self._created, "model": self._served.name}

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        """A whole answer."""
        parts = [] if answer.prompt_scores is None else [self._prompt_scores(index, answer.prompt_scores)]
        parts += [self._scores[index].new(answer.scores)]
        return self._choice(index, self._echoes[index] + answer.text, parts, answer.finish_reason)

    async def chunks(self, answers: Answers) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """The chunks of a stream; the usage comes last, where it was asked for."""
        if self._body.echo and self._body.logprobs is None:
            for index, text in enumerate(self._echoes):
                yield self._chunk(self._choice(index, text, [], None))
        async for events in answers.events():
            yield b"".join(map(self._written, events))
        if self._body.include_usage:
            yield {**self.head(), "choices": [], "usage": answers.usage()}

    def _written(self, event: AnswerEvent) -> bytes:
        """The chunk that an event makes."""
        index = event.index
        if isinstance(event, Piece):
            if self._body.logprobs is None:
                return self._texts[index].fill(event.text)
            choice = self._choice(index, event.text, [self._scores[index].new(event.scores)], None)
        elif isinstance(event, PromptScores):
            choice = self._choice(index, self._echoes[index], [self._prompt_scores(index, event.scores)], None)
        else:
            choice = self._choice(index, "", [], event.reason)
        return to_event(self._chunk(choice))

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self.head(), "choices": [choice], **usage}

    def _choice(
        self, index: int, text: str, scores: list[dict[str, list[Any]]], finish_reason: str | None
    ) -> dict[str, Any]:
        told = joined(scores) if scores and self._body.logprobs is not None else None
        return {"index": index, "text": text, "logprobs": told, "finish_reason": finish_reason}

    def _prompt_scores(self, index: int, scores: list[TokenScore]) -> dict[str, list[Any]]:
        return self._scores[index].prompt(self._prompts[index], scores)

    def _echo(self, index: int) -> str:
        """What stands before an answer: its prompt, where that was asked for."""
        if not self._body.echo:
            return ""
        prompt = self._body.prompts[index // self._body.n]
        return prompt if isinstance(prompt, str) else self._served.tokenizer.decode(prompt, skip_special=False)
