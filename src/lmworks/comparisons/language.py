"""The rungs of language models: one tokenizer for all, and the same held-out bytes, each of which every rung predicts.

The held-out texts are scored here and not taken from the runs: a run's own figures leave out what its windows do not
predict, which differs from model to model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmworks.run.api as runs
from lmworks.base.errors import InputError
from lmworks.base.figures import NATS_PER_BIT
from lmworks.base.journal import RunFolder
from lmworks.comparisons.ladder_settings import LadderSettings, RungState
from lmworks.comparisons.rungs import Rung
from lmworks.evaluate.metrics import FEWEST_ROWS, bootstrap_interval
from lmworks.run.load import load
from lmworks.run.result import Run, Say
from lmworks.run.source import tokenizer_of_new
from lmworks.text import corpus, python_rows
from lmworks.text.rows import Row, Table
from lmworks.text.train_tokenizer import texts_of

TEXTS, TOKENIZER = "texts.jsonl", "tokenizer"
PIECE_BYTES = 1000
"""Of a piece of a text: where few texts are held out, the rows of an interval are pieces of them."""
MOST_BYTES = 100_000
"""Of the held-out texts that are scored: the first ones are a fair sample of all."""
FEWEST_BYTES = 200
SAMPLE_TOKENS, PROMPT_CHARACTERS = 40, 50
TRAINED: dict[str, Any] = {"evaluate": {"samples": 1, "max_tokens": 24, "measured": 32}}
"""What a run evaluates itself, for its own report."""
_LINES = re.compile(r"(?<=\n)")


class LanguageLadderTask:
    """What all rungs of language models share.

    Attributes:
        folder: of the ladder, which holds the texts and the tokenizer.
        settings: of the ladder.
        notes: of the data and the tokenizer.
        texts: the held-out texts that every rung scores.
        prompt: what every rung continues.
    """

    def __init__(self, folder: Path, settings: LadderSettings) -> None:
        self.folder, self.settings = folder, settings
        self.data = settings.data_of_runs(folder / TEXTS)
        self.notes: list[str] = []
        train, held_out = self._divided()
        self._make_tokenizer(train)
        self.texts, self.unit = scored_texts([row.values["text"] for row in held_out.rows])
        self.prompt = first_words(self.texts[0])

    def _divided(self) -> tuple[Table, Table]:
        """The texts to train on, and held out: read once, and kept, so that the file may change or move."""
        path = self.folder / TEXTS
        if not path.is_file():
            table = corpus.read(self.settings.source, self.settings.data)
            self.notes += table.notes
            python_rows.save([{"text": text} for text in documents_of(table)], path)
        table = corpus.read(str(path))
        train, held_out = corpus.split(table, self.settings.data)
        self.notes += [note for note in train.notes if note not in table.notes]
        if sum(len(row.values["text"].encode()) for row in held_out.rows) < FEWEST_BYTES:
            fault = f"fewer than {FEWEST_BYTES} bytes of text are held out: nothing can be compared on them"
            raise InputError(fault, self.settings.source, "give more text, or hold more out: --data.held_out 0.3")
        return train, held_out

    def _make_tokenizer(self, train: Table) -> None:
        path = self.folder / TOKENIZER
        if path.is_dir():
            return
        tokenizer, _, notes = tokenizer_of_new(self.settings.tokenizer, train, "llama")
        if not tokenizer.opening:
            fault = "this tokenizer begins a text with no token, so that networks do not predict a text's first token"
            raise InputError(fault, "tokenizer", "--tokenizer.style llama, or leave it out")
        tokenizer.save(path)
        self.notes += notes

    @property
    def compared(self) -> dict[str, Any]:
        """What is compared."""
        sizes = [len(text.encode(errors="replace")) for text in self.texts]
        return {"measure": "bits per byte", "rows": len(sizes), "unit": self.unit, "bytes": sizes}

    def start(self, rung: Rung, out: Path, **groups: Any) -> Run:
        """Train a rung in a new folder.

        Args:
            rung: of counts or a network.
            out: the run's folder.
            **groups: settings of its recipe.
        """
        tokenizer = {"source": str(self.folder / TOKENIZER)}
        return runs.pretrain(rung.model, self.data, out=out, tokenizer=tokenizer, **groups)

    @staticmethod
    def groups(rung: Rung) -> dict[str, Any]:
        """How much a run evaluates for its own report, beside the ladder's figures."""
        return {"evaluate": {"samples": 1, "max_tokens": 24}} if rung.kind == "counted" else TRAINED

    def measure(self, rung: Rung, step: RungState, folder: Path, say: Say, seconds: float) -> RungState:
        """The rung's step with its figures on the held-out texts, and its sample.

        Raises:
            AssertionError: it scored other bytes than those that are compared.
        """
        model = load(folder)
        scores = model.score(self.texts)
        assert [score.bytes for score in scores] == self.compared["bytes"], f"{rung.name} scored other bytes"
        nats = [score.nats for score in scores]
        value, low, high = bits_interval(nats, self.compared["bytes"])
        sample = model.generate(self.prompt, max_tokens=SAMPLE_TOKENS, temperature=0.8, top_k=50)
        return replace(step, value=value, interval=[low, high], rows=nats, sample=sample, parameters=size_of(folder))


