"""POST /v1/responses: OpenAI's Responses API, for texts and calls of functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.answers import Answers
from lmworks.serve.api_errors import ApiError, about_field
from lmworks.serve.bodies import parse_object, read_body
from lmworks.serve.event_stream import EventStream, JsonResponse
from lmworks.serve.record import record_of
from lmworks.serve.response_output import ResponseWriter
from lmworks.serve.response_schemas import ITEMS, FunctionOutput, InputMessage, ResponsesBody
from lmworks.serve.service import service_of
from lmworks.serve.structure import Structure, Wanted


async def responses(request: Request) -> Response:
    """Answer a text, or a conversation."""
    service, record = service_of(request), record_of(request.scope)
    body = await read_body(request, ResponsesBody, service.settings.body_bytes)
    served, scheduler = service.writer(body.model, request)
    vocab_size, messages = scheduler.backend.vocab_size, messages_of(body)
    structure = await run_in_threadpool(Structure, wanted_of(body), served.tokenizer, vocab_size)
    with about_field("input"):
        prompt = await run_in_threadpool(served.conversation, messages, structure.tools)
    with about_field("logit_bias"):
        settings = structure.apply(body.settings(vocab_size, body.top, prompt.stop))
    with about_field("max_output_tokens"):
        answers = Answers(service, served, body, "input", [prompt.ids], settings, body.max_output_tokens, record)
    scheduler.submit(answers.request)
    writer = ResponseWriter(record.id, served, body, structure.reader())
    if body.stream:
        return EventStream(writer.events(answers), answers.request.cancel, is_named=True)
    (answer,) = await answers.all(request)
    return JsonResponse(writer.whole(answer, answers.usage()))


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
        place, kind = f"input[{number}]", str(values.get("type", "message"))
        if kind not in ITEMS:
            message = f"{place}.type: there are no items of type {kind[:80]!r} here: {', '.join(ITEMS)}"
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


def wanted_of(body: ResponsesBody) -> Wanted:
    """The form of the answer, where /v1/responses has the keys of a schema or a function side by side with their type.

    Raises:
        ApiError: a tool is no function.
    """
    wanted: dict[str, Any] = dict(body.text.format)
    if wanted.get("type") == "json_schema":
        described = {key: value for key, value in wanted.items() if key != "type"}
        wanted = {"type": "json_schema", "json_schema": described}
    tools = None
    if body.tools:
        tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(body.tools)]
    choice = body.tool_choice
    if isinstance(choice, Mapping) and "function" not in choice:
        choice = {"type": choice.get("type"), "function": {key: choice[key] for key in choice if key != "type"}}
    return Wanted(wanted, tools, choice, body.parallel_tool_calls, "text")


def _tool(tool: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A function as chats have it."""
    if tool.get("type") != "function":
        message = f"{place}.type: there are no tools of type {str(tool.get('type'))[:80]!r} here: functions alone"
        raise ApiError(400, message, "tools", "invalid_value")
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
