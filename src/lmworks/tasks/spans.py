"""Span corruption: the hidden spans of a text from the text with a sentinel for each (T5: Raffel et al. 2020)."""

from __future__ import annotations

import numpy as np

from lmworks.base.figures import count_of
from lmworks.data import spans, texts
from lmworks.data.batch import Example
from lmworks.data.documents import Window, end_id
from lmworks.data.examples import Examples, limit_of, start_report
from lmworks.model.config import ModelConfig
from lmworks.tasks.encoder_decoder import EncoderDecoderTask
from lmworks.tasks.figures import ACCURACY, GENERAL_LOSS, LOSS, PERPLEXITY
from lmworks.tasks.settings import MASK_RATE, TaskSettings
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer


class Spans(EncoderDecoderTask):
    """Texts with an encoder-decoder whose tokenizer has sentinels."""

    name = "spans"
    learns = "hidden spans"
    kinds = ("text", "labels")
    default_for = ("text",)
    uses = frozenset({"windows", "mask_rate", "mean_span", "decoder_start"})
    default_mask_rate = MASK_RATE
    figures = (LOSS, PERPLEXITY, ACCURACY, GENERAL_LOSS)

    def __init__(
        self, settings: TaskSettings, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None = None
    ) -> None:
        """See :class:`Task`.

        Raises:
            InputError: the tokenizer has no sentinels, or no token that ends a text.
        """
        super().__init__(settings, tokenizer, model, decoder_start)
        self.sentinels = spans.sentinels(tokenizer)
        spans.check_sentinels(self.sentinels, 1)
        self.start_id, self.end_id = self.start, end_id(tokenizer, "task spans")

    @classmethod
    def suits(cls, tokenizer: Tokenizer) -> bool:
        """T5's tokenizers have sentinels."""
        return len(spans.sentinels(tokenizer)) > 0

    @property
    def is_random(self) -> bool:
        """The hidden tokens are sampled anew each time."""
        return True

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Windows of texts, so long that the source of each fills the context exactly."""
        limit = limit_of(settings, context)
        report = start_report(table, "spans")
        size = spans.text_length(limit, self.mask_rate, self.settings.mean_span)
        spans.check_sentinels(self.sentinels, spans.noise_counts(size, self.mask_rate, self.settings.mean_span)[1])
        windows = texts.cut(texts.read_documents(table, self.tokenizer, report), size, report)
        usable = [window for window in windows if window.end - window.begin > 1]
        if len(usable) < len(windows):
            report.notes.append(f"{count_of(len(windows) - len(usable), 'piece')} of a single token left out")
        rng = np.random.default_rng(0)
        return texts.sampled_examples(
            [self._corrupt(window, rng) for window in usable], report, self.sample_for_evaluation
        )

    def _corrupt(self, window: Window, rng: np.random.Generator) -> Example:
        ids = window.document.ids[window.begin : window.end]
        begins, ends = spans.noise_spans(len(ids), self.mask_rate, self.settings.mean_span, rng)
        source, target = spans.corrupt(ids, begins, ends, self.sentinels, self.end_id)
        return spans.decoder_example(target, self.start_id, source, window)

    def _sample(self, example: Example, rng: np.random.Generator, move: bool) -> Example:
        assert isinstance(example.origin, Window)
        return self._corrupt(example.origin.shift_randomly(rng) if move else example.origin, rng)
