"""The model of an audit: what can be asked of it, whichever kind it is.

A decoder gives likelihoods and texts by the native engine where that computes it; a masked encoder gives
pseudo-likelihoods by PyTorch; whatever classifies texts gives labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmworks.audits.settings import AuditSettings
from lmworks.base.errors import InputError
from lmworks.data.prompts import Prompt
from lmworks.evaluate import progress
from lmworks.evaluate.prediction import Prediction
from lmworks.evaluate.text_windows import Ids
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.language_model.inputs import conversation_of, prompts_of
from lmworks.language_model.text_methods import TextMethods
from lmworks.model.head_requests import SEQUENCE
from lmworks.run import load as any_model
from lmworks.run.native_opening import open_native
from lmworks.text.messages import Message

AT_ONCE = 8  # prompts that are answered at a time
Say = Callable[[str], None]
NO_LIKELIHOOD = "the model gives no likelihood of a text"
NO_TEXTS = "the model writes no texts"
NO_LABELS = "the model gives texts no labels"


@dataclass
class Subject:
    """A model that is audited.

    Attributes:
        name: what the person named.
        model: the model, opened.
    """

    name: str
    model: Any
    _outputs: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def _architecture(self) -> str:
        return str(getattr(self.model, "architecture", ""))

    @property
    def signature(self) -> str:
        """What computes, and the formats of the weights."""
        return str(getattr(self.model, "signature", "counts of words"))

    @property
    def is_masked(self) -> bool:
        """Whether it is an encoder that predicts hidden words."""
        return self._architecture == "encoder" and bool(self.model.config.language_head)

    @property
    def is_decoder(self) -> bool:
        """Whether it gives the likelihood of texts, token by token."""
        return self._architecture == "decoder" and isinstance(self.model, TextMethods)

    @property
    def is_counted(self) -> bool:
        """Whether it is an n-gram model, which has no network and no config."""
        return hasattr(self.model, "ngram")

    @property
    def gives_choices(self) -> bool:
        """Whether it gives the likelihood of a continuation after a prompt; n-gram models do not here."""
        return self.is_decoder and not self.is_counted

    @cached_property
    def labels(self) -> list[str]:
        """The labels that it gives texts; empty without any."""
        model: Any = self.model
        if self._architecture == "encoder-decoder" or not hasattr(model, "predict"):
            return []
        if isinstance(model, TextMethods):
            in_words = model.input_format is not None and model.input_format.kind == "label"
            if not in_words and (self.is_counted or self.model.config.head(SEQUENCE) is None):
                return []
        return list(model.labels)  # empty of a head that gives values

    @property
    def writes(self) -> bool:
        """Whether it answers in texts, and not in labels."""
        return self._architecture in ("decoder", "encoder-decoder") and not self.labels

    def text_nats(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) nats and (N,) tokens of texts: -log p by a decoder, the pseudo-likelihood by a masked encoder.

        Raises:
            InputError: the model gives none.
        """
        if self.is_decoder:
            scores = self.model.score(list(texts))
        elif self.is_masked:
            from lmworks.evaluate.pseudo_likelihood import pseudo_scores

            scores = pseudo_scores(self.model.network, self.model.tokenizer, list(texts))
        else:
            raise InputError(NO_LIKELIHOOD, self.name, "take a decoder, or an encoder with its language head")
        return np.array([score.nats for score in scores]), np.array([float(score.tokens) for score in scores])

    def choice_nats(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[np.ndarray]:
        """For each prompt (C,) nats of its choices, by a decoder; ids are cut from the left where they are too many."""
        context = int(self.model.context)
        cut = [
            list(ids)[max(0, len(ids) + max(map(len, listed)) - context) :]
            for ids, listed in zip(prompts, choices, strict=True)
        ]
        return [-likelihoods for likelihoods in self.model.choice_likelihoods(cut, choices)]

    def predict(self, texts: Sequence[Any]) -> list[Prediction]:
        """The label of each text, with the probabilities of all."""
        return list(self.model.predict(list(texts)))

    def answers(
        self, conversations: Sequence[Sequence[Message]], settings: SamplingSettings, raw: bool = False
    ) -> list[str]:
        """What the model writes to each conversation: its answer, or where it knows no chat the continuation.

        Args:
            conversations: messages each, the last of which is to be answered.
            settings: how tokens are chosen.
            raw: continue the last message as it is.

        Raises:
            InputError: one is longer than the context, or refused by the chat template.
        """
        asked = self.prompts(conversations, raw)
        stops = settings.model_copy(update={"stop": [*settings.stop, *(asked[0].stop if asked else ())]})
        return self.continuations([prompt.ids for prompt in asked], stops)

    def continuations(self, prompts: Sequence[Ids], settings: SamplingSettings) -> list[str]:
        """What the model writes after ids of prompts; what was asked before is not asked again.

        Raises:
            InputError: a prompt is longer than the context.
        """
        keys = [f"{list(ids)} {settings.model_dump_json(exclude_defaults=True)}" for ids in prompts]
        new = {key: ids for key, ids in zip(keys, prompts, strict=True) if key not in self._outputs}
        for begin in range(0, len(new), AT_ONCE):
            part, model = list(new.items())[begin : begin + AT_ONCE], self.model
            replies = complete(model.stepper(), model.tokenizer, [ids for _, ids in part], settings, model.rules)
            self._outputs |= {key: reply.text for (key, _), reply in zip(part, replies, strict=True)}
            progress.report(len(part))
        return [self._outputs[key] for key in keys]

    def samples(
        self, conversations: Sequence[Sequence[Message]], settings: AuditSettings, raw: bool = False
    ) -> list[list[str]]:
        """Several outputs to each conversation, each drawn with a seed of its own; arguments as of :meth:`answers`."""
        drawn = []
        for number in range(settings.samples):
            sampling = SamplingSettings(
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                seed=settings.seed + number,
            )
            drawn.append(self.answers(conversations, sampling, raw))
        return [list(outputs) for outputs in zip(*drawn, strict=True)]

    def prompts(self, conversations: Sequence[Sequence[Message]], raw: bool = False) -> list[Prompt]:
        """Conversations as the model reads them; arguments as of :meth:`answers`."""
        model, form = self.model, self.model.input_format
        knows_chat = model.tokenizer.chat_template is not None or (form is not None and form.has_prompt)
        if raw or not knows_chat:
            texts = [str(turns[-1]["content"]) for turns in conversations]
            return prompts_of(texts, model.tokenizer, None)
        listed = [[dict(turn) for turn in turns] for turns in conversations]
        return [conversation_of(turns, model.tokenizer, form, model.few_shot) for turns in listed]


def open_subject(source: str | Path, say: Say) -> Subject:
    """The model of a source, for an audit.

    Args:
        source: of any model.
        say: gets what opening has to say.

    Raises:
        InputError: there is no such model, or it is damaged.
    """
    if any_model.classifier_folder(source) is not None:
        return Subject(str(source), any_model.load(source))

    def notes(lines: Iterable[str]) -> None:
        for line in lines:
            say(line)

    return Subject(str(source), open_native(str(source), None, None, notes))