def size_of(folder: Path) -> int | None:
    """The number of a model's weights, as its run's journal has it: at its start, or of counts at its end."""
    events = RunFolder(folder).events()
    sizes = [event["parameters"]["total"] for event in events if isinstance(event.get("parameters"), dict)]
    return int(sizes[-1]) if sizes else None


def bits_interval(nats: Sequence[float], sizes: Sequence[int]) -> tuple[float, float, float]:
    """Bits per byte of all texts, and its interval by bootstrap over texts; of one text, no wider than the figure."""
    return tuple(bootstrap_interval([value / NATS_PER_BIT for value in nats], weights=list(sizes)))  # type: ignore[return-value]


def documents_of(table: Table) -> list[str]:
    """The texts of a table: a document each; rows of one key (questions about one module) are one document."""
    groups: dict[str, list[Row]] = {}
    for number, row in enumerate(table.rows):
        groups.setdefault(row.key or f"row {number}", []).append(row)
    if table.kind == "labels":
        return [row.values["text"] for row in table.rows]
    return ["\n".join(texts_of(row.values for row in rows)) for rows in groups.values()]


def scored_texts(texts: Sequence[str]) -> tuple[list[str], str]:
    """The texts that are scored, and what they are called: whole documents, or pieces where there are few."""
    kept, size = [], 0
    for text in filter(str.strip, texts):
        if size >= MOST_BYTES:
            break
        part = text.encode()[: MOST_BYTES - size].decode(errors="ignore")
        kept.append(part)
        size += len(part.encode())
    if len(kept) >= FEWEST_ROWS:
        return kept, "documents"
    return [piece for text in kept for piece in pieces(text)], "pieces"


def pieces(text: str) -> list[str]:
    """A text in pieces of about PIECE_BYTES, or as many as an interval needs, that end where a line (or word) does."""
    most = min(PIECE_BYTES, max(1, math.ceil(len(text.encode()) / (2 * FEWEST_ROWS))))
    parts = [""]
    for line in _LINES.split(text) if text.count("\n") > 2 * FEWEST_ROWS else re.split(r"(?<=\s)", text):
        if parts[-1] and len((parts[-1] + line).encode()) > most:
            parts.append("")
        parts[-1] += line
    return [piece for piece in parts if piece.strip()]


def first_words(text: str) -> str:
    """The beginning of a text as a prompt."""
    line = next((line for line in text.split("\n") if line.strip()), text)
    return line if len(line) <= PROMPT_CHARACTERS else line[:PROMPT_CHARACTERS].rpartition(" ")[0] or line[:20]
