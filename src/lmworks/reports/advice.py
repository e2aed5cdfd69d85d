"""The card's advice: train longer or less, by the held-out loss during training; and where memory passed its budget.

Reads the events of a journal and the settings of the run. Advice on the length is a command that can be given as it is.
"""

from __future__ import annotations

import math
import shlex
from typing import Any

from lmworks.base import figures
from lmworks.reports.measures import NEGLIGIBLE
from lmworks.reports.summary import FORGETTING

Card = dict[str, Any]
LONGER = 4  # times as long: a curve that still falls at its end is seldom flat after twice as many steps
PLAN_TOLERANCE = 1.1  # a peak of memory beyond this many times the plan is reported


def on_length(card: Card, train: dict[str, Any]) -> list[str]:
    """Whether the held-out loss says that training was too short or too long.

    Args:
        card: with its ``curves``, ``measures`` and ``run``.
        train: the group ``train`` of the run's settings.
    """
    points = card["curves"]["held_out"]
    if card["run"]["state"] != "finished" or len(points) < 2 or card["training"]["steps"] == 1:
        return []  # with one step there is no curve yet; n-grams are counted in one
    (_, previous), (last_step, last) = points[-2:]
    best_step, best = min(points, key=lambda point: point[1])
    if best_step == last_step:
        falling = previous - last > NEGLIGIBLE * abs(previous)
        return [f"The held-out loss was still falling: train longer, {_longer(card, train)}."] if falling else []
    if last - best <= NEGLIGIBLE * abs(best):
        return []
    return [_too_long(card, best_step, best, last)]


def _longer(card: Card, train: dict[str, Any]) -> str:
    if train.get("epochs") and not train.get("steps"):
        return _again(card, f"--train.epochs {math.ceil(LONGER * train['epochs'])}")
    return _again(card, f"--train.steps {LONGER * (train.get('steps') or card['training']['steps'])}")


def _again(card: Card, option: str) -> str:
    """The command of another run with the same recipe but for one setting."""
    run = card["run"]
    verb = "pretrain" if run["new"] else "tune"
    recipe, out = (shlex.quote(f"{run['path']}{end}") for end in ("/recipe.yaml", "-2"))
    return f"in a new run (lmworks {verb} {recipe} {option} --out {out})"


def _too_long(card: Card, step: float, best: float, last: float) -> str:
    since = f"The held-out loss rose after step {figures.count(step)}, from {figures.number(best)} to "
    since += f"{figures.number(last)}: "
    if step == 0:
        return f"{since}lower the learning rate (--train.learning_rate).{_forgetting(card)}"
    if card["training"]["best_step"] == step:
        return f"{since}the weights of that step were kept, more steps do not help.{_forgetting(card)}"
    return f"{since}train less, {_again(card, f'--train.steps {int(step)}')}.{_forgetting(card)}"


def _forgetting(card: Card) -> str:
    measure = next((measure for measure in card["measures"] if measure["key"] in FORGETTING), None)
    if measure is None or measure["verdict"] != "worse" or measure["change"]["percent"] is None:
        return ""
    return f" Another text is predicted {figures.number(measure['change']['percent'], 2)} % worse than before."


def on_memory(card: Card, train: dict[str, Any]) -> list[str]:
    """Where the peak of memory passed the budget that was given, or the plan by more than a tenth."""
    peak = card["costs"]["peak_memory"]
    planned = next((row["planned"] for row in card["planned"] if row["what"] == "peak memory"), None)
    if not peak:
        return []
    budget = figures.parse_byte_size(str(train["memory"])) if train.get("memory") else None
    if budget and peak > budget:
        held = figures.byte_size(peak)
        return [f"Memory passed its budget: {held} held at the peak, {figures.byte_size(budget)} allowed."]
    if planned and peak > PLAN_TOLERANCE * planned:
        return [
            f"Memory passed its plan: {figures.byte_size(peak)} held at the peak, {figures.byte_size(planned)} planned."
        ]
    return []
