"""Fits a run into a memory budget: activation checkpointing (recompute) of as few blocks as possible, then smaller
rows, then the optimizer's moments in a file; otherwise an error.

The choice depends only on run/footprint, so the same settings on the same data give the same choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lmworks.base import figures
from lmworks.base.errors import InputError
from lmworks.model import sizes
from lmworks.run import footprint
from lmworks.run.footprint import TrainingSetup
from lmworks.train.paged_memory import is_available

MIN_ROW_TOKENS = 64  # smaller rows save no more memory
MARGIN = 0.03  # fraction of a budget that stays free, because the plan is an estimate and the budget must be met
ROUNDING = 0.01  # more than the rounding error of a size shown with three digits


@dataclass(frozen=True)
class MemoryFit:
    """A run that fits in memory.

    Attributes:
        setup: the run, with the settings that fit.
        note: for the user, what was changed; empty if nothing was.
    """

    setup: TrainingSetup
    note: str = ""


def choose(
    setups: Sequence[TrainingSetup], available: int, cheaper: Iterable[tuple[str, TrainingSetup]] = ()
) -> MemoryFit:
    """Settings with which a run fits in ``train.memory``, or in the machine's memory.

    Args:
        setups: the requested run in each precision that may be chosen, the preferred one first.
        available: bytes that the process may use in total.
        cheaper: other runs to suggest if none of these fits, each with the option that selects it.

    Raises:
        InputError: nothing fits; names the memory needed, the memory available, and changes that would fit.
    """
    for is_paged in (False, True):
        for setup in setups:
            fit = _fit(setup, available, is_paged)
            if fit is not None:
                return fit if setup is setups[0] else _in_another_precision(fit, setups[0], available)
    raise _refusal(min(setups, key=lambda setup: _smallest(setup).total), available, cheaper)


def fit_resumed(setup: TrainingSetup, available: int) -> MemoryFit:
    """Fit a resumed run into its budget by activation checkpointing (recompute) of more blocks only, since smaller rows
    would change its losses.

    Args:
        setup: as it was chosen when the run began.
        available: bytes that the process may use in total.

    Raises:
        InputError: the machine has too little memory now.
    """
    candidates = [
        setup.with_settings(recompute=blocks) for blocks in range(setup.train.recompute, layers(setup) + 1)
    ] or [setup]
    fit = next((candidate for candidate in candidates if fits(candidate, available)), candidates[-1])
    if fit.total > available:
        fault = f"the run needs {figures.byte_size(fit.total)}, this machine has {figures.byte_size(available)} now"
        raise InputError(fault, "memory", "end other programs, or resume it on a machine with more memory")
    if setup.train.memory is None:
        return MemoryFit(fit)
    outcome = f"within {_budget(setup)}" if fits(fit, available) else f"it may pass its budget of {_budget(setup)}"
    settings = f"{_checkpointing(fit)}, rows of {fit.train.row_capacity} tokens"
    return MemoryFit(fit, f"memory {figures.byte_size(fit.total)}, {outcome}: {settings}")


def fits(setup: TrainingSetup, available: int) -> bool:
    """Whether a run fits without changes."""
    return setup.total <= most_bytes(setup, available)


def _fit(setup: TrainingSetup, available: int, is_paged: bool) -> MemoryFit | None:
    """The first setup that fits; one that keeps the optimizer's moments in a file only if ``is_paged``."""
    limit = most_bytes(setup, available)
    if fits(setup, available):
        return MemoryFit(setup)
    if setup.train.memory is None:
        return None
    for smaller in _smaller(_paged(setup) if is_paged else setup):
        if smaller.total <= limit:
            return MemoryFit(smaller, _note(smaller, setup))
    return None


def most_bytes(setup: TrainingSetup, available: int) -> int:
    """The most bytes that a planned run may need."""
    if setup.train.memory is None:
        return available
    return round(min(figures.parse_byte_size(setup.train.memory), available) * (1 - MARGIN))


