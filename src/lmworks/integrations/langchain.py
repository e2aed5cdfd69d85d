"""LangChain's interfaces over models in this process (extra ``langchain``): ChatLmworks, LmworksLLM, LmworksEmbeddings.

Nothing is sent anywhere: a model is opened once and asked by its own methods. Models are computed by the threads of
this process, so one token is computed at a time, whoever asks; several streams take turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, BaseLLM, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall, ToolCallChunk, tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import parse_tool_call
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator

from lmworks.base.errors import InputError, check_type
from lmworks.base.settings import build
from lmworks.generate.grammar import Grammar
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import Reply, TextStream
from lmworks.language_model import engine_cache
from lmworks.language_model.text_methods import TextMethods
from lmworks.run.load import load

FORM_SETTINGS = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
"""Settings of a call, in OpenAI's words, that are not about how tokens are chosen."""
_COMPUTING = threading.Lock()
"""Held while a model computes: the engine's threads serve one caller at a time, and LangChain asks from several."""


class _Settings(BaseModel):
    """What all of them take."""

    model: Any = Field(description="A folder, GGUF file, run, alias or hub:owner/name; or a model that is open.")
    _opened: Any = PrivateAttr(None)

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: Any) -> Any:
        value = str(value) if isinstance(value, Path) else value
        check_type(value, (str, TextMethods), "model", "give a folder, a file, a name, or what lmworks.load opened")
        return value

    @property
    def model_name(self) -> str:
        """The source of the model."""
        return self.model if isinstance(self.model, str) else str(self.model.source)


class _Writer(_Settings):
    """What models that write take: LangChain's standard parameters, and how tokens are chosen."""

    temperature: float = Field(0.0, description="0: the likeliest token.")
    max_tokens: int = Field(256, description="Stop after this many new tokens.")
    stop: list[str] | None = Field(None, description="Stop before any of these strings.")
    timeout: float | None = Field(None, description="Seconds after which an answer ends with a TimeoutError.")
    max_retries: int | None = Field(None, description="LangChain's; without effect: there is no connection to fail.")
    api_key: SecretStr | None = Field(None, description="LangChain's; without effect: nobody is asked.")
    streaming: bool = Field(False, description="invoke() streams too, to callbacks.")
    sampling: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of SamplingSettings: top_k, top_p, seed ..."
    )

    @property
    def language_model(self) -> TextMethods:
        """The model, opened when it is first asked for.

        Raises:
            InputError: there is no such model.
        """
        with _COMPUTING:
            if self._opened is None:
                self._opened = _open_writer(self.model) if isinstance(self.model, str) else self.model
            return self._opened

    def _sampling(self, stop: list[str] | None, further: dict[str, Any]) -> SamplingSettings:
        """The settings of one call.

        Raises:
            InputError: there is no such setting.
        """
        values = {"temperature": self.temperature, "max_tokens": self.max_tokens, **self.sampling, **further}
        values["stop"] = stop if stop is not None else self.stop or []
        return build(SamplingSettings, values, "the call")

    def _pieces(self, begin: Callable[[], TextStream]) -> Iterator[tuple[str, Reply | None]]:
        """The pieces of an answer, the last of them empty and with the whole reply.

        Raises:
            TimeoutError: it took longer than ``timeout``.
        """
        end = None if self.timeout is None else time.monotonic() + self.timeout
        with _COMPUTING:
            stream = begin()
        while True:
            with _COMPUTING:
                piece = next(stream, None)
            if piece is None:
                break
            yield piece, None
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"the answer took longer than {self.timeout:g} s")
        yield "", stream.reply


