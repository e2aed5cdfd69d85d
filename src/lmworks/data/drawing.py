"""An objective: the fixed part of its examples, and what is drawn anew each time an example is seen.

Ties the settings of an objective to a tokenizer and to what a model is; refuses what does not go together. Imports
no torch and knows no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data import masked, objectives, sequences, spans
from lmworks.data.batch import NEXT_SENTENCE, Example
from lmworks.data.documents import (
    Document,
    Frame,
    Window,
    documents,
    end_id,
    frame,
    need,
    role_id,
    special_ids,
    windows,
)
from lmworks.data.objective_settings import ObjectiveSettings
from lmworks.data.objectives import Examples, Report
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer


class Model(Protocol):
    """What an objective must know of a model; ModelConfig says it."""

    @property
    def architecture(self) -> str:
        """decoder, encoder or encoder-decoder."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids that it has."""
        ...

    @property
    def type_vocab_size(self) -> int:
        """Kinds of tokens that it tells apart."""
        ...

    def head(self, name: str) -> object | None:
        """Its classification head of this name, where it has one."""
        ...

    @property
    def language_head(self) -> bool:
        """Whether it can say a token."""
        ...


class Objective(ABC):
    """What a model learns from texts or rows. `draw` is deterministic given its generator."""

    def __init__(self, settings: ObjectiveSettings, tokenizer: Tokenizer, model: Model) -> None:
        self.settings, self.tokenizer, self.model = settings, tokenizer, model

    @abstractmethod
    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """The fixed part of all examples, and what was counted; figures of what is drawn are those of one draw.

        Args:
            table: the rows.
            settings: how they are shown to the model.
            context: the longest example in tokens; of source and decoder each, where there are two stacks.

        Raises:
            InputError: rows of the wrong kind, nothing to learn in all of them, or a context that is too short.
        """

    def draw(self, example: Example, rng: np.random.Generator) -> Example:
        """An example as the model is to see it this time."""
        return self._draw(example, rng, self.settings.windows == "random")

    def measure(self, example: Example, rng: np.random.Generator) -> Example:
        """The same for an evaluation: stretches of texts stay where they are, so that every token counts once."""
        return self._draw(example, rng, False)

    @abstractmethod
    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example: ...


def make(settings: ObjectiveSettings, tokenizer: Tokenizer, config: Model) -> Objective:
    """The objective that settings name, for a tokenizer and a model (a ModelConfig).

    Raises:
        InputError: objective and architecture do not fit, the tokenizer lacks a token or has more ids than the model.
    """
    if config.architecture != settings.architecture:
        fit = [name for name in KINDS if ObjectiveSettings(name=name).architecture == config.architecture]
        fault = f"objective {settings.name} needs a model that is: {settings.architecture}; this one is: "
        hint = f"for this model take {' or '.join(fit)}; or take another model"
        raise InputError(fault + config.architecture, "objective.name", hint)
    if not config.language_head:
        raise InputError("this model has no head that says tokens", "language_head", "set language_head: true")
    if tokenizer.vocab_size > config.vocab_size:
        fault = f"the tokenizer has {tokenizer.vocab_size} ids and the model {config.vocab_size}"
        raise InputError(fault, "vocab_size", f"set vocab_size to {tokenizer.vocab_size}, or train a smaller tokenizer")
    return KINDS[settings.name](settings, tokenizer, config)


def decoder_start(settings: ObjectiveSettings, tokenizer: Tokenizer) -> int:
    """The id that a decoder beside an encoder reads first; generation must begin with it too.

    Raises:
        InputError: the tokenizer has no such token.
    """
    found = role_id(tokenizer, settings.start_role)
    if found is None:
        has = [role for role in ("pad", "bos", "eos") if role_id(tokenizer, role) is not None]
        hint = f"take another one (decoder_start {' or '.join(has)}), or train" if has else "train"
        fault = f"the tokenizer has no {settings.start_role} token for a decoder to begin with"
        raise InputError(fault, "objective.decoder_start", f"{hint} a tokenizer of style t5 or bart")
    return found


# What objectives of texts share


def _texts(table: Table, tokenizer: Tokenizer, report: Report, words: bool = False) -> list[Document]:
    """The texts of a table that have tokens; empty ones are counted."""
    if table.kind not in ("text", "labels"):
        fault = f"rows of kind {table.kind} are no texts"
        hint = "make texts of their columns: --kind text --text '{COLUMN} {COLUMN}'"
        raise InputError(fault, table.name, hint)
    found = []
    for document in documents(table.rows, tokenizer, words):
        if len(document):
            found.append(document)
        else:
            report.no_trainable += 1
            report.first_no_trainable = report.first_no_trainable or document.place
    if report.no_trainable:
        report.notes.append(f"{report.no_trainable} texts without a token are left out")
    unknown = sum(int((document.ids == tokenizer.unk_id).sum()) for document in found)
    if unknown and tokenizer.unk_id is not None:
        total = sum(len(document) for document in found)
        report.notes.append(f"{unknown:,} of {total:,} tokens are unknown to the tokenizer")
    return found