def _smaller(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    """Setups in order of decreasing memory: activation checkpointing of more and more blocks, then the same with rows
    of half the size, and so on."""
    rows, least = [setup.train.row_capacity], max(MIN_ROW_TOKENS, setup.row.longest)
    while setup.train.packing and rows[-1] > least:
        rows.append(max(least, rows[-1] // 2))
    for row_tokens in rows:
        candidate = setup.with_settings(row_tokens=row_tokens)
        for blocks in range(setup.train.recompute, layers(setup) + 1):
            yield candidate.with_settings(recompute=blocks)


def _paged(setup: TrainingSetup) -> TrainingSetup:
    """The setup with the optimizer's moments in a file, if the recipe leaves it open and that takes less memory."""
    paged = setup.with_settings(paged_optimizer=True)
    is_open = setup.train.paged_optimizer is None and is_available()
    return paged if is_open and paged.total < setup.total else setup


def _smallest(setup: TrainingSetup) -> TrainingSetup:
    """The setup with the least memory that activation checkpointing, small rows and a paged optimizer give."""
    return min(_smaller(_paged(setup)), key=lambda smaller: smaller.total)


def layers(setup: TrainingSetup) -> int:
    """Number of layers of all stacks."""
    return sum(stack.layers for stack in sizes.stacks(setup.config))


def _checkpointing(setup: TrainingSetup) -> str:
    return f"activation checkpointing (recompute) of {setup.recomputed} of {layers(setup)} blocks"


def _note(fitting: TrainingSetup, request: TrainingSetup) -> str:
    changes = []
    if fitting.recomputed > request.recomputed:
        changes.append(_checkpointing(fitting))
    if fitting.train.row_capacity < request.train.row_capacity:
        changes.append(f"rows have {fitting.train.row_capacity} tokens instead of {request.train.row_capacity}")
    if fitting.train.paged_optimizer and not request.train.paged_optimizer:
        size = figures.byte_size(fitting.state_bytes)
        changes.append(f"the optimizer's moments, {size}, lie in a file in the run's folder")
    return f"to stay within {_budget(request)}: " + ", ".join(changes)


def _in_another_precision(fit: MemoryFit, preferred: TrainingSetup, available: int) -> MemoryFit:
    """The fit with a note on why it is not in the preferred precision."""
    has_budget = preferred.train.memory is not None
    least = _smallest(preferred) if has_budget else preferred
    limit = _budget(preferred) if has_budget else f"the {figures.byte_size(available)} that are free"
    note = (
        f"{fit.setup.precision} instead of {preferred.precision}, which would need "
        f"{figures.byte_size(least.total)}, to stay within {limit}"
    )
    changes = fit.note.partition(": ")[2]
    return MemoryFit(fit.setup, f"{note}; {changes}" if changes else note)


def _budget(setup: TrainingSetup) -> str:
    return figures.byte_size(figures.parse_byte_size(str(setup.train.memory)))


def _refusal(setup: TrainingSetup, available: int, cheaper: Iterable[tuple[str, TrainingSetup]]) -> InputError:
    """The error with the memory needed, the memory available, and the cheapest changes that would fit."""
    train, limit = setup.train, most_bytes(setup, available)
    memory = figures.parse_byte_size(train.memory) if train.memory else None
    need = setup.total if memory is None else _smallest(setup).total
    place = "memory" if memory is None else "train.memory"
    if memory is None or memory > available:
        have = f"this machine has {figures.byte_size(available)}"
    else:
        have = f"the budget is {figures.byte_size(memory)}"
    fixed = footprint.parts(setup)["weights"] + setup.process.library_bytes
    fixed_note = f"; weights and libraries alone take {figures.byte_size(fixed)}" if fixed > limit else ""
    at_least = " at least" if memory is not None else ""
    fault = f"the run needs {figures.byte_size(need)}{at_least}, {have}{fixed_note}"
    return InputError(fault, place, " or ".join(_remedies(setup, available, cheaper)))


def _remedies(setup: TrainingSetup, available: int, cheaper: Iterable[tuple[str, TrainingSetup]]) -> list[str]:
    """Changes with which the run would fit, each one computed: the cheapest change of settings, and more memory."""
    train, limit = setup.train, most_bytes(setup, available)
    needed = _smallest(setup).total * (1 + ROUNDING) / (1 - MARGIN)
    remedies = []
    if train.memory is None and needed <= available:
        return [f"--memory {_option_value(available)}, within which the run uses activation checkpointing"]
    if train.optimizer_state == "float32" and _needed_bytes(setup.with_settings(optimizer_state="int8")) <= limit:
        remedies.append("--train.optimizer_state int8")
    elif not train.packing and (documents := _fewer_documents(setup, limit)):
        remedies.append(f"--train.batch_size {documents}")
    else:
        remedies += [option for option, candidate in cheaper if _needed_bytes(candidate) <= limit][:1]
    remedies.append(f"--memory {_option_value(needed)}" if needed <= available else "a machine with more memory")
    return remedies


def _needed_bytes(setup: TrainingSetup) -> int:
    """Peak bytes of a run; if it has a memory budget, with activation checkpointing and smaller rows."""
    return setup.total if setup.train.memory is None else _smallest(setup).total


def _fewer_documents(setup: TrainingSetup, limit: int) -> int:
    """For padded rows, the largest batch size, halved repeatedly, that fits; 0: none."""
    documents = setup.train.batch_size // 2
    while documents and _needed_bytes(setup.with_settings(batch_size=documents)) > limit:
        documents //= 2
    return documents


def _option_value(size: float) -> str:
    return figures.byte_size(size).replace(" ", "")
