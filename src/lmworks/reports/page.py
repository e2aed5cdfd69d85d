"""The card as one HTML file: no network, no other file, light and dark, a desk and a phone.

It says what the card says and no more; everything that came from outside is escaped. Without its script the page is
whole.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmworks.base import figures
from lmworks.base.files import atomic_write
from lmworks.reports import classification_page, curves, entity_page, facts, question_page
from lmworks.reports.markup import document, frame, prose, table, text

HTML = "report.html"
Card = dict[str, Any]
ANSWERS = 12  # shown of one prompt, from the first to the last


def render(card: Card) -> str:
    """The whole page for a card of :func:`lmworks.reports.card.build`."""
    body = "".join(
        [
            _header(card),
            _notes(card),
            _tiles(card),
            _measures(card),
            _of_kind(card),
            *map(_of_task, card["tasks"]),
            _curves(card),
            f'<div class="halves">{_costs(card)}{_facts(card)}</div>',
            _grown(card) or _samples(card),
            _recipe(card),
        ]
    )
    footer = f"<footer>{text(card['how'])}</footer>"
    return document(f"Report card: {card['run']['name']}", f"\n{body}\n{footer}\n")


def notebook_html(card: Card) -> str:
    """The page as part of another one, such as a notebook's, in a frame of its own."""
    return frame(f"Report card of {card['run']['name']}", render(card))


