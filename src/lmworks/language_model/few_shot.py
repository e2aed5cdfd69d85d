"""The prompt of a model that is not trained for its task: an instruction, examples, and how labels are calibrated.

A run of method prompting chooses one and writes it as ``prompt.json`` and ``examples.jsonl`` into the folder of its
result, which names the model. In-context learning: Brown et al. 2020, section 2.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import Field, ValidationError

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import read_object
from lmworks.base.settings import Settings
from lmworks.data.prompt_templates import PromptTemplate
from lmworks.data.prompts import Prompt, prompts
from lmworks.text import python_rows
from lmworks.text.columns import names_in
from lmworks.text.rows import DataSettings, Row, Table
from lmworks.text.tokenizer import Tokenizer

FILE, EXAMPLES, VECTORS = "prompt.json", "examples.jsonl", "examples.safetensors"
CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing (Zhao et al. 2021, section 4)."""
Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (n, E) vectors of length 1."""


class ShownExamples(ABC):
    """The rows that are shown before each text.

    Attributes:
        rows: all that may be shown.
    """

    rows: list[Row]

    @abstractmethod
    def before(self, texts: Sequence[str]) -> list[list[Row]]:
        """For each text the rows that are shown before it, in their order."""


@dataclass
class FixedExamples(ShownExamples):
    """The same rows before every text."""

    rows: list[Row]

    def before(self, texts: Sequence[str]) -> list[list[Row]]:
        """All of them, for every text."""
        return [self.rows] * len(texts)


@dataclass
class NearestExamples(ShownExamples):
    """The rows whose texts are most similar to a text, the most similar last (Liu et al. 2022, section 3).

    Attributes:
        rows: among which they are found.
        vectors: (n, E) of these rows' texts, of length 1.
        shots: how many are shown.
        embed: gives vectors of other texts.
        encoder: its source.
    """

    rows: list[Row]
    vectors: np.ndarray
    shots: int
    embed: Embed
    encoder: str

    def before(self, texts: Sequence[str]) -> list[list[Row]]:
        """The nearest rows of each text, by the cosine of their vectors."""
        similarity = self.embed(texts) @ self.vectors.T if texts else np.zeros((0, len(self.rows)))
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : self.shots]
        return [[self.rows[index] for index in reversed(nearest)] for nearest in order.tolist()]


class _File(Settings):
    """What ``prompt.json`` says."""

    instruction: str = Field("", description="Stands once before everything.")
    input: str = Field("", description="How each row is written.")
    calibration: bool = Field(False, description="Whether labels are calibrated with content-free texts.")
    nearest: int = Field(0, ge=0, description="How many examples are chosen for each text; 0: all, the same for each.")
    encoder: str | None = Field(None, description="Whose vectors say which examples are nearest.")


@dataclass
class FewShotPrompt:
    """How a model is asked.

    Attributes:
        template: instruction and pattern.
        examples: what is shown before each text.
        calibrates: whether likelihoods of labels are calibrated.
    """

    template: PromptTemplate
    examples: ShownExamples
    calibrates: bool = False

    def table(self, table: Table) -> Table:
        """The rows of a table as they are asked after examples."""
        shown = self.examples.before([text_of(row) for row in table.rows])
        rows = [self.template.ask(row, before, table.labels) for row, before in zip(table.rows, shown, strict=True)]
        return replace(table, rows=rows)

    def prompts(self, table: Table, tokenizer: Tokenizer, settings: DataSettings) -> list[Prompt]:
        """What to ask the model for each row.

        Args:
            table: of kind labels, completion or chat.
            tokenizer: of the model.
            settings: how rows are written.
        """
        asked = self.table(table)
        made = prompts(asked, tokenizer, settings)
        if not (self.calibrates and table.labels):
            return made
        is_fixed = isinstance(self.examples, FixedExamples)
        free = [
            prompts(replace(asked, rows=self._content_free(row, asked, table.labels, settings)), tokenizer, settings)
            for row in asked.rows[: 1 if is_fixed else None]
        ]
        ids = [[prompt.ids for prompt in twins] for twins in free]
        return [
            replace(prompt, content_free=twins)
            for prompt, twins in zip(made, ids * len(made) if is_fixed else ids, strict=True)
        ]

    def _content_free(self, row: Row, asked: Table, labels: Sequence[str], settings: DataSettings) -> list[Row]:
        """A row that is asked after examples, about texts that say nothing."""
        twins = []
        for text in CONTENT_FREE:
            values = {**row.values, "text": text}
            if self.template.input:
                values["prompt"] = self.template.fill(text, labels)
            elif settings.prompt is not None:
                values["prompt"] = settings.prompt.format(**dict.fromkeys(names_in(settings.prompt), text))
            twins.append(Row(values, row.place))
        return twins

    def save(self, folder: Path) -> None:
        """Write it into a folder, which another file says the model of."""
        nearest = self.examples if isinstance(self.examples, NearestExamples) else None
        content = _File(
            instruction=self.template.instruction,
            input=self.template.input,
            calibration=self.calibrates,
            nearest=nearest.shots if nearest else 0,
            encoder=nearest.encoder if nearest else None,
        )
        text = json.dumps(content.model_dump(exclude_defaults=True), ensure_ascii=False, indent=2)
        atomic_write(folder / FILE, text + "\n")
        python_rows.save([row.values for row in self.examples.rows], folder / EXAMPLES)
        if nearest:
            atomic_write(folder / VECTORS, safetensors.numpy.save({"vectors": np.ascontiguousarray(nearest.vectors)}))

    @classmethod
    def open(cls, folder: Path, embed_by: Callable[[str], Embed]) -> FewShotPrompt | None:
        """The prompt in a folder; None where there is none.

        Args:
            folder: of a result.
            embed_by: the source of an encoder -> what gives its vectors; called where nearest examples are shown.

        Raises:
            InputError: a file is damaged.
        """
        if not (folder / FILE).is_file():
            return None
        try:
            content = _File.model_validate(read_object(folder / FILE))
        except ValidationError as error:
            hint = "restore the file as the run wrote it"
            raise InputError(f"cannot be read ({str(error).splitlines()[1]})", str(folder / FILE), hint) from error
        template = PromptTemplate(instruction=content.instruction, input=content.input)
        rows = [Row(values, f"{EXAMPLES}:{number}") for number, values in enumerate(_rows(folder / EXAMPLES), 1)]
        examples: ShownExamples = FixedExamples(rows)
        if content.nearest:
            vectors = safetensors.numpy.load_file(folder / VECTORS)["vectors"]
            encoder = str(content.encoder)
            examples = NearestExamples(rows, vectors, content.nearest, embed_by(encoder), encoder)
        return cls(template, examples, content.calibration)


def text_of(row: Row) -> str:
    """The text by which a row is compared with others: what is labelled, or asked."""
    values = row.values
    if "messages" in values:
        return next((str(turn["content"]) for turn in reversed(values["messages"]) if turn["role"] == "user"), "")
    return str(values["text"] if "text" in values else values["prompt"])


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        hint = "restore the file as the run wrote it"
        raise InputError(f"cannot be read ({error})", str(path), hint) from error
