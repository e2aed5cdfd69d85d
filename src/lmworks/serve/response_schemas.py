"""What requests to OpenAI's Responses API may say."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lmworks.serve.schemas import MOST_TOOLS, MOST_TOP, Body, SamplingBody

LOGPROBS = "message.output_text.logprobs"


class TextSettings(Body):
    """``text``: what the answer must look like."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"verbosity"})
    format: dict[str, Any] = Field(default_factory=lambda: {"type": "text"})


class InputText(Body):
    """A part of a message that is text."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] = Field(default_factory=list, max_length=0)
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """A message of the input; one that an earlier response wrote has an id and a status, which mean nothing here."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"phase"})
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText] = Field(description="a text, or a list of parts of type input_text")
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class FunctionCall(Body):
    """A call of a function that an earlier response wrote."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"created_by", "namespace"})
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionOutput(Body):
    """What such a call came to."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: str | None = None


ITEMS: dict[str, type[InputMessage] | type[FunctionCall] | type[FunctionOutput]] = {
    "message": InputMessage,
    "function_call": FunctionCall,
    "function_call_output": FunctionOutput,
}
"""The items of an input by their type."""


class ResponsesBody(SamplingBody):
    """POST /v1/responses."""

    unsupported: ClassVar[frozenset[str]] = frozenset(
        [
            "conversation",
            "max_tool_calls",
            "previous_response_id",
            "prompt",
            "prompt_cache_key",
            "prompt_cache_retention",
            "reasoning",
            "safety_identifier",
            "service_tier",
            "stream_options",
        ]
    )
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)] = Field(
        description="a text or a list of items: messages, calls of functions, and what they came to"
    )
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    include: list[Literal["message.output_text.logprobs"]] = Field(default_factory=list)
    text: TextSettings = Field(default_factory=TextSettings)
    tools: list[dict[str, Any]] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: str | dict[str, Any] | None = Field(
        None, description='"auto", "none", "required" or {"type": "function", "name": "..."}'
    )
    parallel_tool_calls: bool = True
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)
    truncation: Literal["disabled"] = "disabled"
    store: Literal[False] = False
    background: Literal[False] = False

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and LOGPROBS not in self.include:
            raise ValueError(f'top_logprobs is for requests with include: ["{LOGPROBS}"]')
        return self

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens are told at each place; None: no scores."""
        return (self.top_logprobs or 0) if LOGPROBS in self.include else None
