"""Sequence to sequence: a target from its source, teacher-forced (Sutskever et al. 2014; Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from lmworks.base.errors import InputError
from lmworks.data import sequences
from lmworks.data.batch import Example
from lmworks.data.documents import frame_with_end
from lmworks.data.examples import Examples, count, limit_of, note_rows, start_report
from lmworks.data.prompts import Prompt
from lmworks.language_model.input_format import InputFormat
from lmworks.model.config import ModelConfig
from lmworks.tasks.denoising import Denoising
from lmworks.tasks.encoder_decoder import EncoderDecoderTask
from lmworks.tasks.figures import ACCURACY, ANSWERS, BITS, GENERAL_LOSS, LOSS, NUMBERS, PERPLEXITY
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.spans import Spans
from lmworks.text.rows import DataSettings, Table
from lmworks.text.tokenizer import Tokenizer

PRETRAINING_CONTEXT = 512
"""Tokens of the texts that T5 and BART were pretrained on (Raffel et al. 2020; Lewis et al. 2020)."""


class SequenceToSequence(EncoderDecoderTask):
    """Rows of source and target, prompt and completion, or text and label."""

    name = "seq2seq"
    learns = "the target of each source"
    kinds = ("pairs", "completion", "labels")
    default_for = ("pairs", "completion")
    uses = frozenset({"prefix", "decoder_start"})
    input_kind = "source"
    figures = (ANSWERS, NUMBERS, LOSS, PERPLEXITY, ACCURACY, BITS, GENERAL_LOSS)

    def __init__(
        self, settings: TaskSettings, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None = None
    ) -> None:
        """See :class:`Task`.

        Raises:
            InputError: the tokenizer has no token that begins or ends a target.
        """
        super().__init__(settings, tokenizer, model, decoder_start)
        self.frame = frame_with_end(tokenizer, "task seq2seq")
        self.start_id = self.start

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row; rows that are too long are cut, left out or refused (data.on_long)."""
        limit = limit_of(settings, context)
        report = start_report(table, "seq2seq")
        form = sequences.SequenceFormat(self.frame, self.start_id, self.settings.prefix, limit, settings.on_long)
        items = sequences.examples(table, self.tokenizer, form, report)
        count(items, report)
        note_rows(report, "without a token on one side")
        return Examples(items, report, table.labels)

    def prompts(self, table: Table, settings: DataSettings) -> list[Prompt]:
        """The source of each row as the encoder reads it; what is too long for the context is cut at its end."""
        source, target = sequences.SIDES[table.kind]
        sources, _ = sequences.encode_rows(table.rows, (source, target), self.tokenizer, self.settings.prefix)
        return [
            Prompt(
                [*self.frame.opening, *ids, *self.frame.closing],
                self.settings.prefix + row.values[source],
                row.values[target],
                row.place,
            )
            for row, ids in zip(table.rows, sources, strict=True)
        ]

    def input_format(self, settings: DataSettings, labels: Sequence[str] = ()) -> InputFormat:
        """The input format with the prefix of each source."""
        return super().input_format(settings).model_copy(update={"prefix": self.settings.prefix})

    def general_examples(self, texts: Sequence[str], context: int) -> list[Example]:
        """Texts as the model was pretrained on them, which its tokenizer shows: with T5's sentinels by span corruption,
        with BART's mask token by denoising. None for other models: Marian was trained on translations only."""
        pretraining = next((task for task in (Spans, Denoising) if task.suits(self.tokenizer)), None)
        if pretraining is None:
            return []
        settings = TaskSettings(name=pretraining.name, decoder_start=self.settings.decoder_start)
        try:
            task = pretraining(settings, self.tokenizer, self.model, self.decoder_start)
            return task.general_examples(texts, min(context, PRETRAINING_CONTEXT))
        except InputError:  # too few sentinels for such texts, or no end-of-text token: it had another pretraining
            return []
