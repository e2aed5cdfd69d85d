"""The card in one sentence: what came out of a run, what it is worth, what was forgotten, and the time it took.

The headline is the first figure of the task that both evaluations have. Where another figure surely says
otherwise, as a loss over all held-out rows may where the answers are few, the sentence has both.
"""

from __future__ import annotations

from typing import Any

from lmworks.base import figures
from lmworks.tasks.figures import ANSWERS, GENERAL_BITS, GENERAL_LOSS
from lmworks.tasks.registry import TASKS

Card = dict[str, Any]
FORGETTING = (GENERAL_BITS.key, GENERAL_LOSS.key)


def headline(measures: list[Card]) -> Card | None:
    """The figure that says what a run was worth; None where none has two sides."""
    compared = [measure for measure in measures if measure["change"] and measure["key"] not in FORGETTING]
    return compared[0] if compared else None


def sentence(card: Card) -> str:
    """What a person should know who reads nothing else of the card."""
    measure = headline(card["measures"])
    parts = [_unmeasured(card)]
    if measure:
        other = _otherwise(measure, card["measures"])
        shown = [measure] if other is None else sorted((measure, other), key=lambda shown: not _is_sure(shown))
        parts = [_result(shown[0], card), *(_lower(_result(second, card)) for second in shown[1:])]
        parts += [part for part in (_baseline(measure), _forgetting(card)) if part]
    by_task = [_of_task(part) for part in card.get("tasks") or []]
    parts = [part for part in by_task if part] or parts
    seconds = card["costs"]["seconds"]
    if seconds:
        verb = "the run took" if card["run"]["state"] == "finished" else "so far it took"
        parts.append(f"{verb} {figures.duration(seconds)}")
    return f"{'; '.join(parts)}."


def _of_task(part: Card) -> str:
    """What came out of one of several tasks; empty where nothing was compared."""
    measure = headline(part["measures"])
    return f"{part['name']}: {_lower(_result(measure, part))}" if measure else ""


def _otherwise(measure: Card, measures: list[Card]) -> Card | None:
    """The first other figure that is surely better or worse, where the headline is not the same."""
    others = [other for other in measures if other is not measure and other["key"] not in FORGETTING]
    return next((other for other in others if _is_sure(other) and other["verdict"] != measure["verdict"]), None)


def _is_sure(measure: Card) -> bool:
    return measure["verdict"] in ("better", "worse")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _result(measure: Card, card: Card) -> str:
    before, after = (figures.number(measure[side]["value"]) for side in ("before", "after"))
    unit = f" {measure['unit']}" if measure["unit"] else ""
    when = f" at step {figures.count(card['compared']['step'])}" if card["compared"]["after"] == "step" else ""
    title = f"Answers, {measure['title']}" if measure["key"] == ANSWERS.key else measure["title"]
    name = card["compared"].get("before_name")
    if name:
        return f"{title}: {after}{unit}, of the {name} {before}: {_worth(measure)}"
    return f"{title}: {before} before, {after}{unit} after{when}, {_worth(measure)}"


def _worth(measure: Card) -> str:
    """The verdict with what it rests on."""
    verdict, ends = measure["verdict"], measure["change"]["interval"]
    if ends is None:
        return str(verdict)
    interval, rows = figures.interval(ends[0], ends[1], True), figures.count(measure["rows"])
    rests_on = f"95 % interval of the change {interval} over {rows} rows"
    value = measure["change"]["value"]
    if verdict in ("better", "worse"):
        return f"{verdict} by {figures.number(abs(value))} ({rests_on})"
    return f"{'a negligible change' if verdict == 'negligible' else verdict} ({rests_on})"


def _baseline(measure: Card) -> str:
    """What the commonest label alone would reach."""
    baseline = measure.get("baseline")
    if not baseline:
        return ""
    return (
        f"the commonest label alone, {figures.shorten(baseline['label'])}, reaches {figures.number(baseline['value'])}"
    )


def _has_language_head(card: Card) -> bool:
    """Whether the task trains a language head: without one nothing predicts another text."""
    name = (card["run"].get("task") or {}).get("name")
    return name not in TASKS or TASKS[name].needs_language_head


def _forgetting(card: Card) -> str:
    """What became of a text that has nothing to do with the data; empty for a new model, which forgets nothing."""
    if card["run"]["new"]:
        return ""
    measure = next((measure for measure in card["measures"] if measure["key"] in FORGETTING), None)
    if measure is None or not measure["change"]:
        return "forgetting was not measured" if _has_language_head(card) else ""
    percent = measure["change"]["percent"]
    if measure["verdict"] == "worse":
        change = (
            f"{figures.number(percent, 2)} %" if percent is not None else figures.number(measure["change"]["value"])
        )
        return f"forgetting: another text is predicted {change} worse"
    if measure["verdict"] in ("better", "negligible", "no difference measured"):
        return "nothing forgotten: another text is predicted as well as before"
    return f"forgetting: {measure['verdict']}"


def _unmeasured(card: Card) -> str:
    if card["run"]["state"] != "finished":
        return "The run is not finished and has nothing to compare yet"
    return "Nothing was measured both before and after, so what the run is worth is not known"
