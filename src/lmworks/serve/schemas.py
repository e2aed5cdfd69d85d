"""What requests may say: the fields of OpenAI's API that are supported, and a few more, checked by pydantic.

A field that is not here is refused by its name. Values are taken as JSON has them: a text is no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lmworks.base.errors import InputError
from lmworks.generate.sampling import SamplingSettings
from lmworks.serve.token_choice import ChoiceSettings

MOST_CHOICES = 128
"""Answers of one request."""
MOST_TEXTS = 2048
"""Texts of one request for vectors or labels."""
MOST_TOOLS = 128
"""Functions of one request."""
MOST_TOP = 20
"""Likeliest tokens that are told at each place."""
SMALLEST_TOP_P = 1e-6
"""Stands for 0, which means the likeliest token alone."""
DEFAULT_COMPLETION_TOKENS = 16
"""Of /v1/completions, as OpenAI's API has it."""

Stop = Annotated[str, StringConstraints(min_length=1)]
Ids = list[Annotated[int, Field(ge=0)]]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class Body(BaseModel):
    """A request's body.

    Attributes:
        unsupported: fields of OpenAI's API that are refused, which a client may still send with null.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    unsupported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        """Fields that are null count as not given."""
        if not isinstance(values, dict):
            return values
        known = {*cls.model_fields, *cls.unsupported}
        return {name: value for name, value in values.items() if value is not None or name not in known}


class StreamOptions(Body):
    """``stream_options``."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class SamplingBody(Body):
    """How the tokens of answers are chosen, and whether they are streamed."""

    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] = Field(
        default_factory=list, description="a text or a list of at most 16 texts, none of them empty"
    )
    stream: bool = False
    seed: int | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    user: str | None = Field(None, max_length=256)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)

    @property
    def copies(self) -> int:
        """Answers to each prompt."""
        return 1

    def settings(self, vocab_size: int, top: int | None, stop: Sequence[str] = ()) -> ChoiceSettings:
        """How the tokens of the answers are chosen.

        Args:
            vocab_size: V.
            top: how many of the likeliest tokens are told; None: no scores at all.
            stop: further texts at which an answer ends.

        Raises:
            InputError: ``logit_bias`` names no token.
        """
        sampling = SamplingSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=max(self.top_p, SMALLEST_TOP_P),
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            stop=[*([self.stop] if isinstance(self.stop, str) else self.stop), *stop],
        )
        biases = _biases(self.logit_bias, vocab_size)
        return ChoiceSettings(sampling, self.presence_penalty, self.frequency_penalty, biases, top)

    @property
    def seed_number(self) -> int | None:
        """The seed as generators take it: 0 to 2^63 - 1."""
        return None if self.seed is None else self.seed % 2**63


class GenerationBody(SamplingBody):
    """What chat and completions have in common."""

    max_tokens: int | None = Field(None, ge=0)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream: true")
        return self

    @property
    def copies(self) -> int:
        """Answers to each prompt."""
        return self.n

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


def _biases(biases: dict[str, float], vocab_size: int) -> dict[int, float]:
    for token in biases:
        if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocab_size):
            raise InputError(
                f"there is no token {token[:40]!r}", "", f"ids are 0 to {vocab_size - 1}, written as texts"
            )
    return {int(token): bias for token, bias in biases.items()}


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    unsupported: ClassVar[frozenset[str]] = frozenset(
        [
            "audio",
            "function_call",
            "functions",
            "metadata",
            "modalities",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_retention",
            "reasoning_effort",
            "safety_identifier",
            "service_tier",
            "store",
            "verbosity",
            "web_search_options",
        ]
    )
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=MOST_TOOLS)
    tool_choice: str | dict[str, Any] | None = Field(
        None, description='"auto", "none", "required" or {"type": "function", "function": {"name": "..."}}'
    )
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens say the same: give one of them")
        if self.limit == 0:
            raise ValueError(f"{self.limit_field} must be at least 1")
        return self

    @property
    def limit_field(self) -> str:
        """The field that says how many new tokens there may be."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def limit(self) -> int | None:
        """New tokens at most; None: as many as there is room for."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens are told at each place; None: no scores."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"best_of", "suffix"})
    max_tokens: int | None = Field(DEFAULT_COMPLETION_TOKENS, ge=0)
    prompt: str | Ids | list[str] | list[Ids] = Field(description="a text, a list of ids, or a list of either")
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens must be at least 1 without echo: true")
        if not self.prompt:
            raise ValueError("prompt is empty: give at least one token to continue from")
        if len(self.prompts) * self.n > MOST_CHOICES:
            raise ValueError(f"prompt: {len(self.prompts)} prompts with n = {self.n} are more than {MOST_CHOICES}")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, each a text or ids."""
        return as_list(self.prompt)


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    unsupported: ClassVar[frozenset[str]] = frozenset({"dimensions"})
    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description=f"a text or a list of at most {MOST_TEXTS} texts"
    )
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(None, max_length=256)


class ClassifyBody(Body):
    """POST /v1/classify."""

    model: str
    input: str | Annotated[list[str | Pair], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description=f"a text or a list of at most {MOST_TEXTS} texts, or pairs of texts"
    )
    user: str | None = Field(None, max_length=256)

    @property
    def texts(self) -> list[list[str]]:
        """The one or two texts of each input."""
        return [[entry] if isinstance(entry, str) else entry for entry in as_list(self.input)]


class Document(Body):
    """A document of a reranking."""

    text: str


class RerankBody(Body):
    """POST /v1/rerank."""

    model: str
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description=f"a list of at most {MOST_TEXTS} texts"
    )
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = True
    user: str | None = Field(None, max_length=256)

    @property
    def texts(self) -> list[str]:
        """The texts of the documents."""
        return [entry if isinstance(entry, str) else entry.text for entry in self.documents]


class TokenizeBody(Body):
    """POST /tokenize: a text, or a conversation with the opening of an answer."""

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt, or messages")
        return self


class LoadAdapterBody(Body):
    """POST /v1/load_lora_adapter, as vLLM has it."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str | None = None
    base_model_name: str | None = None


class UnloadAdapterBody(Body):
    """POST /v1/unload_lora_adapter, as vLLM has it."""

    lora_name: str


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str
    tokens: Ids


def as_list(prompt: str | Sequence[Any]) -> list[Any]:
    """A prompt, or several, as a list; a list of ids is one prompt."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)