class ChatLmworks(_Writer, BaseChatModel):
    """A chat model: ``ChatLmworks(model="runs/faq").invoke("What is 3 plus 3?")``.

    Messages go through the model's chat template, in the format of the run that trained it. Calls of tools and
    structured outputs are kept to their schemas by a grammar. Messages with images raise an InputError.
    """

    model_config = ConfigDict(extra="forbid")

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A chat model that may call tools, and that only with arguments that their schemas allow.

        Args:
            tools: functions, LangChain's tools, classes of pydantic, or OpenAI's form.
            tool_choice: "auto" (default), "none", "any" or "required", or the name of the tool that must be called.
            parallel_tool_calls: whether an answer may have several calls. Small models repeat theirs up to the limit.
            strict: LangChain's; without effect, as schemas are always kept to.
            **kwargs: further settings of each call.
        """
        choice = "required" if tool_choice in (True, "any") else tool_choice or "auto"
        if isinstance(choice, str) and choice not in ("auto", "none", "required"):
            choice = {"type": "function", "function": {"name": choice}}
        listed = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=listed, tool_choice=choice, parallel_tool_calls=parallel_tool_calls, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "function_calling",
        strict: bool | None = None,
    ) -> Runnable[LanguageModelInput, Any]:
        """A chat model whose answers are objects of a schema.

        Args:
            schema: a class of pydantic, a TypedDict, or a JSON schema with a title.
            include_raw: give a dict of ``raw`` (the message), ``parsed`` and ``parsing_error``.
            method: "function_calling": the model is told of the schema, as of a function that it must call.
                "json_schema": its answer is JSON of the schema, of which your messages tell it. "json_mode": any JSON
                object.
            strict: LangChain's; without effect, as schemas are always kept to.

        Raises:
            InputError: there is no such method.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw)
        formats = {
            "json_schema": {"type": "json_schema", "json_schema": {"schema": convert_to_json_schema(schema)}},
            "json_mode": {"type": "json_object"},
        }
        if method not in formats:
            hint = f"write function_calling, {' or '.join(formats)}"
            raise InputError(f"there is no method {method!r}", "method", hint)
        model = self.bind(
            response_format=formats[method],
            ls_structured_output_format={"kwargs": {"method": method}, "schema": schema},
        )
        is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
        if not include_raw:
            return model | parser
        return RunnableParallel(raw=model) | RunnableLambda(lambda answer: _with_parsed(answer, parser))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = _whole(self._answer(messages, stop, kwargs))
        message = AIMessage(
            content=reply.text,
            tool_calls=_calls(reply),
            usage_metadata=_usage(reply),
            response_metadata=self._metadata(reply),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece, reply in self._answer(messages, stop, kwargs):
            message = AIMessageChunk(content=piece)
            if reply is not None:
                message = AIMessageChunk(
                    content="",
                    tool_call_chunks=_call_chunks(reply),
                    usage_metadata=_usage(reply),
                    response_metadata=self._metadata(reply),
                    chunk_position="last",
                )
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk

    def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, further: dict[str, Any]
    ) -> Iterator[tuple[str, Reply | None]]:
        turns = convert_to_openai_messages(messages, text_format="block")  # as text, parts would be joined by lines
        form = {name: further.pop(name) for name in FORM_SETTINGS if name in further}
        if "response_format" in form:
            form["grammar"] = Grammar.response_format(form.pop("response_format"))
        settings = self._sampling(stop, further)
        model = self.language_model
        return self._pieces(lambda: model.chat(turns, stream=True, **form, **settings.model_dump()))

    def _metadata(self, reply: Reply) -> dict[str, Any]:
        return {"model_name": self.model_name, "stop_reason": reply.stop_reason}

    @property
    def _llm_type(self) -> str:
        return "lmworks-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return _identity(self)


class LmworksLLM(_Writer, BaseLLM):
    """A model that continues texts: ``LmworksLLM(model="smollm2-135m-instruct").invoke("The sky is")``."""

    model_config = ConfigDict(extra="forbid")

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        model, settings = self.language_model, self._sampling(stop, kwargs)
        if self.timeout is not None:  # one after the other, each within its time
            replies = [_whole(self._continue(model, prompt, settings)) for prompt in prompts]
        else:
            with _COMPUTING:
                replies = model.complete(prompts, settings)
        generations = [[Generation(text=reply.text, generation_info=_info(reply))] for reply in replies]
        return LLMResult(generations=list(generations), llm_output={"model_name": self.model_name})

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        model, settings = self.language_model, self._sampling(stop, kwargs)
        for piece, reply in self._continue(model, prompt, settings):
            chunk = GenerationChunk(text=piece, generation_info=None if reply is None else _info(reply))
            if run_manager is not None:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk

    def _continue(
        self, model: TextMethods, prompt: str, settings: SamplingSettings
    ) -> Iterator[tuple[str, Reply | None]]:
        return self._pieces(lambda: model.generate(prompt, stream=True, **settings.model_dump()))

    @property
    def _llm_type(self) -> str:
        return "lmworks"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return _identity(self)


