"""Masked language modelling, with next-sentence prediction where asked for (BERT: Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data import masked, texts
from lmworks.data.batch import LANGUAGE, NEXT_SENTENCE, Example
from lmworks.data.documents import Document, Window, frame_of, require_id, special_ids
from lmworks.data.examples import Examples, Report, limit_of, start_report
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.model.config import ModelConfig
from lmworks.tasks.figures import ACCURACY, GENERAL_LOSS, LOSS, PERPLEXITY, head_accuracy
from lmworks.tasks.settings import MASK_RATE, TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Masked(Task):
    """An encoder predicts hidden tokens from all others, and whether a second sentence follows the first."""

    name = "masked"
    learns = "hidden tokens"
    architectures = ("encoder",)
    kinds = ("text", "labels")
    default_for = ("text",)
    uses = frozenset({"windows", "mask_rate", "whole_words", "next_sentence"})
    default_mask_rate = MASK_RATE
    figures = (LOSS, PERPLEXITY, ACCURACY, head_accuracy(NEXT_SENTENCE), GENERAL_LOSS)

    def __init__(
        self, settings: TaskSettings, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None = None
    ) -> None:
        """See :class:`Task`.

        Raises:
            InputError: the tokenizer lacks a token, or settings exclude one another.
        """
        if settings.next_sentence and settings.windows == "random":
            hint = "leave out one of the two: pairs of sentences are sampled anew each time anyway"
            raise InputError("windows random does not go with next_sentence", "task.windows", hint)
        super().__init__(settings, tokenizer, model, decoder_start)
        mask = require_id(tokenizer, "mask", "task masked")
        ids = np.array(sorted(tokenizer.core.get_vocab(with_added_tokens=True).values()), dtype=np.int32)
        is_special = np.zeros(int(ids[-1]) + 1, dtype=bool)
        is_special[special_ids(tokenizer)] = True
        plain_ids = ids[~is_special[ids]]
        if not len(plain_ids):
            raise InputError("the tokenizer has special tokens alone", "tokenizer", "train it on a text")
        self.masking = masked.Masking(self.mask_rate, mask, plain_ids, is_special)
        self.frame = frame_of(tokenizer)
        if settings.next_sentence and not self.frame.middle:
            fault = "the tokenizer puts nothing between two sentences, and next_sentence needs a separator"
            hint = "train one of BERT's style (lmworks tokenizer train --style bert), or set next_sentence: false"
            raise InputError(fault, "tokenizer", hint)

    @property
    def losses(self) -> tuple[str, ...]:
        """The language head's loss, and with ``next_sentence`` that of its head."""
        return (LANGUAGE, NEXT_SENTENCE) if self.settings.next_sentence else (LANGUAGE,)

    @property
    def is_random(self) -> bool:
        """The hidden tokens are sampled anew each time."""
        return True

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Windows of texts that fill a context, or pairs of sentences."""
        limit = limit_of(settings, context)
        report = start_report(table, "masked, with next sentences" if self.settings.next_sentence else "masked")
        documents = texts.read_documents(table, self.tokenizer, report, self.settings.whole_words)
        if self.settings.next_sentence:
            items = self._pairs(documents, limit, report)
        else:
            windows = texts.cut(documents, texts.available_tokens(limit, len(self.frame), 1), report)
            candidates = (masked.text_example(window, self.frame, self.masking) for window in windows)
            items = [example for example in candidates if example is not None]
            if len(items) < len(windows):
                report.notes.append(f"{count_of(len(windows) - len(items), 'piece')} of special tokens alone left out")
        return texts.sampled_examples(items, report, self.sample_for_evaluation)

    def _pairs(self, documents: list[Document], limit: int, report: Report) -> list[Example]:
        max_tokens = texts.available_tokens(limit, len(self.frame) + len(self.frame.middle), 2)
        sentences = [masked.split_sentences(document, max_tokens // 2) for document in documents]
        blocks = masked.blocks_of(sentences, max_tokens)
        single = sum(len(of_document) < 2 for of_document in sentences)
        if documents and not blocks:
            hint = "give texts of several sentences or lines (a txt file: document: file), or next_sentence: false"
            raise InputError("no document has two sentences, so none can follow another", documents[0].place, hint)
        if single:
            report.notes.append(f"{count_of(single, 'document')} of one sentence: no pair begins with them")
        if len(sentences) == 1:
            report.notes.append("there is one document: sentences that do not follow come from elsewhere in it")
        return [self._typed(masked.pair_example(block, self.frame, self.masking)) for block in blocks]

    def _typed(self, example: Example) -> Example:
        return example if self.model.type_vocab_size > 1 else replace(example, types=None)

    def _sample(self, example: Example, rng: np.random.Generator, move: bool) -> Example:
        origin = example.origin
        if isinstance(origin, masked.SegmentPair):
            return self._typed(masked.sample_pair(origin.block, self.frame, self.masking, rng))
        if move and isinstance(origin, Window):
            moved = origin.shift_randomly(rng)
            example, origin = masked.text_example(moved, self.frame, self.masking) or example, moved
        assert isinstance(example.origin, Window)
        return self.masking.mask(example, masked.text_word_ids(example.origin, self.frame), rng)

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """A text with hidden tokens, and the likeliest token in the place of each."""
        from lmworks.tasks.generation import fill_texts

        return fill_texts(model, examples, settings)