def write(folder: str | Path, card: Card) -> Path:
    """Write report.json and report.html into a run's folder, each whole or not at all; gives the page's path."""
    folder = Path(folder)
    atomic_write(folder / "report.json", json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    atomic_write(folder / HTML, render(card))
    return folder / HTML


def _header(card: Card) -> str:
    run = card["run"]
    parts = [run["method"], run["precision"], facts.state(run)]
    when = run["started"]
    if isinstance(when, int | float):
        parts.append(datetime.fromtimestamp(when, UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"))
    elif when:
        parts.append(when)
    about = " · ".join(text(part) for part in parts if part)
    return (
        f'<header><p class="eyebrow">Report card of {text(run["name"])}</p>'
        f'<h1>{text(facts.title(run["model"]))} <span class="soft">on</span> {text(facts.data_title(card))}</h1>'
        f'<p class="summary">{prose(card["summary"])}</p><p class="soft">{about}</p></header>\n'
    )


def _of_kind(part: Card) -> str:
    """What only a classifier, a tagger or a model that answers questions has."""
    drawn = classification_page.render(part["classification"]), entity_page.render(part["entities"])
    return "".join([*drawn, question_page.render(part["questions"])])


def _of_task(part: Card) -> str:
    """One of several tasks: its figures, and those beside the same task trained alone."""
    title = f"<section><h2>{text(facts.task_title(part))}</h2></section>\n"
    return title + _tiles(part) + _measures(part) + _measures(part["alone"]) + _of_kind(part)


def _notes(card: Card) -> str:
    """What a reader must know before the figures, and what the run's own figures advise."""
    listed = _bullets([*card["run"]["warnings"], *card["advice"]])
    return f'<section class="notes">{listed}</section>\n' if listed else ""


def _bullets(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in lines)}</ul>" if lines else ""


def _tiles(card: Card) -> str:
    tiles = []
    for measure in card["measures"]:
        old, new = (figures.number(measure[side]["value"]) for side in ("before", "after"))
        rows = f"{figures.count(measure['rows'])} row{'s' * (measure['rows'] > 1)}" if measure["rows"] else ""
        below = ", ".join(part for part in (measure["unit"], rows) if part)
        tiles.append(
            f"<section><h2>{text(measure['title'])}</h2><div>"
            f'<div class="pair">{old} → <b>{new}</b></div><div class="detail">{text(below)}</div></div>'
            f"{_verdict(measure)}</section>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>\n' if tiles else ""


def _verdict(measure: Card) -> str:
    verdict = measure["verdict"]
    kind = f" {verdict}" if verdict in ("better", "worse") else ""
    return f'<span class="verdict{kind}">{text(verdict)}</span>' if verdict else ""


def _measures(card: Card) -> str:
    if not card["measures"]:
        return ""
    rows = []
    for measure in card["measures"]:
        change = measure["change"] or {"value": None, "interval": None, "percent": None}
        percent = change["percent"]
        share = f'<span class="range">{figures.signed(percent, 2)} %</span>' if percent is not None else ""
        rows.append(
            f'<tr><th scope="row">{text(measure["title"])}<span class="range">{text(measure["unit"])}</span>'
            f'<div class="detail">{text(measure["detail"])}</div></th>'
            f"<td>{figures.number(measure['before']['value'])}{_range(measure['before'])}</td>"
            f"<td>{figures.number(measure['after']['value'])}{_range(measure['after'])}</td>"
            f"<td>{figures.signed(change['value'])}{_range(change, sign=True)}{share}</td>"
            f'<td class="rows">{figures.count(measure["rows"])}</td><td class="said">{_verdict(measure)}</td></tr>'
        )
    after = "after" if card["compared"]["after"] != "step" else f"at step {figures.count(card['compared']['step'])}"
    before, after = card["compared"].get("before_name"), card["compared"].get("after_name") or after
    title = f"Beside the {before}" if before else "Before and after"
    return (
        f"<section><h2>{text(title)}, on rows that were not trained on</h2>"
        + table(["", before or "before", after, "change", "rows", ""], rows, "stacked")
        + "</section>\n"
    )


def _range(side: Card, sign: bool = False) -> str:
    ends = side.get("interval")
    return f'<span class="range">{figures.interval(ends[0], ends[1], sign)}</span>' if ends else ""


def _curves(card: Card) -> str:
    points = card["curves"]
    smoothed, width = curves.smooth(points["training"])
    lines = [
        curves.Line("training loss of each step", "raw", points["training"]),
        curves.Line(f"training loss, mean of {width} steps", "smooth", smoothed if len(smoothed) > width else []),
        curves.Line("held-out loss", "held", points["held_out"], dots=True),
    ]
    drawn = curves.draw(lines, "Training and held-out loss by step", "step", _loss_unit(card))
    return f"<section><h2>Loss</h2>{drawn}</section>\n" if drawn else ""


def _loss_unit(card: Card) -> str:
    """The unit of the curves: that of the held-out loss, else only "loss": of several tasks each has its own."""
    units = [measure["unit"] for measure in card["measures"] if measure["key"] == "held_out_loss"]
    return units[0] if units else "loss"


def _costs(card: Card) -> str:
    rows = []
    for line in card["planned"]:
        formatter = facts.FORMATTERS[line["unit"]]
        ratio = f"× {figures.number(line['ratio'])}" if line["ratio"] else ""
        rows.append(
            f'<tr><th scope="row">{text(line["what"])}</th><td>{formatter(line["planned"])}</td>'
            f"<td>{formatter(line['happened'])}</td><td>{ratio}</td></tr>"
        )
    costs = table(["", "planned", "happened", ""], rows, "costs") if rows else ""
    return f"<section><h2>What it cost</h2>{costs}{_list(facts.cost_lines(card))}</section>"


def _facts(card: Card) -> str:
    notes = _bullets(card["run"]["notes"])
    return f'<section class="run"><h2>The run</h2>{_list(facts.run_lines(card))}{notes}</section>\n'


def _list(lines: list[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{prose(line)}</dd>' for name, line in lines)}</dl>"


def _samples(card: Card) -> str:
    blocks = []
    for sample in card["samples"]:
        answers = "".join(
            f'<div class="{side}"><h4>{name}</h4><p>{text(sample[side])}</p></div>'
            for side, name in (("before", "before"), ("after", "after"), ("reference", "reference"))
            if sample[side] is not None
        )
        blocks.append(
            f'<div class="sample"><h3>{text(sample["prompt"])}</h3><div class="answers">{answers}</div></div>'
        )
    return f"<section><h2>Sample answers</h2>{''.join(blocks)}</section>\n" if blocks else ""


def _grown(card: Card) -> str:
    """How the answers to the same prompts changed while the model learned."""
    blocks = []
    for sample in card["progress"]:
        rows = [
            f'<tr><th scope="row">step {figures.count(step)}</th><td class="text">{text(answer)}</td></tr>'
            for step, answer in facts.spread_answers(sample["answers"], ANSWERS)
        ]
        if sample["reference"]:
            rows.append(
                f'<tr><th scope="row">the text</th><td class="text"><i>{text(sample["reference"])}</i></td></tr>'
            )
        blocks.append(f'<div class="sample"><h3>{text(sample["prompt"])}</h3>{table([], rows, "grown")}</div>')
    return f"<section><h2>How its answers changed</h2>{''.join(blocks)}</section>\n" if blocks else ""


def _recipe(card: Card) -> str:
    if not card["recipe"]:
        return ""
    return f"<section><details><summary>The recipe</summary><pre>{text(card['recipe'])}</pre></details></section>\n"
