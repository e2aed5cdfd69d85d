"""A task: how rows become examples, what is sampled anew each time, which losses it has, and how it is evaluated.

Each task is one file in this folder; the registry lists them. Importing a task imports no torch, because recipes read
which rows and models it takes, and the report card reads which figures it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import CONTRASTIVE, LANGUAGE, Example
from lmworks.data.examples import Examples
from lmworks.data.prompts import Answer, Prompt
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.language_model.input_format import InputFormat, InputKind
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import HeadRequest
from lmworks.tasks.figures import Figure
from lmworks.tasks.settings import TaskSettings
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Task(ABC):
    """What a model learns from rows.

    Class attributes:
        name: in recipes.
        learns: what a model learns, in a few words for the report.
        architectures: of the models that it trains.
        needs_language_head: whether it trains the model's language head.
        kinds: kinds of rows that it takes.
        default_for: kinds of rows for which the task ``auto`` is this one.
        uses: names of the task settings that it uses.
        input_kind: how an input is given to a model that learned it (language_model/input_format).
        slides: whether a new model sees windows of longer texts, so that it continues a text past a full context.
        default_mask_rate: the published fraction of hidden tokens; 0 for tasks that hide none.
        metric: name of the metric of its answers (evaluate/metrics).
        figures: figures of the report card, in this order; the first is the headline.
        whole_steps: whether all documents of a step pass through together, whatever ``train.row_tokens`` says.
    """

    name: ClassVar[str]
    learns: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    needs_language_head: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]]
    default_for: ClassVar[tuple[str, ...]]
    uses: ClassVar[frozenset[str]] = frozenset()
    input_kind: ClassVar[InputKind] = "text"
    slides: ClassVar[bool] = False
    default_mask_rate: ClassVar[float] = 0.0
    metric: ClassVar[str] = "chrf"
    figures: ClassVar[tuple[Figure, ...]]
    whole_steps: ClassVar[bool] = False

    def __init__(
        self, settings: TaskSettings, tokenizer: Tokenizer, model: ModelConfig, decoder_start: int | None = None
    ) -> None:
        """A task for a tokenizer and a model.

        Args:
            settings: of this task.
            tokenizer: the model's.
            model: its config.
            decoder_start: what the decoder of an encoder-decoder reads first, where the model's files say it.

        Raises:
            InputError: the model lacks a head, or the tokenizer a token.
        """
        self.settings, self.tokenizer, self.model = settings, tokenizer, model
        self.decoder_start = decoder_start
        for name in self.losses:
            if name not in (LANGUAGE, CONTRASTIVE) and model.head(name) is None:
                hint = f"add it to the model: heads: [{{name: {name}, kind: pooled, size: 2}}] and pooler: true"
                raise InputError(f"this model has no head {name}", f"task {self.name}", hint)

    @property
    def losses(self) -> tuple[str, ...]:
        """The named terms of its loss: ``language``, and classification heads by their names."""
        return (LANGUAGE,)

    @property
    def mask_rate(self) -> float:
        """Fraction of the words or tokens that is hidden."""
        return self.settings.mask_rate if self.settings.mask_rate is not None else self.default_mask_rate

    @property
    def is_random(self) -> bool:
        """Whether examples have a random part, which ``sample`` samples."""
        return False

    @classmethod
    def suits(cls, tokenizer: Tokenizer) -> bool:
        """Whether the tokenizer has the special tokens that it needs: asked where several tasks take the same rows."""
        return True

    @classmethod
    def new_decoder_start(cls, settings: TaskSettings, tokenizer: Tokenizer) -> int | None:
        """The id that the decoder of a new encoder-decoder reads first; None for other models.

        Raises:
            InputError: the tokenizer has no such token.
        """
        return None

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest | None:
        """The head that a model must have, and is given where it lacks it; None: the heads that it has.

        Args:
            table: all rows, with their labels.
        """
        return None

    # Rows -> examples

    @classmethod
    def usable_rows(cls, table: Table, tokenizer: Tokenizer, settings: DataSettings) -> Table:
        """The table without rows that cannot become examples; called before it is split, if such rows are skipped."""
        return table

    @abstractmethod
    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """The fixed part of all examples, and their report, in which the random part is sampled once.

        Args:
            table: rows of one of ``kinds``.
            settings: of the data: templates, lengths, what becomes of long rows.
            context: tokens of the longest example; in an encoder-decoder, of each stack.

        Raises:
            InputError: no row has a token with loss, or the context is too short.
        """

    def sample(self, example: Example, rng: np.random.Generator) -> Example:
        """An example with its random part sampled; the same generator gives the same sample."""
        return self._sample(example, rng, self.settings.windows == "random")

    def sample_for_evaluation(self, example: Example, rng: np.random.Generator) -> Example:
        """As ``sample``, but windows of texts are not moved, so that every token counts once."""
        return self._sample(example, rng, False)

    def _sample(self, example: Example, rng: np.random.Generator, move: bool) -> Example:
        """Sample the random part; ``move``: also move the window of a text to a random place."""
        return example

    # Using the trained model

    def input_format(self, settings: DataSettings, labels: Sequence[str] = ()) -> InputFormat:
        """The format of inputs in training, which is saved with the trained model.

        Args:
            settings: how rows were read and written.
            labels: all that the rows have.
        """
        return InputFormat(
            task=self.name,
            kind=self.input_kind,
            text=settings.text,
            prompt=settings.prompt,
            template=settings.template,
            system=settings.system,
        )

    def finish(self, model: LanguageModel) -> None:  # noqa: B027
        """Change what is saved beside the weights of a trained model; nothing by default."""

    def chosen_format(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """Settings of the input format that are chosen by the evaluation after training."""
        return {}

    # Evaluation

    def prompts(self, table: Table, settings: DataSettings) -> list[Prompt]:
        """The prompts of held-out rows with their references; none if the task evaluates no answers."""
        return []

    def answer(self, model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
        """The model's answers, generated greedily."""
        from lmworks.tasks.generation import generate_answers

        return generate_answers(model, prompts, max_tokens)

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """Samples of the model's answers to held-out examples, which a person can read: ``prompt``, ``reference`` and
        ``answer`` of each."""
        return []

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """Further parts of an ``evaluation`` event, beside held-out loss and answers, by their names."""
        return {}

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """The same parts, of what a new head is compared with instead of itself, and its ``name``.

        Args:
            training: examples that it is trained on.
            examples: held-out ones.
        """
        return {}

    def general_examples(self, texts: Sequence[str], context: int) -> list[Example]:
        """Examples of texts that are never trained on, to measure forgetting; none if the task takes no texts."""
        if "text" not in self.kinds:
            return []
        rows = [Row({"text": text}, f"general text, part {number}") for number, text in enumerate(texts, 1)]
        return self.examples(Table("general text", "text", rows), DataSettings(), context).items
