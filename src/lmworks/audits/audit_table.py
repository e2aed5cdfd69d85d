"""An audit in words and cells, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmworks.audits.audit import Audit, Section
from lmworks.audits.figure import SHARE, Figure
from lmworks.audits.settings import KINDS
from lmworks.base import figures

ONE_MODEL = ("figure", "value", "95 % interval", "neutral", "rows")
ABOUT = (
    "neutral: the value of a model without what the figure looks for. Intervals say how far the figure would differ on "
    "other rows of the same kind, nothing of other kinds of rows; of twenty true intervals one misses by chance."
)


@dataclass(frozen=True)
class FigureTable:
    """A table of figures.

    Attributes:
        title: above it.
        heads: of the columns.
        rows: cells.
    """

    title: str
    heads: Sequence[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class SectionText:
    """One kind in words and cells.

    Attributes:
        title, about: its name, and what it measures.
        tables: of the rows, and of the models.
        hides: what the figures do not say: first figure and sentence.
        missing: what was not measured, with the reason.
        examples, notes: as of a part.
    """

    title: str
    about: str
    tables: list[FigureTable]
    hides: list[tuple[str, str]]
    missing: list[str]
    examples: list[str]
    notes: list[str]


def heading(audit: Audit) -> str:
    """The models and the rows."""
    title = " and ".join(audit.models)
    return f"{title}, audited on {audit.rows}" if audit.rows else f"{title}, audited"


def sections(audit: Audit) -> list[SectionText]:
    """All kinds, in their order."""
    return [_section(section, audit.models) for section in audit.sections]


def _section(section: Section, models: Sequence[str]) -> SectionText:
    tables = []
    if section.data is not None and section.data.figures:
        tables.append(FigureTable("the rows", ONE_MODEL, [_alone(figure) for figure in section.data.figures]))
    if len(section.parts) == 1 and section.parts[0].figures:
        tables.append(FigureTable(models[0], ONE_MODEL, [_alone(figure) for figure in section.parts[0].figures]))
    elif len(section.parts) == 2 and any(part.figures for part in section.parts):
        heads = ("figure", *models, "change", "neutral", "rows")
        tables.append(FigureTable(" → ".join(models), heads, _side_by_side(section)))
    listed = [figure for part in section.all_parts for figure in part.figures]
    hides: dict[str, str] = {}
    for figure in listed:
        hides.setdefault(figure.hides, figure.title.strip())
    return SectionText(
        section.kind,
        KINDS[section.kind],
        tables,
        [(title, sentence) for sentence, title in hides.items()],
        _of_models(section, models, "missing"),
        _of_models(section, models, "examples"),
        _of_models(section, models, "notes"),
    )


def _alone(figure: Figure) -> list[str]:
    ends = _interval(figure.low, figure.high, figure.unit)
    return [figure.title, value(figure.value, figure.unit), ends, _neutral(figure), f"{figure.sample.rows:,}"]


def _side_by_side(section: Section) -> list[list[str]]:
    """A line for each figure of either model."""
    sides = [{figure.name: figure for figure in part.figures} for part in section.parts]
    changes = section.changes()
    rows = []
    for name in dict.fromkeys(name for side in reversed(sides) for name in side):
        both = [side.get(name) for side in sides]
        figure = both[1] or both[0]
        assert figure is not None
        change = changes.get(name)
        shown = figures.UNKNOWN if change is None else _change(change, figure.unit)
        cells = [figures.UNKNOWN if one is None else _with_interval(one) for one in both]
        rows.append([figure.title, *cells, shown, _neutral(figure), f"{figure.sample.rows:,}"])
    return rows


def value(number: float, unit: str) -> str:
    """A number with its unit."""
    if unit == SHARE:
        return figures.percent(number)
    text = figures.number(number) if number >= 0 else figures.signed(number)
    return f"{text} {unit}".rstrip()


def _interval(low: float, high: float, unit: str, sign: bool = False) -> str:
    scale = 100 if unit == SHARE else 1
    return figures.interval(scale * low, scale * high, sign)


def _with_interval(figure: Figure) -> str:
    return f"{value(figure.value, figure.unit)} ({_interval(figure.low, figure.high, figure.unit)})"


def _change(change: Sequence[float], unit: str) -> str:
    number, low, high = change
    scale = 100 if unit == SHARE else 1
    text = f"{figures.signed(scale * number)} ({_interval(low, high, unit, True)})"
    return text if low > 0 or high < 0 else f"{text}, chance"


def _neutral(figure: Figure) -> str:
    return "" if figure.neutral is None else value(figure.neutral, figure.unit)


def _of_models(section: Section, models: Sequence[str], name: str) -> list[str]:
    """Lines of all parts; of two models those that they do not share say whose they are."""
    shared: list[str] = list(getattr(section.data, name)) if section.data is not None else []
    lists: list[list[str]] = [getattr(part, name) for part in section.parts]
    for model, listed in zip(models, lists, strict=False):
        for line in listed:
            is_shared = len(lists) == 1 or all(line in other for other in lists)
            text = line if is_shared else f"{model}: {line}"
            if text not in shared:
                shared.append(text)
    return shared
