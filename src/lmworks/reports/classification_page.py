"""The card's part about a classifier on its page: confusion and reliability as inline SVG, mistakes, words.

Colours come from the style sheet through classes; each cell and point has its own text, which a pointer shows.
"""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.base.figures import shorten
from lmworks.reports.classification import MOST_CLASSES
from lmworks.reports.markup import section, table, text

Part = dict[str, Any]
CELL, MARGIN, SIDE = 54, 110, 300
"""Sizes in units of the drawing, about a pixel each: of a cell, of the labels beside the cells, of the reliability."""
NAME = 14  # characters of a label beside the matrix


def render(part: Part | None) -> str:
    """The sections; empty for a card without a classifier."""
    if part is None:
        return ""
    pictures = "".join(filter(None, (_confusion(part), _reliability(part))))
    halves = f'<div class="halves">{pictures}</div>\n' if pictures else ""
    return f"{halves}{_mistakes(part)}{_words(part)}"


def _confusion(part: Part) -> str:
    if not part["confusion"]:
        return ""
    if len(part["labels"]) > MOST_CLASSES:
        rows = [
            f'<tr><th scope="row">{text(pair["label"])}</th><td>{text(pair["predicted"])}</td>'
            f"<td>{pair['rows']:,} of {pair['of']:,}</td></tr>"
            for pair in part["confusions"]
        ]
        return section("Most frequent confusions", table(["right label", "predicted", "rows"], rows))
    return section("Confusion matrix", f"<figure>{_matrix(part)}</figure>")


def _matrix(part: Part) -> str:
    """A cell for each right (row) and predicted (column) label, the darker the greater its share of the row."""
    labels, size = part["labels"], MARGIN + CELL * len(part["labels"])
    drawn = [
        f'<svg viewBox="0 0 {size} {size - MARGIN + 44}" role="img" class="matrix" '
        f'style="max-width: {1.3 * size:.0f}px" '
        f'aria-label="Confusion matrix: right labels are rows, predicted labels are columns">',
        f'<text x="{MARGIN}" y="12">predicted</text><text x="0" y="40">right label</text>',
    ]
    for number, label in enumerate(labels):
        middle = CELL * number + CELL / 2
        drawn.append(f'<text x="{MARGIN + middle}" y="36" text-anchor="middle">{text(shorten(label, 8))}</text>')
        name = text(shorten(label, NAME))
        drawn.append(f'<text x="{MARGIN - 8}" y="{44 + middle + 4}" text-anchor="end">{name}</text>')
    for right, row in enumerate(part["confusion"]):
        for predicted, count in enumerate(row):
            share = count / sum(row) if sum(row) else 0.0
            x, y = MARGIN + CELL * predicted, 44 + CELL * right
            tooltip = text(
                f"{shorten(labels[right])} predicted as {shorten(labels[predicted])}: "
                f"{figures.count_of(count, 'row')}, {figures.percent(share)} of {shorten(labels[right])}"
            )
            kind = "right" if right == predicted else "wrong"
            drawn.append(
                f'<rect class="{kind}" x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" rx="4" '
                f'fill-opacity="{share:.3f}" data-say="{tooltip}"><title>{tooltip}</title></rect>'
                f'<text class="count{" on" if share > 0.5 else ""}" x="{x + CELL / 2}" y="{y + CELL / 2 + 5}" '
                f'text-anchor="middle">{count:,}</text>'
            )
    return "".join([*drawn, "</svg>"])


def _reliability(part: Part) -> str:
    """Accuracy by confidence; on the diagonal a classifier is right as often as it says."""
    if not part["calibration"]:
        return ""
    left, top, most = 44, 28, max(count for *_, count in part["calibration"])

    def place(confidence: float, accuracy: float) -> tuple[float, float]:
        return left + SIDE * confidence, top + SIDE * (1 - accuracy)

    drawn = [
        f'<svg viewBox="0 0 {left + SIDE + 16} {top + SIDE + 42}" role="img" class="reliability" '
        'aria-label="Reliability: accuracy by confidence"><text x="0" y="12">accuracy</text>'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        drawn.append(f'<line class="grid" x1="{left}" x2="{left + SIDE}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text class="tick" x="{left - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        drawn.append(f'<text class="tick" x="{x}" y="{top + SIDE + 18}" text-anchor="middle">{tick:g}</text>')
    (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
    drawn.append(f'<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for confidence, accuracy, count in part["calibration"]:
        x, y = place(confidence, accuracy)
        tooltip = f"confidence {figures.number(confidence)}, accuracy {figures.number(accuracy)}, "
        tooltip = text(f"{tooltip}{figures.count_of(count, 'prediction')}")
        radius = 4 + 8 * (count / most) ** 0.5
        drawn.append(
            f'<circle class="bin" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" data-say="{tooltip}">'
            f"<title>{tooltip}</title></circle>"
        )
    middle = left + SIDE / 2
    drawn.append(f'<text x="{middle}" y="{top + SIDE + 38}" text-anchor="middle">confidence</text></svg>')
    error = f"accuracy by confidence; expected calibration error {figures.number(part['calibration_error'])}"
    return section("Reliability", f'<figure>{"".join(drawn)}</figure><p class="detail">{text(error)}</p>')


def _mistakes(part: Part) -> str:
    rows = [
        f'<tr><th scope="row">{figures.number(mistake["probability"])}</th><td class="text">'
        f'{text(mistake["predicted"])}</td><td class="text">{text(mistake["label"])}</td>'
        f'<td class="text">{text(mistake["text"])}<div class="detail">{text(mistake["place"])}</div></td></tr>'
        for mistake in part["mistakes"]
    ]
    if not rows:
        return ""
    heads = ["probability", "predicted", "right label", "text"]
    return section("Most confident mistakes", table(heads, rows, "mistakes"))


def _words(part: Part) -> str:
    rows = [
        f'<tr><th scope="row">{text(shorten(label))}</th><td class="text">'
        + ", ".join(f'<span title="{text(figures.signed(weight))}">{text(word)}</span>' for word, weight in words)
        + "</td></tr>"
        for label, words in part["heaviest_words"].items()
    ]
    return section("Heaviest words of each label", table([], rows, "grown")) if rows else ""
