"""POST /v1/responses: OpenAI's Responses API, for texts."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import Answer, Answers
from lmworks.serve.api_errors import ApiError, about_field
from lmworks.serve.bodies import parse_object, read_body
from lmworks.serve.event_stream import EventStream, JsonResponse
from lmworks.serve.record import record_of
from lmworks.serve.request import Finished, Piece
from lmworks.serve.response_schemas import ITEMS, FunctionOutput, InputMessage, ResponsesBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.service import service_of
from lmworks.serve.token_choice import TokenScore
from lmworks.serve.token_scores import text_scores

Item = dict[str, Any]


async def responses(request: Request) -> Response:
    """Answer a text, or a conversation."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, ResponsesBody, service.settings.body_bytes)
    served, scheduler = service.writer(body.model, request)
    messages = messages_of(body)
    with about_field("input"):
        prompt = await run_in_threadpool(served.conversation, messages)
    with about_field("logit_bias"):
        settings = body.settings(scheduler.backend.vocab_size, body.top, prompt.stop)
    answers = Answers(service, served, body, "input", [prompt.ids], settings, body.max_output_tokens, record)
    scheduler.submit(answers.request)
    writer = _Writer(record.id, served, body)
    if body.stream:
        return EventStream(writer.events(answers), answers.request.cancel, is_named=True)
    (answer,) = await answers.all(request)
    return JsonResponse(writer.response(answer, answers.usage()))


def messages_of(body: ResponsesBody) -> list[dict[str, Any]]:
    """The input as messages of a chat: calls of functions belong to the message of the assistant before them.

    Raises:
        ApiError: an item is malformed, or of a type that is not read.
    """
    messages: list[dict[str, Any]] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for number, values in enumerate(body.input):
        place, kind = f"input[{number}]", values.get("type", "message")
        if kind not in ITEMS:
            message = f"{place}.type: there are no items of type {str(kind)[:80]!r} here: {', '.join(ITEMS)}"
            raise ApiError(400, message, "input", "invalid_value")
        item = parse_object(values, ITEMS[kind], place)
        if isinstance(item, InputMessage):
            messages.append({"role": item.role, "content": item.text})
        elif isinstance(item, FunctionOutput):
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
        else:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": ""})
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            messages[-1].setdefault("tool_calls", []).append(call)
    return messages


class _Writer:
    """Writes the objects of one response."""

    def __init__(self, number: str, served: ServedModel, body: ResponsesBody) -> None:
        self._number, self._served, self._body, self._created = number, served, body, int(time.time())
        self._events = 0

    def response(self, answer: Answer | None, usage: dict[str, Any] | None) -> Item:
        """The response; before there is an answer, one that is in progress."""
        body, is_cut = self._body, answer is not None and answer.finish_reason == "length"
        return {
            "id": f"resp_{self._number}",
            "object": "response",
            "created_at": self._created,
            "status": "in_progress" if answer is None else "incomplete" if is_cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": self._served.name,
            "output": [] if answer is None else self._output(answer),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
            "user": body.user,
        }

    async def events(self, answers: Answers) -> AsyncGenerator[Item, None]:
        """The events of a stream."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self.response(None, None))
        answer, place = Answer(), {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        yield self._event("response.output_item.added", output_index=0, item=self._message(None))
        yield self._event("response.content_part.added", **place, part=self._part(Answer()))
        async for event in answers.events():
            if isinstance(event, Piece):
                answer.text += event.text
                answer.scores += event.scores
                told = self._scores(event.scores)
                yield self._event("response.output_text.delta", **place, delta=event.text, logprobs=told)
            elif isinstance(event, Finished):
                answer.finish_reason = event.reason
        for closing in self._closing(answer, place):
            yield closing
        name = "incomplete" if answer.finish_reason == "length" else "completed"
        yield self._event(f"response.{name}", response=self.response(answer, answers.usage()))

    def _closing(self, answer: Answer, place: dict[str, Any]) -> Iterator[Item]:
        """The events after the last piece of a text."""
        told = self._scores(answer.scores)
        yield self._event("response.output_text.done", **place, text=answer.text, logprobs=told)
        yield self._event("response.content_part.done", **place, part=self._part(answer))
        yield self._event("response.output_item.done", output_index=0, item=self._message(answer))

    def _output(self, answer: Answer) -> list[Item]:
        return [self._message(answer)]

    @property
    def _item_id(self) -> str:
        return f"msg_{self._number}"

    def _message(self, answer: Answer | None) -> Item:
        """The message of an answer; before there is one, one that is in progress."""
        if answer is None:
            status, content = "in_progress", list[Item]()
        else:
            status, content = "incomplete" if answer.finish_reason == "length" else "completed", [self._part(answer)]
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, answer: Answer) -> Item:
        told = self._scores(answer.scores)
        return {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": told}

    def _scores(self, scores: list[TokenScore]) -> list[Item]:
        return [] if self._body.top is None else text_scores(self._served.tokenizer, scores)

    def _event(self, kind: str, **values: Any) -> Item:
        """An event with its number."""
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **values}


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """A chat's usage in the words of Responses."""
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
