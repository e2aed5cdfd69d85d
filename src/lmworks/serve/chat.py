"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import Answer, AnswerEvent, Answers
from lmworks.serve.api_errors import about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import MARK, EventStream, EventTemplate, JsonResponse, to_event
from lmworks.serve.record import record_of
from lmworks.serve.request import Finished, Piece
from lmworks.serve.schemas import ChatBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import service_of
from lmworks.serve.structure import Structure, Wanted
from lmworks.serve.token_choice import TokenScore
from lmworks.serve.token_scores import chat_scores


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, ChatBody, service.settings.body_bytes)
    served, scheduler = service.writer(body.model, request)
    vocab_size = scheduler.backend.vocab_size
    wanted = Wanted(body.response_format, body.tools, body.tool_choice, body.parallel_tool_calls)
    structure = await run_in_threadpool(Structure, wanted, served.tokenizer, vocab_size)
    with about_field("messages"):
        prompt = await run_in_threadpool(served.conversation, body.messages, structure.tools)
    with about_field("logit_bias"):
        settings = structure.apply(body.settings(vocab_size, body.top, prompt.stop))
    with about_field(body.limit_field):
        answers = Answers(service, served, body, "messages", [prompt.ids], settings, body.limit, record)
    scheduler.submit(answers.request)
    writer = _Writer(f"chatcmpl-{record.id}", served, body, structure)
    if body.stream:
        return EventStream(writer.chunks(answers), answers.request.cancel)
    choices = [writer.choice(index, answer) for index, answer in enumerate(await answers.all(request))]
    return JsonResponse({**writer.head("chat.completion"), "choices": choices, "usage": answers.usage()})


class _Writer:
    """Writes the objects of one response."""

    def __init__(self, name: str, served: ServedModel, body: ChatBody, structure: Structure) -> None:
        self._name, self._served, self._body, self._created = name, served, body, int(time.time())
        self._readers = [structure.reader() for _ in range(body.n)]
        count = body.n if body.stream else 0
        self._texts = [EventTemplate(self._chunk(index, {"content": MARK})) for index in range(count)]

    def head(self, kind: str) -> dict[str, Any]:
        """What all objects of the response begin with."""
        return {"id": self._name, "object": kind, "created": self._created, "model": self._served.name}

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        """A whole answer."""
        reader = self._readers[index]
        reader.feed(answer.text)
        reader.finish()
        return {
            "index": index,
            "message": {**reader.message(), "refusal": None},
            "logprobs": self._told(answer.scores),
            "finish_reason": reader.finish_reason(answer.finish_reason),
        }

    async def chunks(self, answers: Answers) -> AsyncGenerator[dict[str, Any] | bytes, None]:
        """The chunks of a stream; the usage comes last, where it was asked for."""
        for choice in answers.request.choices:
            yield self._chunk(choice.index, {"role": "assistant", "content": ""})
        async for events in answers.events():
            yield b"".join(written for event in events for written in self._written(event))
        if self._body.include_usage:
            yield {**self.head("chat.completion.chunk"), "choices": [], "usage": answers.usage()}

    def _written(self, event: AnswerEvent) -> Iterator[bytes]:
        """The chunks that an event makes."""
        index, reader = event.index, self._readers[event.index]
        if isinstance(event, Piece):
            scores = event.scores
            for delta in reader.feed(event.text) or ([{}] if scores else []):
                if self._body.top is None and "content" in delta:
                    yield self._texts[index].fill(delta["content"])
                else:
                    yield to_event(self._chunk(index, delta, scores))
                scores = []
        elif isinstance(event, Finished):
            for delta in reader.finish():
                yield to_event(self._chunk(index, delta))
            yield to_event(self._chunk(index, {}, finish_reason=reader.finish_reason(event.reason)))

    def _told(self, scores: list[TokenScore]) -> dict[str, Any] | None:
        """``logprobs``."""
        return None if self._body.top is None else chat_scores(self._served.tokenizer, scores)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        scores: list[TokenScore] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        told = None if scores is None else self._told(scores)
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self.head("chat.completion.chunk"), "choices": [choice], **usage}
