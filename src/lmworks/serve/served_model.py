"""A model as the server offers it: its name, how requests become ids, and the queues of what it computes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmworks.base.errors import InputError
from lmworks.baselines.tfidf import TextClassifier
from lmworks.data.prompts import Prompt
from lmworks.generate.tool_calls import Tools
from lmworks.language_model.inputs import conversation_of, prompts_of
from lmworks.language_model.native_model import NativeModel
from lmworks.language_model.text_methods import TextMethods
from lmworks.model.head_requests import SEQUENCE
from lmworks.serve.label_queue import LabelQueue
from lmworks.serve.native_backend import NativeBackend
from lmworks.serve.prompt_parts import FEWEST_TERNARY, FEWEST_TILED
from lmworks.serve.request import Choice, GenerationRequest
from lmworks.serve.scheduler import Observer, Scheduler
from lmworks.serve.settings import ServeSettings
from lmworks.serve.stepper_backend import StepperBackend
from lmworks.serve.text_queue import TextQueue
from lmworks.serve.token_choice import ChoiceSettings
from lmworks.text import chat
from lmworks.text.messages import conversation
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.serve.embedding_queue import EmbeddingQueue


Servable = TextMethods | TextClassifier


@dataclass
class ServedModel:
    """A model with its queues.

    Attributes:
        name: as requests name it.
        model: the model.
        scheduler: of what it writes; None where it writes no texts.
        embeddings: of vectors of texts; None where it gives none.
        labels: of labels or values of texts; None where it gives none.
        created: seconds since 1970, when it was opened.
        adapter: of the scheduler's backend, with which its answers are computed; None: none.
        parent: of an adapter that was loaded beside a model: the name of that.
        forget: of such an adapter: gives its memory back.
        notes: what a person should know of it.
    """

    name: str
    model: Servable
    scheduler: Scheduler | None = None
    embeddings: EmbeddingQueue | None = None
    labels: LabelQueue | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    adapter: str | None = None
    parent: str | None = None
    forget: Callable[[], None] = lambda: None
    notes: list[str] = field(default_factory=list)

    @property
    def queues(self) -> list[Scheduler | TextQueue]:
        """Those that it has."""
        return [queue for queue in (self.scheduler, self.embeddings, self.labels) if queue is not None]

    @property
    def text_model(self) -> TextMethods:
        """The model, which reads and writes texts by a tokenizer.

        Raises:
            InputError: it is a classifier by counts of words, which has none.
        """
        if isinstance(self.model, TextClassifier):
            raise InputError("counts words, and has no tokens", self.name, "ask POST /v1/classify")
        return self.model

    @property
    def context(self) -> int | None:
        """Tokens of a text that it reads at a time; None: any number."""
        return None if isinstance(self.model, TextClassifier) else self.model.context

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids; raises as :attr:`text_model`."""
        return self.text_model.tokenizer

    def conversation(self, messages: Sequence[Mapping[str, Any]], tools: Tools | None = None) -> Prompt:
        """Messages as the model reads them, in the format of the run that trained it, and the tools that it may call.

        Raises:
            InputError: a message is malformed, has a key that nothing reads, or the chat template refuses it.
        """
        unused: dict[str, None] = {}
        turns = conversation(list(messages), unused)
        if tools is not None:
            turns = tools.messages(turns)
        unwritten = chat.unwritten_keys(self.tokenizer, turns) - {
            "tool_call_id"
        }  # results come in the order of the calls
        unused |= dict.fromkeys(sorted(unwritten))
        if unused:
            raise InputError(f"the model does not read {next(iter(unused))!r} of a message", "", "leave it out")
        form = self.text_model.input_format
        templated = self.tokenizer.chat_template is not None and (form is None or form.template != "off")
        if len(turns) > 1 and not templated and form is not None and form.has_prompt:
            fault = f"the model reads one message, not {len(turns)}: it was trained without a chat template"
            raise InputError(fault, "", "give the last message alone")
        told = None if tools is None else tools.of_template
        prompt = conversation_of(turns, self.tokenizer, form, self.text_model.few_shot, told)
        if prompt.choices:
            raise InputError(
                "the model chooses labels and writes no answers", "", f"lmworks predict {self.text_model.source}"
            )
        return prompt

    def text(self, text: str) -> list[int]:
        """A text that is to be continued, as it is; what an encoder-decoder answers, in the format of its run."""
        model = self.text_model
        form = model.input_format if model.architecture == "encoder-decoder" else None
        return prompts_of([text], self.tokenizer, form)[0].ids

    def check_ids(self, ids: Sequence[int]) -> list[int]:
        """Ids that a client gave.

        Raises:
            InputError: the model has no such token.
        """
        size = self.tokenizer.highest_id + 1
        if wrong := next((token for token in ids if not 0 <= token < size), None):
            raise InputError(f"there is no token {wrong}", "", f"ids are 0 to {size - 1}")
        return self.tokenizer.check_rows(list(ids))

    def room(self, prompt: Sequence[int]) -> int | None:
        """New tokens for which there is room after a prompt; None: any number; below 1: the prompt is too long."""
        backend = self._writer.backend
        if backend.context is None:
            return None
        if len(prompt) > backend.context:
            return 0
        return backend.context - len(backend.opening(prompt))

    def add_choice(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],
        limit: int,
        settings: ChoiceSettings,
        seed: int | Sequence[int] | None,
        scores_prompt: bool = False,
    ) -> None:
        """Add an answer to a request.

        Args:
            request: the request.
            prompt: ids for which there is room.
            limit: new tokens at most.
            settings: how its tokens are chosen.
            seed: what numbers are drawn from; None: others each time.
            scores_prompt: tell the scores of the prompt's tokens too.
        """
        opening, room = self._writer.backend.opening(prompt), self.room(prompt)
        limit = limit if room is None else min(limit, room)
        generator = np.random.default_rng(secrets.randbits(63) if seed is None else seed)
        rules = self.text_model.rules
        tokenizer = self.tokenizer
        Choice(request, prompt, opening, limit, settings, tokenizer, rules, generator, scores_prompt, self.adapter)

    @property
    def _writer(self) -> Scheduler:
        assert self.scheduler is not None  # whoever asks has checked it
        return self.scheduler


