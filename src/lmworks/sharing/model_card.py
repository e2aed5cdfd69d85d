"""The model card of a run: README.md with the hub's metadata, from the run's report card. Opens no model.

Metadata as the hub's documentation specifies it (hub-docs, modelcard.md). The card holds figures and settings, no text
of the rows that were trained or measured on, and of files and folders only the last part of the name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lmworks.base import figures
from lmworks.reports import facts
from lmworks.reports.cost import Cost
from lmworks.reports.measures import HOW, baseline_note
from lmworks.reports.summary import FORGETTING
from lmworks.sharing.model_use import ModelUse, format_notes, python_example, shell_example

Card = dict[str, Any]
FILE = "README.md"
UNMEASURED = (
    "Not measured: other languages and subjects than those of the held-out rows, bias, harmful answers, and whether "
    "rows that it was trained on can be drawn out of it."
)
DATA_LINES = ("rows trained on", "tokens trained on", "rows held out", "rows truncated / skipped")
"""Lines of the report card about the data."""
_PRIVATE_LINES = ("model", "data", "result", "settings from", "machine")
"""Lines of the report card that hold paths, or stand elsewhere."""


@dataclass(frozen=True)
class Published:
    """What a person says of a model, and what is known of its base.

    Attributes:
        name: ``owner/name``, or the name of the folder.
        base: what the hub calls the base, ``owner/name``; None: a new model, or one that is not from the hub.
        licence: as the hub names it, such as ``apache-2.0``; None: not said.
        language: such as ``en``; None: not said.
        base_note: what is to be known of the weights that the base was opened from; empty: nothing.
    """

    name: str
    base: str | None = None
    licence: str | None = None
    language: str | None = None
    base_note: str = ""


def model_card(card: Card, cost: Cost, use: ModelUse, published: Published) -> str:
    """The text of README.md.

    Args:
        card: of reports/card.build.
        cost: of the same run.
        use: of the saved model.
        published: name, base, licence.
    """
    header = yaml.safe_dump(metadata(card, cost, use, published), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"# {published.name.rpartition('/')[2]}",
        _public(card["summary"], card),
        *_section("How to use", _usage(use, published.name)),
        *_section("Training data", [_list(_data_lines(card), card)]),
        *_section("Training", [_list(_training_lines(card, published), card)]),
        *_section("Measured", _measured(card)),
        *_section("Limits", _limits(card, use)),
        *_section("What it cost", _costs(card, cost)),
        "Written by lmworks from the journal of the run.",
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(card: Card, cost: Cost, use: ModelUse, published: Published) -> dict[str, Any]:
    """The header of README.md, by which the hub lists and finds a model."""
    run = card["run"]
    values: dict[str, Any] = {
        "language": published.language,
        "license": published.licence,
        "library_name": use.library,
        "pipeline_tag": use.pipeline,
        "base_model": published.base,
        "base_model_relation": "finetune" if published.base else None,
        "datasets": [run["data"].removeprefix("hub:")] if str(run["data"]).startswith("hub:") else None,
        "tags": ["lmworks", *([str(run["method"])] if run["method"] and not run["new"] else [])],
        "model-index": _model_index(card, use, published.name.rpartition("/")[2]),
        "co2_eq_emissions": _emissions(card, cost),
    }
    return {key: value for key, value in values.items() if value}


def _model_index(card: Card, use: ModelUse, name: str) -> list[dict[str, Any]]:
    """The figures after training, by data set; empty where none was measured."""
    parts = card["tasks"] or [{"measures": card["measures"], "data": card["run"]["data"]}]
    results = []
    for part in parts:
        metrics = [
            {"type": measure["key"], "name": _title(measure), "value": measure["after"]["value"]}
            for measure in part["measures"]
            if measure["after"]["value"] is not None and measure["key"] not in FORGETTING
        ]
        data = facts.title(part["data"])
        if metrics:
            task, dataset = {"type": use.pipeline or "other"}, {"type": data, "name": f"{data}, held-out rows"}
            results.append({"task": task, "dataset": dataset, "metrics": metrics})
    return [{"name": name, "results": results}] if results else []


def _emissions(card: Card, cost: Cost) -> dict[str, Any] | None:
    """Carbon dioxide in grams and how it is known; None where no energy was recorded."""
    if cost.grams_co2 is None:
        return None
    source = f"lmworks: energy of {cost.energy_covers}, {cost.energy_how}, at {cost.grams_per_kwh:g} g a kWh"
    training = "pre-training" if card["run"]["new"] else "fine-tuning"
    values = {"emissions": round(cost.grams_co2, 4), "source": source, "training_type": training}
    return values | {"hardware_used": card["machine"].get("name") or "unknown"}


def _section(title: str, body: Sequence[str]) -> list[str]:
    return [f"## {title}", *body] if body else []


def _usage(use: ModelUse, name: str) -> list[str]:
    blocks = [_code("python", python_example(use, name)), _code("sh", shell_example(use, name))]
    return [*blocks, *([" ".join(format_notes(use))] if format_notes(use) else [])]


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _data_lines(card: Card) -> list[tuple[str, str]]:
    """How much was trained and measured on, what was cut or left out; no text of it."""
    return [("data", facts.data_title(card)), *(line for line in facts.run_lines(card) if line[0] in DATA_LINES)]


def _training_lines(card: Card, published: Published) -> list[tuple[str, str]]:
    """What was trained, and how."""
    run = card["run"]
    base = "none: it began with random weights" if run["new"] else published.base or facts.title(run["model"])
    lines = [("base", base), ("its weights", published.base_note)]
    lines += [(name, str(run[name])) for name in ("method", "precision") if run[name]]
    lines += [line for line in facts.run_lines(card) if line[0] not in (*DATA_LINES, *_PRIVATE_LINES)]
    return [line for line in lines if line[1]]


def _measured(card: Card) -> list[str]:
    if not card["measures"] and not card["tasks"]:
        return ["Nothing was measured both before and after training."]
    parts = [_table(card)] if card["measures"] else []
    for part in card["tasks"]:
        parts += [f"### {facts.task_title(part)}", _table(part)]
    return [*parts, HOW]


def _table(part: Card) -> str:
    """The figures of a card, or of one of its tasks, as Markdown."""
    compared = part["compared"]
    before = compared.get("before_name") or "before"
    after = "after" if compared["after"] != "step" else f"step {figures.count(compared['step'])}"
    rows = [["figure", before, after, "change", "95 % interval", "rows", "verdict"]]
    for measure in part["measures"]:
        change = measure["change"] or {"value": None, "interval": None}
        ends = change["interval"]
        title = _title(measure)
        if measure.get("baseline"):
            title += f" ({baseline_note(measure['baseline'])})"
        rows.append(
            [
                title,
                figures.number(measure["before"]["value"]),
                figures.number(measure["after"]["value"]),
                figures.signed(change["value"]),
                figures.interval(ends[0], ends[1], True) if ends else figures.UNKNOWN,
                figures.count(measure["rows"]),
                measure["verdict"] or "",
            ]
        )
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 2), "---"])
    return "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in rows)


def _title(measure: Card) -> str:
    """A figure with its unit."""
    return f"{measure['title']}, {measure['unit']}" if measure["unit"] else str(measure["title"])


def _limits(card: Card, use: ModelUse) -> list[str]:
    """What a reader must know before relying on it."""
    data, lines = card["data"], list(card["run"]["warnings"])
    if use.context:
        lines.append(f"It reads {figures.count(use.context)} tokens of a text at a time.")
    if data.get("truncated"):
        rows = figures.count_of(data["truncated"], "row")
        lines.append(f"{rows} of the training data {'was' if data['truncated'] == 1 else 'were'} cut.")
    for measure in card["measures"]:
        if measure["key"] in FORGETTING and measure["verdict"] == "worse":
            lines.append("Of what its base knew it forgot something: see the figures of another text above.")
            break
    groups = [measure["rows"] for measure in card["measures"] if measure["rows"]]
    if groups:
        lines.append(f"Its figures are those of {figures.count_of(max(groups), 'held-out row')} of the same source.")
    lines += ["What it writes may be wrong." if use.pipeline == "text-generation" else "", UNMEASURED]
    return ["\n".join(f"- {_public(line, card)}" for line in lines if line)]


def _costs(card: Card, cost: Cost) -> list[str]:
    """Time, memory and energy."""
    lines = [
        ("machine", str(card["machine"].get("name") or "")),
        ("time in all", figures.duration(cost.seconds) if cost.seconds else ""),
        ("training", figures.duration(cost.training_seconds) if cost.training_seconds else ""),
        ("peak memory", figures.byte_size(cost.peak_memory) if cost.peak_memory else ""),
        ("arithmetic", figures.scaled(cost.flops, "FLOP", 3) if cost.flops else ""),
    ]
    if cost.joules is not None and cost.grams_co2 is not None:
        note = f" ({cost.energy_note})" if cost.energy_note else ""
        lines.append(("energy", f"{figures.energy(cost.joules)} for {cost.energy_covers}, {cost.energy_how}{note}"))
        co2 = f"{figures.number(cost.grams_co2)} g, at {cost.grams_per_kwh:g} g a kWh"
        lines.append(("carbon dioxide", co2))
    return [_list([line for line in lines if line[1]], card)]


def _list(lines: Sequence[tuple[str, str]], card: Card) -> str:
    return "\n".join(f"- {name}: {_public(text, card)}" for name, text in lines)


def _public(text: str, card: Card) -> str:
    """A line without the folders of the machine that it comes from, and without what Markdown would read as markup."""
    for source in (card["run"]["path"], card["run"]["model"], card["run"]["data"]):
        if source and ("/" in str(source) or "\\" in str(source)) and not str(source).startswith("hub:"):
            text = text.replace(str(source), facts.title(str(source)))
    return re.sub(r"(?<![\w./~:-])/(?:[\w.@+~-]+/)+([\w.@+~-]*)", r"\1", text).replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
