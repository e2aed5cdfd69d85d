"""An audit: kinds of measurements of a model, or of two side by side on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmworks.audits import bias, contamination, hallucination, memorisation, personal_data, robustness, toxicity
from lmworks.audits.part import Given, Part
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import Say, Subject, open_subject
from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.journal import JOURNAL
from lmworks.language_model.text_methods import TextMethods
from lmworks.run.memorisation import rows_of_run
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Table

JSON, FORMAT = "audit.json", 1
Measure = Callable[[Subject, Given], Part]
MeasureData = Callable[[Given], Part]
MEASURES: dict[str, tuple[Measure | None, MeasureData | None]] = {
    "bias": (bias.measure, None),
    "memorisation": (memorisation.measure, None),
    "personal-data": (personal_data.measure, personal_data.measure_data),
    "toxicity": (toxicity.measure, toxicity.measure_data),
    "hallucination": (hallucination.measure, None),
    "robustness": (robustness.measure, None),
    "contamination": (None, contamination.measure_data),
}
"""For each kind what is measured of a model, and of the rows alone."""


@dataclass
class Section:
    """One kind of an audit.

    Attributes:
        kind: its name.
        parts: of each model, in their order; empty where the kind is about rows alone.
        data: what was measured of the rows; None: nothing is.
    """

    kind: str
    parts: list[Part]
    data: Part | None = None

    @property
    def all_parts(self) -> list[Part]:
        """Those of the rows and of the models."""
        return [*([self.data] if self.data is not None else []), *self.parts]

    def changes(self) -> dict[str, list[float] | None]:
        """Figure -> the second model's value less the first's with both ends of its interval; None: not comparable."""
        if len(self.parts) != 2:
            return {}
        before = {figure.name: figure for figure in self.parts[0].figures}
        changes: dict[str, list[float] | None] = {}
        for figure in self.parts[1].figures:
            change = figure.change_from(before[figure.name]) if figure.name in before else None
            changes[figure.name] = None if change is None else list(change)
        return changes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "kind": self.kind,
            "rows": None if self.data is None else self.data.as_dict(),
            "models": [part.as_dict() for part in self.parts],
            "changes": self.changes(),
        }


@dataclass
class Audit:
    """What an audit gave.

    Attributes:
        models: names of the one or two models.
        signatures: what computed each, and the formats of its weights.
        rows: the source of the user's rows; empty without any.
        settings: what was measured, and on what.
        sections: of each kind, in the order of the kinds.
        notes: what a person should know of models and rows.
    """

    models: list[str]
    signatures: list[str]
    rows: str
    settings: AuditSettings
    sections: list[Section]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: the content of audit.json."""
        models = [{"name": n, "signature": s} for n, s in zip(self.models, self.signatures, strict=True)]
        return {
            "format": FORMAT,
            "models": models,
            "rows": self.rows,
            "settings": self.settings.model_dump(),
            "sections": [section.as_dict() for section in self.sections],
            "notes": self.notes,
        }

    def json(self) -> str:
        """The content of audit.json as text."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=1) + "\n"


def run_audit(models: Sequence[str], settings: AuditSettings, data: DataSettings, source: Any, say: Say) -> Audit:
    """Measure one model, or two on the same rows.

    Args:
        models: their sources; where one is a run, the rows are its own unless others are given. Of two runs they are
            those of the second.
        settings: what is measured.
        data: how the user's rows are read.
        source: the user's rows, as of corpus.read; None: none.
        say: gets each line of progress.

    Raises:
        InputError: a model or a file cannot be read, or nothing could be measured.
    """
    if not 1 <= len(models) <= 2:
        raise InputError(f"{len(models)} models", "MODEL", "give one model, or two to see them side by side")
    subjects = [open_subject(model, say) for model in models]
    given, notes = _given(models, settings, data, source)
    notes += _share_labels(subjects)
    sections = []
    for kind in settings.kinds:
        of_models, of_data = MEASURES[kind]
        section = Section(kind, [])
        if of_data is not None:
            say(f"{kind}: the rows")
            section.data = of_data(given)
        for subject in subjects if of_models is not None else []:
            say(f"{kind}: {subject.name}")
            assert of_models is not None
            section.parts.append(of_models(subject, given))
        sections.append(section)
    parts = [part for section in sections for part in section.all_parts]
    if not any(part.figures for part in parts):
        reasons = [reason for part in parts for reason in part.missing]
        hint = "lmworks audit --help says what each kind needs"
        raise InputError(f"nothing could be measured: {'; '.join(dict.fromkeys(reasons))}", models[-1], hint)
    rows = "" if given.table is None else given.table.name
    signatures = [subject.signature for subject in subjects]
    return Audit([subject.name for subject in subjects], signatures, rows, settings, sections, notes)


def _given(models: Sequence[str], settings: AuditSettings, data: DataSettings, source: Any) -> tuple[Given, list[str]]:
    """The rows of the audit, and notes about them."""
    given = Given(settings)
    runs = [path for model in models if ((path := expand_home(model)) / JOURNAL).is_file()]
    if runs:
        try:
            train, held_out = rows_of_run(runs[-1])
            given = replace(given, table=held_out if len(held_out) else None, run=runs[-1])
            given = replace(given, train=train, held_out=held_out)
        except InputError as error:
            given = replace(given, no_rows=f"the rows of {runs[-1]}: {error.fault}")
    if source is None:
        return given, []
    table = _read(source, data)
    return replace(given, table=table), table.notes


def _read(source: Any, data: DataSettings) -> Table:
    """The user's rows; of plain text a line is a row, unless something else is said."""
    is_text = isinstance(source, str) and expand_home(source).suffix.lower() in (".txt", ".text")
    if is_text and "document" not in data.model_fields_set:
        data = data.model_copy(update={"document": "line"})
    return corpus.read(source, data)


def _share_labels(subjects: Sequence[Subject]) -> list[str]:
    """Ask a base in the words of a run that labels texts in words, since it has none of its own; say so."""
    forms = [subject.model.input_format for subject in subjects if isinstance(subject.model, TextMethods)]
    form = next((form for form in forms if form is not None and form.kind == "label"), None)
    notes = []
    for subject in subjects:
        if form is not None and subject.gives_choices and subject.model.input_format is None:
            subject.model.input_format = form
            notes.append(f"{subject.name} is asked for labels in the words of the run, which it was not trained on")
    return notes
