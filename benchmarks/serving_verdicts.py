"""Figures of what clients got, the table, and what was asked of a server beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import arms
import numpy as np
import verdicts
from serving_servers import OURS
from verdicts import Rounds, Verdict

ALONE = "the engine alone"
SPEED, FIRST, GAP, WORST = "tokens_per_second_{}", "first_{}_{}", "gap_{}_{}", (50, 95, 99)
"""Keys of figures, by number of clients; of times also by percentile."""
MANY = 16
TIMES_PEER, SHARE_ALONE = 2.5, 0.95


def figures_of(came: Mapping[str, Mapping[str, Any]], tokenizer: Any) -> dict[str, float]:
    """Tokens a second, and percentiles of times in milliseconds, by number of clients.

    Args:
        came: by number of clients what serving_client.py prints.
        tokenizer: of the model.

    Raises:
        arms.Failed: an answer is not whole.
    """
    figures: dict[str, float] = {}
    for clients, level in came.items():
        if faults := [answer["fault"] for answer in level["answers"] if answer["fault"]]:
            raise arms.Failed(f"{len(faults)} of {len(level['answers'])} answers are not whole: {faults[0]}")
        tokens = sum(len(tokenizer.encode(answer["text"])) for answer in level["answers"])
        figures[SPEED.format(clients)] = tokens / level["seconds"]
        firsts = [answer["first"] for answer in level["answers"] if answer["first"] is not None]
        gaps = [gap for answer in level["answers"] for gap in answer["gaps"]]
        for key, values in ((FIRST, firsts), (GAP, gaps)):
            for percent in WORST if values else ():
                figures[key.format(clients, percent)] = 1000 * float(np.percentile(values, percent))
    return figures


def best_speed(rounds: Rounds, clients: int) -> float:
    """The best peer's tokens a second with so many clients; 0 where none was measured."""
    key = SPEED.format(clients)
    return max((verdicts.median(rounds, name, key) for name in peers(rounds) if key in rounds[name][0]), default=0.0)


def incomplete(rounds: Rounds) -> list[str]:
    """The peers that were asked by fewer clients than another one."""
    counts = {name: sum("tokens_per_second" in key for key in rounds[name][0]) for name in peers(rounds)}
    return [name for name, count in counts.items() if count < max(counts.values())]


def peers(rounds: Rounds) -> list[str]:
    """All servers but ours."""
    return [name for name in rounds if name not in (OURS, ALONE)]


def table(rounds: Rounds, clients: Sequence[int]) -> list[str]:
    """Medians over the rounds, a line for each arm and number of clients."""
    heads = ("clients", "tokens/s", *(f"first {p} %" for p in WORST), *(f"between {p} %" for p in WORST))
    lines = [f"{'(times in ms)':<46}" + "".join(f"{head:>13}" for head in heads)]
    for name in rounds:
        for count in clients:
            keys = [SPEED.format(count)]
            keys += [key.format(count, percent) for key in (FIRST, GAP) for percent in WORST]
            if keys[0] not in rounds[name][0]:
                continue
            values = [verdicts.median(rounds, name, key) if key in rounds[name][0] else None for key in keys]
            cells = [f"{'-' if value is None else f'{value:,.1f}':>13}" for value in values]
            lines.append(f"{name:<46}{count:>13}" + "".join(cells))
    return lines


def verdicts_of(rounds: Rounds) -> list[Verdict]:
    """All that is asked of a server."""
    key, one = SPEED.format(MANY), SPEED.format(1)
    able = [name for name in peers(rounds) if key in rounds[name][0]]
    peer = verdicts.best(rounds, able, key)
    why = "no peer ran to its end" if peer is None else "" if _has(rounds, OURS, key) else f"{OURS} did not run"
    ahead = None if why or peer is None else verdicts.ratio(rounds, OURS, peer, key)
    missing = [name for name in (OURS, ALONE) if not _has(rounds, name, one)]
    share = None if missing else verdicts.ratio(rounds, OURS, ALONE, one)
    return [
        Verdict(f"{MANY} clients: tokens/s beside {peer or 'the best peer'}", ahead, TIMES_PEER, why=why),
        Verdict(
            f"1 client: tokens/s beside {ALONE}",
            share,
            SHARE_ALONE,
            why=f"{' and '.join(missing)} did not run" if missing else "",
        ),
    ]


def _has(rounds: Rounds, name: str, key: str) -> bool:
    return bool(rounds.get(name)) and key in rounds[name][0]


def soak_verdicts(answers: int, lost: int, different: int, growth: float) -> list[Verdict]:
    """What is asked of 64 clients over minutes.

    Args:
        answers: that came.
        lost: requests without a whole answer.
        different: answers that are not those of the engine alone.
        growth: percent by which the memory of the last quarter exceeds that of the second.
    """
    why = "" if answers else "no answer came"
    return [
        Verdict(f"lost or truncated answers of {answers:,}", None if why else lost, 0, True, "", why),
        Verdict("answers that are not those of the engine alone", None if why else different, 0, True, "", why),
        Verdict("memory: last quarter beside the second", growth, 2, True, " %"),
    ]
