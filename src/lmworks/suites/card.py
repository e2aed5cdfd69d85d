"""An evaluation in words and cells: a line for each score, what was left out, the signatures."""

from __future__ import annotations

from lmworks.base import figures
from lmworks.evaluate.metric_score import MetricScore
from lmworks.suites.registry import read_suite, suite_names
from lmworks.suites.suite_run import Evaluation

HEADS = ["benchmark", "metric", "score", "95 % interval", "rows", "asked by", "time"]
SPARE = ["time", "asked by", "rows"]
SHOWN_GROUPS = 12


def heading(evaluation: Evaluation) -> str:
    """What was evaluated, in a line."""
    return f"{evaluation.model} on {evaluation.suite} ({evaluation.signature})"


def cells(evaluation: Evaluation) -> list[list[str]]:
    """A row of cells for each score."""
    rows = []
    for result in evaluation.results:
        for number, score in enumerate(result.scores):
            first = [result.name, score.title] if number == 0 else ["", score.title]
            last = [f"{score.rows:,}", *([result.by, figures.duration(result.seconds)] if number == 0 else ["", ""])]
            rows.append([*first, _value(score), _interval(score), *last])
    return rows


def remarks(evaluation: Evaluation) -> list[str]:
    """What a reader must know: notes, groups, and what was left out and why."""
    lines = []
    for result in evaluation.results:
        lines += [f"{result.name}: {note}" for note in result.notes]
        for score in result.scores[:1]:
            groups = score.details.get("groups", {})
            if 1 < len(groups) <= SHOWN_GROUPS:
                listed = ", ".join(f"{name} {figures.number(value)}" for name, value in groups.items())
                lines.append(f"{result.name}, {score.title} by group: {listed}")
    lines += [f"left out: {entry.name}: {entry.reason}" for entry in evaluation.left_out]
    return lines


SENSITIVITY_HEADS = ["benchmark", "metric", "form of the prompt", "score", "other answers"]


def sensitivity_cells(evaluation: Evaluation) -> list[list[str]]:
    """A row of cells for each form of each prompt, and one for the spread."""
    rows = []
    for entry in evaluation.sensitivity:
        if entry.variants:
            rows.append([entry.benchmark, entry.title, "as above", figures.number(entry.value), ""])
            rows += [
                ["", "", variant.name, figures.number(variant.value), figures.percent(variant.changed)]
                for variant in entry.variants
            ]
            rows.append(["", "", "spread", figures.number(entry.spread), ""])
    return rows


def sensitivity_remarks(evaluation: Evaluation) -> list[str]:
    """Forms that there are none of, and why."""
    return [f"{entry.benchmark}, no other {reason}" for entry in evaluation.sensitivity for reason in entry.left_out]


def signatures(evaluation: Evaluation) -> list[str]:
    """The signature of each score."""
    return [str(score.signature) for result in evaluation.results for score in result.scores]


def suite_cells() -> list[list[str]]:
    """A row of cells for each benchmark that comes with lmworks: suite, name, what is asked, source, files."""
    rows = []
    for name in suite_names():
        suite = read_suite(name)
        for place, (benchmark, about) in enumerate(suite.benchmarks.items()):
            file = about.layouts[0].file.replace("{split}", about.layouts[0].split)
            rows.append([name if place == 0 else "", benchmark, about.about, about.source, file])
        if suite.includes:
            rows.append([name, ", ".join(suite.includes), suite.about, "", ""])
    return rows


def _value(score: MetricScore) -> str:
    return figures.number(score.value)


def _interval(score: MetricScore) -> str:
    return figures.interval(*score.interval) if score.interval else figures.UNKNOWN
