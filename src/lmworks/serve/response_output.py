"""The objects and events of OpenAI's Responses API: a response whose output is a message, and calls of functions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from lmworks.generate.tool_call_parser import Delta
from lmworks.serve.answers import Answer, Answers
from lmworks.serve.request import Finished, Piece
from lmworks.serve.response_schemas import ResponsesBody
from lmworks.serve.served_model import ServedModel
from lmworks.serve.structure import AnswerReader
from lmworks.serve.token_choice import TokenScore
from lmworks.serve.token_scores import text_scores

Item = dict[str, Any]


class ResponseWriter:
    """Writes one response, whole or as a stream.

    Args:
        number: of the request.
        served: the model.
        body: the request.
        reader: reads the answer.
    """

    def __init__(self, number: str, served: ServedModel, body: ResponsesBody, reader: AnswerReader) -> None:
        self._number, self._served, self._body, self._reader = number, served, body, reader
        self._created, self._events = int(time.time()), 0
        self._output: list[Item] = []
        self._scores: list[Item] = []

    def whole(self, answer: Answer, usage: dict[str, Any]) -> Item:
        """The response."""
        for _ in self._written(answer.text, answer.scores):
            pass
        for _ in self._end(answer.finish_reason):
            pass
        return self._response(answer.finish_reason, usage)

    async def events(self, answers: Answers) -> AsyncGenerator[Item, None]:
        """The events of a stream."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._response(None, None))
        reason = None
        async for events in answers.events():
            for event in events:
                if isinstance(event, Piece):
                    for written in self._written(event.text, event.scores):
                        yield written
                elif isinstance(event, Finished):
                    reason = event.reason
                    for written in self._end(reason):
                        yield written
        response = self._response(reason, answers.usage())
        yield self._event(f"response.{response['status']}", response=response)

    def _response(self, reason: str | None, usage: dict[str, Any] | None) -> Item:
        """The response as far as it has come; ``reason``: why the answer ended, None while it goes on."""
        body, is_cut = self._body, reason == "length"
        return {
            "id": f"resp_{self._number}",
            "object": "response",
            "created_at": self._created,
            "status": "in_progress" if reason is None else "incomplete" if is_cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": self._served.name,
            "output": [dict(item) for item in self._output],
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": body.temperature,
            "text": {"format": body.text.format},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools,
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
            "user": body.user,
        }

    def _written(self, text: str, scores: list[TokenScore]) -> Iterator[Item]:
        """The events of more of the answer."""
        told = [] if self._body.top is None else text_scores(self._served.tokenizer, scores)
        self._scores += told
        for delta in self._reader.feed(text):
            yield from self._added(delta, told)
            told = []

    def _end(self, reason: str | None) -> Iterator[Item]:
        """The events after the last token: what was held back, and the end of the last item. An answer without text
        and calls is a message without text."""
        for delta in self._reader.finish():
            yield from self._added(delta, [])
        if not self._output:
            yield from self._begin_message()
        yield from self._close("incomplete" if reason == "length" else "completed")

    def _added(self, delta: Delta, told: list[Item]) -> Iterator[Item]:
        """The events of a delta of a chat."""
        if "content" in delta:
            if not self._output:
                yield from self._begin_message()
            item, text = self._output[-1], delta["content"]
            item["content"][0]["text"] += text
            yield self._event("response.output_text.delta", **self._part_place(), delta=text, logprobs=told)
            return
        for call in delta["tool_calls"]:
            function = call["function"]
            if "name" in function:
                yield from self._close("completed")
                yield from self._begin_call(call)
            if piece := function["arguments"]:
                self._output[-1]["arguments"] += piece
                yield self._event("response.function_call_arguments.delta", **self._place(), delta=piece)

    def _begin_message(self) -> Iterator[Item]:
        item: Item = {"id": f"msg_{self._number}", "type": "message", "status": "in_progress", "role": "assistant"}
        self._output.append({**item, "content": []})
        yield self._event("response.output_item.added", output_index=0, item={**item, "content": []})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._output[-1]["content"] = [part]
        yield self._event("response.content_part.added", **self._part_place(), part=dict(part))

    def _begin_call(self, call: Item) -> Iterator[Item]:
        number = len(self._output)
        item = {
            "id": f"fc_{self._number}_{number}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": "",
        }
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=number, item=dict(item))

    def _close(self, status: str) -> Iterator[Item]:
        """The events at the end of the last item."""
        if not self._output:
            return
        item = self._output[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            part["logprobs"] = self._scores
            place = self._part_place()
            yield self._event("response.output_text.done", **place, text=part["text"], logprobs=self._scores)
            yield self._event("response.content_part.done", **place, part=dict(part))
        else:
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **self._place(), **arguments)
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=dict(item))

    def _place(self) -> Item:
        """Of the last item."""
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _part_place(self) -> Item:
        """Of the only part of the message."""
        return {**self._place(), "content_index": 0}

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
