"""A run within a budget of memory: the fewest blocks computed again that fit, then smaller rows; else a clear refusal.

Chooses by footprint's figures alone, so the same settings on the same data give the same choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.run import footprint
from lmworks.run.footprint import Job
from lmworks.train.settings import TrainSettings

SMALLEST = 64  # tokens of a row below which nothing more is gained
MARGIN = 0.03  # of a budget that is left free: it is kept, where a plan is only near


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        recompute, row_tokens: settings of training.
        note: what a person should know; empty where nothing had to be changed.
    """

    recompute: int
    row_tokens: int
    note: str = ""


def choose(job_of: Callable[[TrainSettings], Job], train: TrainSettings, free: int) -> Choice:
    """How to train within ``train.memory``, or within what the machine has.

    Args:
        job_of: the run that given settings make.
        train: the settings asked for.
        free: bytes that the process may hold in all; a run that needs more is refused.

    Raises:
        InputError: nothing fits; says what is needed, what is there, and the cheapest change that would do.
    """
    job = job_of(train)
    asked = figures.parse_storage(train.memory) if train.memory else None
    most = min(asked, free) if asked else free
    need = footprint.parts(job)["total"]
    most = round(most * (1 - MARGIN)) if asked else most
    if need <= most:
        return Choice(train.recompute, train.room)
    if asked is None:
        raise _refusal(job_of, train, need, most, "memory", "this machine has")
    for row_tokens in _rows(train, job):
        tried = job_of(train.model_copy(update={"row_tokens": row_tokens}))
        for blocks in range(train.recompute, footprint.layers(job.config) + 1):
            if footprint.parts(tried.changed(recompute=blocks))["total"] <= most:
                return Choice(blocks, row_tokens, _note(blocks, row_tokens, train, job, asked))
    have = "the budget is" if asked <= free else "this machine has"
    raise _refusal(job_of, train, _least(job_of, train), most, "train.memory", have)


def _rows(train: TrainSettings, job: Job) -> list[int]:
    """Row sizes to try: the one asked for, then halves of it, never below the longest document."""
    found = [train.room]
    least = max(SMALLEST, job.rows.longest)
    while train.packing and found[-1] > least:
        found.append(max(least, found[-1] // 2))
    return found


def _least(job_of: Callable[[TrainSettings], Job], train: TrainSettings) -> int:
    """The smallest need that computing again and small rows reach."""
    job = job_of(train)
    smallest = job_of(train.model_copy(update={"row_tokens": _rows(train, job)[-1]}))
    counts = range(footprint.layers(job.config) + 1)
    return min(footprint.parts(smallest.changed(recompute=blocks))["total"] for blocks in counts)


def _note(blocks: int, row_tokens: int, train: TrainSettings, job: Job, most: int) -> str:
    said = []
    if blocks > train.recompute:
        said.append(f"{blocks} of {footprint.layers(job.config)} blocks are computed again on the way back")
    if row_tokens < train.room:
        said.append(f"rows have {row_tokens} tokens instead of {train.room}")
    return f"to stay within {figures.storage(most)}: " + ", ".join(said)


def _refusal(
    job_of: Callable[[TrainSettings], Job], train: TrainSettings, need: int, most: int, place: str, have: str
) -> InputError:
    """Cheapest first: what costs nothing but time, then what changes the run, then more memory."""
    least = _least(job_of, train)
    job = job_of(train)
    hints = []
    if place == "memory" and least <= most:
        hints.append(f"--memory {figures.storage(most).replace(' ', '')}, which computes activations again")
    if train.optimizer_state == "float32":
        short = footprint.parts(job.changed(optimizer_state="int8"))["optimizer"]
        if least - footprint.parts(job)["optimizer"] + short <= most:
            hints.append("--train.optimizer_state int8")
    if train.batch_size > 1 and not train.packing:
        hints.append("packing, or a smaller --train.batch_size")
    if job.adapted is None:
        hints.append("--method lora, where a model is adapted; a smaller model else")
    weights = footprint.parts(job)["weights"] + job.library
    told = figures.parse_storage(train.memory) if train.memory and have == "the budget is" else most
    below = f"; weights and libraries alone take {figures.storage(weights)}" if weights > most else ""
    hints.append(
        f"--memory {figures.storage(least * 1.01 / (1 - MARGIN)).replace(' ', '')}"
        if place != "memory"
        else "a machine with more memory"
    )
    fault = f"the run needs {figures.storage(need)} at least, {have} {figures.storage(told)}{below}"
    return InputError(fault, place, " or ".join(hints[:1] + hints[-1:] if len(hints) > 1 else hints))
