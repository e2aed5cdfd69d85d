"""Instructions: a decoder learns to answer prompts; only the answers carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from lmworks.data.answers import answer_examples
from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.data.prompts import Prompt, accepted_rows, prompts
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.language_model.input_format import InputKind
from lmworks.tasks.figures import ANSWERS, BITS, GENERAL_BITS, LOSS, NUMBERS
from lmworks.tasks.task import Task
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Instructions(Task):
    """Rows of prompt and completion, or of source and target, through the chat template where there is one."""

    name = "instructions"
    learns = "to answer prompts"
    architectures = ("decoder",)
    kinds: ClassVar[tuple[str, ...]] = ("completion", "pairs")
    default_for: ClassVar[tuple[str, ...]] = ("completion", "pairs")
    uses = frozenset({"windows"})
    input_kind: ClassVar[InputKind] = "prompt"
    figures = (ANSWERS, NUMBERS, LOSS, BITS, GENERAL_BITS)

    @classmethod
    def usable_rows(cls, table: Table, tokenizer: Tokenizer, settings: DataSettings) -> Table:
        """The rows that the chat template accepts."""
        return accepted_rows(as_prompts(table), tokenizer, settings)

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row; see data/answers."""
        examples = answer_examples(as_prompts(table), self.tokenizer, settings, context)
        if self.settings.windows == "random":  # set by presets of decoders, for texts
            examples.report.notes.append(f"windows random has no effect on rows of kind {table.kind}")
        return examples

    def prompts(self, table: Table, settings: DataSettings) -> list[Prompt]:
        """The prompt of each row, as in its training example; of a chat, everything before the last answer."""
        return prompts(as_prompts(table), self.tokenizer, settings)

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """Half of an example, and how the model continues it; shown if no answers are evaluated."""
        from lmworks.tasks.generation import continue_texts

        return continue_texts(model, examples, settings)


def as_prompts(table: Table) -> Table:
    """Rows of source and target as prompts and completions."""
    if table.kind != "pairs":
        return table
    rows = [
        Row({"prompt": row.values["source"], "completion": row.values["target"]}, row.place, row.key)
        for row in table.rows
    ]
    note = "sources are prompts, targets their completions"
    return replace(table, kind="completion", rows=rows, notes=[*table.notes, note])