class LmworksEmbeddings(_Settings, Embeddings):
    """Vectors of texts: ``LmworksEmbeddings(model="minilm-l6").embed_query("a text")``.

    Without ``pooling`` and ``normalize`` a sentence encoder's own, of other models the mean, normalized.
    """

    model_config = ConfigDict(extra="forbid")

    pooling: str | None = Field(None, description="How a text's states become a vector: mean, cls, max ...")
    normalize: bool | None = Field(None, description="Whether vectors have length 1.")
    max_tokens: int | None = Field(None, description="Longer texts are cut with a warning; default: the model's own.")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of each text."""
        return self._vectors(texts) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text."""
        return self._vectors([text])[0]

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        if self.pooling == "none":
            raise InputError("a text has one vector here, and pooling none gives one for each token", "pooling", "mean")
        with _COMPUTING:
            if self._opened is None:
                self._opened = _open_encoder(self.model) if isinstance(self.model, str) else self.model
            return self._opened.embed(texts, self.pooling, self.normalize, self.max_tokens).tolist()


def _open_writer(source: str) -> TextMethods:
    """A model that writes, computed by the native engine where that computes it."""
    cached = engine_cache.open_cached(source)
    if cached is not None:
        return cached
    model = load(source)
    prepare = getattr(model, "prepare", None)
    return model if prepare is None else prepare("float32")


def _open_encoder(source: str) -> Any:
    """A model that gives vectors, an encoder computed by the native engine where that computes it."""
    cached = engine_cache.open_cached_encoder(source)
    if cached is not None:
        return cached
    model = load(source)
    return model.prepare() if getattr(model, "architecture", "") == "encoder" else model


def _whole(pieces: Iterator[tuple[str, Reply | None]]) -> Reply:
    """The reply at the end of the pieces of an answer."""
    *_, (_, reply) = pieces
    assert reply is not None
    return reply


def _calls(reply: Reply) -> list[ToolCall]:
    """The calls of an answer; their arguments are whole, as the grammar ends them within the most tokens."""
    return [parse_tool_call(call, return_id=True) for call in reply.tool_calls or ()]


def _call_chunks(reply: Reply) -> list[ToolCallChunk]:
    """The calls of an answer, whole, as the last chunk of a stream has them."""
    return [
        tool_call_chunk(name=call["function"]["name"], args=call["function"]["arguments"], id=call["id"], index=number)
        for number, call in enumerate(reply.tool_calls or ())
    ]


def _with_parsed(answer: dict[str, Any], parser: JsonOutputParser) -> dict[str, Any]:
    """A message under ``raw``, and what it says as an object, or why it is none."""
    try:
        return {**answer, "parsed": parser.invoke(answer["raw"]), "parsing_error": None}
    except OutputParserException as error:
        return {**answer, "parsed": None, "parsing_error": error}


def _usage(reply: Reply) -> UsageMetadata:
    asked, written = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return UsageMetadata(input_tokens=asked, output_tokens=written, total_tokens=asked + written)


def _info(reply: Reply) -> dict[str, Any]:
    return {"stop_reason": reply.stop_reason, "usage": _usage(reply)}


def _identity(writer: _Writer) -> dict[str, Any]:
    """What decides the answers, for LangChain's caches."""
    settings = {"temperature": writer.temperature, "max_tokens": writer.max_tokens, "stop": writer.stop}
    return {"model": writer.model_name, **settings, **writer.sampling}
