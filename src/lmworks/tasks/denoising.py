"""Denoising: the whole text from one with spans masked and sentences in another order (BART: Lewis et al. 2020)."""

from __future__ import annotations

import numpy as np

from lmworks.data import spans, texts
from lmworks.data.batch import Example
from lmworks.data.documents import Window, frame_with_end, require_id, role_id
from lmworks.data.examples import Examples, limit_of, start_report
from lmworks.model.config import ModelConfig
from lmworks.tasks.encoder_decoder import EncoderDecoderTask
from lmworks.tasks.figures import ACCURACY, GENERAL_LOSS, LOSS, PERPLEXITY
from lmworks.tasks.settings import DENOISING_MASK_RATE, TaskSettings
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer


class Denoising(EncoderDecoderTask):
    """Texts with an encoder-decoder whose tokenizer has a mask token."""

    name = "denoising"
    learns = "the text from a damaged one"
    kinds = ("text", "labels")
    default_for = ("text",)
    uses = frozenset({"windows", "mask_rate", "mean_span", "permute_sentences", "decoder_start"})
    default_mask_rate = DENOISING_MASK_RATE
    decoder_start_role = "eos"
    figures = (LOSS, PERPLEXITY, ACCURACY, GENERAL_LOSS)

    def __init__(
        self, settings: TaskSettings, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None = None
    ) -> None:
        """See :class:`Task`.

        Raises:
            InputError: the tokenizer has no mask token, or none that ends a text.
        """
        super().__init__(settings, tokenizer, model, decoder_start)
        mask = require_id(tokenizer, "mask", "task denoising")
        self.frame = frame_with_end(tokenizer, "task denoising")
        permuted = settings.permute_sentences
        self.denoising = spans.Denoising(self.mask_rate, settings.mean_span, permuted, mask, self.start, self.frame)

    @classmethod
    def suits(cls, tokenizer: Tokenizer) -> bool:
        """BART's tokenizers have a mask token."""
        return role_id(tokenizer, "mask") is not None

    @property
    def is_random(self) -> bool:
        """The masked spans and the order of the sentences are sampled anew each time."""
        return True

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """Windows of texts that fill the decoder's context together with their special tokens."""
        limit = limit_of(settings, context)
        report = start_report(table, "denoising")
        documents = texts.read_documents(table, self.tokenizer, report)
        windows = texts.cut(documents, texts.available_tokens(limit, len(self.frame) + 1, 1), report)
        rng = np.random.default_rng(0)
        return texts.sampled_examples(
            [self.denoising.sample(window, rng) for window in windows], report, self.sample_for_evaluation
        )

    def _sample(self, example: Example, rng: np.random.Generator, move: bool) -> Example:
        assert isinstance(example.origin, Window)
        return self.denoising.sample(example.origin.shift_randomly(rng) if move else example.origin, rng)