def serve_model(name: str, model: Servable, settings: ServeSettings, observer: Observer) -> ServedModel:
    """A model with the queues of all that it can do.

    Args:
        name: as requests name it.
        model: opened for generation.
        settings: how much it takes on.
        observer: told what its scheduler does.

    Raises:
        InputError: it has no tokenizer.
    """
    if isinstance(model, TextClassifier):
        return ServedModel(name, model, labels=LabelQueue(model, model.count, settings.queue_size, takes_pairs=False))
    if not model.has_tokenizer:
        raise InputError("the model came without a tokenizer", model.source, "put its tokenizer.json beside it")
    model = _without_network(model)
    served = ServedModel(name, model)
    if isinstance(model, NativeModel):
        served.adapter = model.active_adapter
        if model.labels:
            served.labels = _label_queue(model, settings)
            return served
        served.scheduler = Scheduler(_native_backend(model, settings), settings.queue_size, observer)
        return served
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.ngram import NgramLanguageModel

    if isinstance(model, LanguageModel) and not isinstance(model, NgramLanguageModel):
        from lmworks.serve.embedding_queue import EmbeddingQueue

        served.embeddings = EmbeddingQueue(model, settings.queue_size)
        if _labels_in_words(model) or _has_head(model):
            served.labels = _label_queue(model, settings)
        if served.labels is not None or not _writes(model):
            return served
    start = model.rules.decoder_start_id if model.architecture == "encoder-decoder" else None
    served.scheduler = Scheduler(StepperBackend(model.stepper(), start), settings.queue_size, observer)
    return served


def _label_queue(model: LanguageModel | NativeModel, settings: ServeSettings) -> LabelQueue:
    tokenizer = model.tokenizer
    return LabelQueue(model, lambda texts: sum(map(len, tokenizer.encode_many(texts))), settings.queue_size)


def _native_backend(model: NativeModel, settings: ServeSettings) -> NativeBackend:
    size, context, most = model.config.vocab_size, model.context, settings.parallel
    fewest = FEWEST_TERNARY if any(name.startswith("TQ") for name in model.weight_formats) else FEWEST_TILED
    return NativeBackend(model.engine, size, context, most, settings.cache_bytes, fewest, model.kv_cache)


def _labels_in_words(model: LanguageModel) -> bool:
    """Whether a run taught a model to write labels, of which it chooses the likeliest."""
    return model.input_format is not None and bool(model.input_format.labels)


def _has_head(model: LanguageModel) -> bool:
    """Whether a head labels texts, or gives each a value."""
    head = model.config.head(SEQUENCE)
    return head is not None and (head.problem != "regression" or head.size == 1)


def _writes(model: TextMethods) -> bool:
    """Whether a model with a network writes texts."""
    try:
        model.check_writes()
    except InputError:
        return False
    return True


def _without_network(model: TextMethods) -> TextMethods:
    """A model that the native engine computes, without the network of PyTorch: as the cache would open it."""
    weights = getattr(model, "engine_weights", None)
    if weights is None or isinstance(model, NativeModel):
        return model
    from lmworks.adapt.adapters import fingerprint, weight_sample
    from lmworks.language_model.model import LanguageModel

    assert isinstance(model, LanguageModel)
    return NativeModel(
        engine=weights.engine,
        config=model.config,
        own_tokenizer=model.own_tokenizer,
        source=model.source,
        weight_formats=model.weight_formats,
        generation=model.generation,
        notes=model.notes,
        input_format=model.input_format,
        few_shot=model.few_shot,
        kv_cache=model.kv_cache,
        family=model.family.name,
        fingerprint=fingerprint(model.network),
        weight_sample=weight_sample(model.network),
    )


def name_of(source: str) -> str:
    """What requests call a model: an alias as it is, ``owner/name`` of the hub, the last part of a path."""
    if source.startswith(("hub:", "pypi:")):
        return source.partition(":")[2]
    path = Path(source)
    return path.resolve().name if path.exists() else source
