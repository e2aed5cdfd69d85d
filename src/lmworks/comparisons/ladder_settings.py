"""Settings of a ladder, and where it stands: ladder.json. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import read_object
from lmworks.base.settings import Duration, Settings
from lmworks.comparisons.rungs import LADDERS
from lmworks.run.new_model import NewTokenizer
from lmworks.text.rows import DataSettings

STATE = "ladder.json"
VERSION = 1
TOKENIZER: dict[str, Any] = {"kind": "byte-bpe", "style": "llama", "vocab_size": 2048, "at_most": True}
"""One for all rungs. Bytes leave nothing unknown; a token begins every text, so that its first one is predicted too."""


class LadderSettings(Settings):
    """A ladder."""

    source: str = Field(description="A file, a named data set or hub:owner/name.")
    task: Literal["auto", "language", "classify"] = Field("auto", description="auto: rows with labels are classified.")
    budget: Duration = Field(600.0, gt=0, description="Time that all rungs together may take: 90s, 10m, 1h.")
    data: DataSettings = Field(default_factory=DataSettings)
    tokenizer: NewTokenizer = Field(default_factory=lambda: NewTokenizer.model_validate(TOKENIZER))
    only: list[str] = Field(default_factory=list, description="Names of the rungs to run; none: all.")
    rung: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Changes of a rung's recipe: --rung.lstm.train.learning_rate 0.01"
    )

    @field_validator("only", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _begins_texts(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("source"):
            return value
        kept = {"at_most": False} if "vocab_size" in value else {}
        chosen = {"style": "llama"} if value.get("kind") in ("char", "word") else {**TOKENIZER, **kept}
        return {**chosen, **value}

    def data_of_runs(self, path: Path) -> dict[str, Any]:
        """The data of each rung's run: a file that the ladder keeps, divided as the ladder's settings say."""
        return {"source": str(path), "held_out": self.data.held_out, "held_out_max": self.data.held_out_max}

    def check_names(self, task: str) -> None:
        """Refuse names that no rung has.

        Raises:
            InputError: there is one.
        """
        known = [rung.name for rung in LADDERS[task]]
        for place, names in (("only", self.only), ("rung", list(self.rung))):
            for name in names:
                if name not in known:
                    raise InputError(f"there is no rung {name!r}", place, f"one of: {', '.join(known)}")


@dataclass
class RungState:
    """Where one rung stands.

    Attributes:
        name, title: of the rung.
        folder: its run, below the ladder's folder.
        state: open, done, or left out.
        reason: why it was left out.
        seconds: all that it took, trials of its speed and its evaluation too.
        training_seconds: of training alone.
        killed_seconds: those of sessions that were killed.
        parameters: of the model.
        value: bits per byte, or accuracy.
        interval: the ends of its 95 % interval.
        macro_f1: of a classifier.
        sample: of a language model, how it continues the ladder's prompt.
        rows: by document (or piece of text) its nats; of a classifier, by row whether it is right (1 or 0).
        notes: what a reader should know.
    """

    name: str
    title: str
    folder: str
    state: str = "open"
    reason: str = ""
    seconds: float = 0.0
    training_seconds: float | None = None
    killed_seconds: float = 0.0
    parameters: int | None = None
    value: float | None = None
    interval: list[float] | None = None
    macro_f1: float | None = None
    sample: str | None = None
    rows: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class LadderState:
    """A whole ladder as ladder.json holds it.

    Attributes:
        settings: of the ladder, its task settled.
        steps: one a rung.
        seconds: spent so far, in all sessions.
        compared: what is compared: name, how many, and (language models) the bytes of each.
        prompt: what language models continue.
        notes: of the data.
    """

    settings: LadderSettings
    steps: list[RungState]
    seconds: float = 0.0
    compared: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ladder.json, whole or not at all."""
        values = {"version": VERSION, "settings": self.settings.model_dump(mode="json"), **_without_settings(self)}
        atomic_write(folder / STATE, json.dumps(values, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> LadderState:
        """The ladder in a folder.

        Raises:
            InputError: there is none, or another version wrote it.
        """
        path = folder / STATE
        if not path.is_file():
            hint = "begin one: lmworks ladder FILE --out FOLDER"
            raise InputError("is the folder of no ladder", str(folder), hint)
        values = read_object(path)
        if values.pop("version", None) != VERSION:
            raise InputError("was written by another version of lmworks", str(path), "begin the ladder anew")
        settings = LadderSettings.model_validate(values.pop("settings"))
        steps = [RungState(**step) for step in values.pop("steps")]
        return cls(settings, steps, **values)


def _without_settings(state: LadderState) -> dict[str, Any]:
    """A state as plain values, without its settings, which pydantic writes."""
    return {name: value for name, value in asdict(state).items() if name != "settings"}


def is_ladder(folder: str | Path) -> bool:
    """Whether a folder is one of a ladder."""
    return (Path(folder) / STATE).is_file()