def _report(table: Table, how: str) -> Report:
    return Report(table.kind, how, rows=len(table), skipped=len(table.skipped), notes=list(table.notes))


def _cut(found: list[Document], size: int, report: Report) -> list[Window]:
    """All documents in stretches of at most `size` tokens; says where none is long enough."""
    report.chunked = sum(len(document) > size for document in found)
    _note_short(max((len(document) for document in found), default=0), size, report)
    return [window for document in found for window in windows(document, size)]


def _note_short(longest: int, size: int, report: Report) -> None:
    if 0 < longest < size:
        report.notes.append(f"no text fills a context: there is room for {size} tokens, the longest text has {longest}")


def _made(items: list[Example], report: Report, draw: Callable[[Example, np.random.Generator], Example]) -> Examples:
    """Examples with the figures of one draw."""
    rng = np.random.default_rng(0)
    objectives.count([draw(example, rng) for example in items], report)
    return Examples(items, report)


def _room(context: int, taken: int, least: int) -> int:
    """What a context leaves beside the tokens that stand around a text."""
    if context < taken + least:
        fault = f"a context of {context} tokens has no room for a text beside {taken} special tokens"
        raise InputError(fault, "max_tokens", f"give at least {taken + least}")
    return context - taken


# The objectives


class Causal(Objective):
    """Each token from those before it."""

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """As in data/objectives; says where no text fills a context."""
        made = objectives.examples(table, self.tokenizer, settings, context)
        if table.kind == "text":
            if not made.report.chunked:
                _note_short(made.report.longest, objectives.limit_of(settings, context), made.report)
        elif self.settings.windows == "random":
            made.report.notes.append(f"windows random says nothing to rows of kind {table.kind}")
        return made

    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example:
        if not moving or not isinstance(example.origin, Window):
            return example
        return objectives.chunk(example.origin.moved(rng), max(len(self.tokenizer.opening), 1))


class Masked(Objective):
    """Hidden words from all others; beside them, where asked for, whether a second sentence follows the first."""

    def __init__(self, settings: ObjectiveSettings, tokenizer: Tokenizer, model: Model) -> None:
        super().__init__(settings, tokenizer, model)
        mask = need(tokenizer, "mask", "objective masked")
        every = np.array(sorted(tokenizer.core.get_vocab(with_added_tokens=True).values()), dtype=np.int32)
        special = np.zeros(int(every[-1]) + 1, dtype=bool)
        special[special_ids(tokenizer)] = True
        plain = every[~special[every]]
        if not len(plain):
            raise InputError("the tokenizer has special tokens alone", "tokenizer", "train it on a text")
        self.hiding = masked.Hiding(settings.rate, mask, plain, special)
        self.frame = frame(tokenizer)
        if settings.next_sentence and not self.frame.middle:
            fault = "the tokenizer puts nothing between two sentences, and next_sentence needs a separator"
            hint = "train one of BERT's style (lmworks tokenizer train --style bert), or set next_sentence: false"
            raise InputError(fault, "tokenizer", hint)
        if settings.next_sentence and model.head(NEXT_SENTENCE) is None:
            entry = f"{{name: {NEXT_SENTENCE}, kind: pooled, size: 2}}"
            hint = f"set pooler: true and heads: [{entry}] in the model, or next_sentence: false"
            raise InputError(f"this model has no head {NEXT_SENTENCE}", "next_sentence", hint)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Texts in stretches that fill a context, or pairs of sentences."""
        limit = objectives.limit_of(settings, context)
        report = _report(table, "masked, with next sentences" if self.settings.next_sentence else "masked")
        found = _texts(table, self.tokenizer, report, self.settings.whole_words)
        if self.settings.next_sentence:
            items = self._pairs(found, limit, report)
        else:
            cut = _cut(found, _room(limit, len(self.frame), 1), report)
            items = [made for window in cut if (made := masked.text_example(window, self.frame, self.hiding))]
            if len(items) < len(cut):
                report.notes.append(f"{len(cut) - len(items)} stretches of special tokens alone are left out")
        return _made(items, report, self.measure)

    def _pairs(self, found: list[Document], limit: int, report: Report) -> list[Example]:
        room = self._pair_room(limit)
        library = [masked.sentences(document, room // 2) for document in found]
        made = masked.blocks(library, room)
        alone = sum(len(held) < 2 for held in library)
        if found and not made:
            hint = "give texts of several sentences or lines (a txt file: document: file), or next_sentence: false"
            raise InputError("no document has two sentences, so none can follow another", found[0].place, hint)
        if alone:
            report.notes.append(f"{alone} documents of one sentence begin no pair")
        if len(library) == 1:
            report.notes.append("there is one document: sentences that do not follow come from elsewhere in it")
        return [self._typed(masked.pair_example(block, self.frame, self.hiding)) for block in made]

    def _pair_room(self, limit: int) -> int:
        """Tokens that two texts may have together."""
        return _room(limit, len(self.frame) + len(self.frame.middle), 2)

    def _typed(self, example: Example) -> Example:
        return example if self.model.type_vocab_size > 1 else replace(example, types=None)

    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example:
        origin = example.origin
        if isinstance(origin, masked.Pair):
            return self._typed(masked.draw_pair(origin.block, self.frame, self.hiding, rng))
        if moving and isinstance(origin, Window):
            moved = origin.moved(rng)
            example, origin = masked.text_example(moved, self.frame, self.hiding) or example, moved
        assert isinstance(example.origin, Window)
        return self.hiding.hide(example, masked.text_words(example.origin, self.frame), rng)


class Spans(Objective):
    """Hidden spans, one sentinel each, from what stays (T5)."""

    def __init__(self, settings: ObjectiveSettings, tokenizer: Tokenizer, model: Model) -> None:
        super().__init__(settings, tokenizer, model)
        self.sentinels = spans.sentinels(tokenizer)
        spans.check_sentinels(self.sentinels, 1)
        self.start = decoder_start(settings, tokenizer)
        self.end = end_id(tokenizer, "objective spans")

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Texts in stretches whose sources fill a context exactly."""
        limit = objectives.limit_of(settings, context)
        report = _report(table, "spans")
        size = spans.text_length(limit, self.settings.rate, self.settings.mean_span)
        spans.check_sentinels(self.sentinels, spans.noise_counts(size, self.settings.rate, self.settings.mean_span)[1])
        cut = _cut(_texts(table, self.tokenizer, report), size, report)
        fit = [window for window in cut if window.end - window.begin > 1]
        if len(fit) < len(cut):
            report.notes.append(f"{len(cut) - len(fit)} stretches of a single token are left out")
        rng = np.random.default_rng(0)
        return _made([self._corrupted(window, rng) for window in fit], report, self.measure)

    def _corrupted(self, window: Window, rng: np.random.Generator) -> Example:
        ids = window.document.ids[window.begin : window.end]
        begins, ends = spans.noise_spans(len(ids), self.settings.rate, self.settings.mean_span, rng)
        source, target = spans.corrupt(ids, begins, ends, self.sentinels, self.end)
        return spans.decoder_example(target, self.start, source, window)

    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example:
        assert isinstance(example.origin, Window)
        return self._corrupted(example.origin.moved(rng) if moving else example.origin, rng)


class Denoising(Objective):
    """The whole text from one with spans masked and sentences in another order (BART)."""

    def __init__(self, settings: ObjectiveSettings, tokenizer: Tokenizer, model: Model) -> None:
        super().__init__(settings, tokenizer, model)
        mask = need(tokenizer, "mask", "objective denoising")
        self.frame = closed(tokenizer, "objective denoising")
        start = decoder_start(settings, tokenizer)
        permuted = settings.permute_sentences
        self.damage = spans.Damage(settings.rate, settings.mean_span, permuted, mask, start, self.frame)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Texts in stretches that, with what stands around them, fill the decoder's context."""
        limit = objectives.limit_of(settings, context)
        report = _report(table, "denoising")
        cut = _cut(_texts(table, self.tokenizer, report), _room(limit, len(self.frame) + 1, 1), report)
        rng = np.random.default_rng(0)
        return _made([self.damage.draw(window, rng) for window in cut], report, self.measure)

    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example:
        assert isinstance(example.origin, Window)
        return self.damage.draw(example.origin.moved(rng) if moving else example.origin, rng)


class SequenceToSequence(Objective):
    """A target from its source; nothing is drawn."""

    def __init__(self, settings: ObjectiveSettings, tokenizer: Tokenizer, model: Model) -> None:
        super().__init__(settings, tokenizer, model)
        self.frame = closed(tokenizer, "objective seq2seq")
        self.start = decoder_start(settings, tokenizer)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """A row an example; rows that are too long are cut, left out or refused, as told."""
        limit = objectives.limit_of(settings, context)
        report = _report(table, "seq2seq")
        teaching = sequences.Teaching(self.frame, self.start, self.settings.prefix, limit, settings.on_long)
        items = sequences.examples(table, self.tokenizer, teaching, report)
        objectives.count(items, report)
        if report.truncated:
            report.notes.append(f"{report.truncated} rows are cut at the end, {report.dropped_tokens} tokens in all")
        left_out = {"too long": report.too_long, "without a token on one side": report.no_trainable}
        report.notes += [f"{count} rows are left out: {why}" for why, count in left_out.items() if count]
        return Examples(items, report)

    def _draw(self, example: Example, rng: np.random.Generator, moving: bool) -> Example:
        return example


def closed(tokenizer: Tokenizer, what: str) -> Frame:
    """What stands around a text that must end: the tokenizer's own, with the end-of-text token if it adds none."""
    around = frame(tokenizer)
    return around if around.closing else replace(around, closing=(end_id(tokenizer, what),))


KINDS: dict[str, type[Objective]] = {
    "causal": Causal,
    "masked": Masked,
    "spans": Spans,
    "denoising": Denoising,
    "seq2seq": SequenceToSequence,
}
