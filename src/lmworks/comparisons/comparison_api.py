"""Comparisons as Python calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError, check_type
from lmworks.base.settings import build
from lmworks.comparisons import comparison, comparison_page, comparison_table, recommended_recipe
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State
from lmworks.run import api as runs
from lmworks.run.result import Run, Say


@dataclass(frozen=True)
class Comparison:
    """A comparison whose contenders have been run, or left out.

    Attributes:
        folder: with the runs of each contender, comparison.json and comparison.html.
        state: what comparison.json holds.
    """

    folder: Path
    state: State

    @property
    def results(self) -> list[Result]:
        """One a contender: ``title``, ``value`` with its ``interval``, ``difference`` from the best, ``cost``,
        ``forgetting`` ...; of one that was left out ``reason``."""
        return self.state.results

    @property
    def recommendation(self) -> dict[str, Any]:
        """The ``name`` and ``title`` of the contender to take, and ``reasons``."""
        return self.state.recommendation

    @property
    def remarks(self) -> list[str]:
        """What a reader must know: the time that was spent, what was left out or cut short and why."""
        return comparison_table.remarks(self.state)

    def run(self, name: str | None = None) -> Run:
        """The first final run of a contender; of the recommended one by default.

        Raises:
            InputError: it has no run, or none is recommended.
        """
        name = name or recommended_recipe.recommended_name(self.folder, self.state, "run")
        for result in self.state.done:
            if result.name == name and result.finals:
                return Run(self.folder / result.finals[0].folder, "finished")
        known = ", ".join(result.name for result in self.state.done if result.finals)
        raise InputError(f"has no run of {name!r}", str(self.folder), f"one of: {known}")

    def add(self, name: str, say: Say | None = None, **changes: Any) -> Comparison:
        """The comparison with one more contender, which is given as much time as the others had on average.

        Args:
            name: of the contender, or a new one.
            say: gets each line of progress.
            **changes: groups of its recipe that differ; of a new one with a ``method``: ``method="lora",
                lora={"rank": 2}``.

        Raises:
            InputError: there is no such contender, it is in the comparison, or it cannot be run.
        """
        return Comparison(self.folder, comparison.add(self.folder, name, say, **changes))

    def tune(self, name: str | None = None, out: str | Path | None = None, say: Say | None = None) -> Run:
        """Train a contender on all the data, with the learning rate and length that its search found.

        Args:
            name: of the contender; the recommended one by default.
            out: the run's folder; as of :func:`lmworks.tune`.
            say: gets each line of progress.

        Raises:
            InputError: there is no such contender, or nothing of it to train.
        """
        model, data, groups = recommended_recipe.settings_of(self.folder, self.state, name)
        return runs.tune(model, data, out=out, say=say, **groups)

    def _repr_html_(self) -> str:
        """Table and pictures, for notebooks."""
        return comparison_page.notebook_html(self.state)


def compare(
    model: str | Path | None = None,
    data: str | Path | None = None,
    /,
    *,
    methods: Sequence[str] = (),
    budget: str | float | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Comparison:
    """Compare ways to adapt a model to a data set, on the same rows, within a budget of time; and recommend one.

    Args:
        model: any source of a model; None: go on with the comparison in ``out``.
        data: a file, a named data set or ``hub:owner/name``.
        methods: names of contenders; default: all that can be compared.
        budget: time of the whole comparison: "90s", "20m" (default), "1h", or seconds.
        seeds: final trainings of each contender; default 1.
        out: the comparison's folder; a new one, or that of a comparison that was killed, which goes on with its own
            settings. Default: comparisons/<time>-<model>.
        say: gets each line of progress.
        **settings: further groups: ``data={"held_out": 0.3}``, ``train={"batch_size": 16}``,
            ``contender={"lora-r4": {"method": "lora", "lora": {"rank": 4}}}``.

    Raises:
        InputError: the model, the data or a setting cannot be used.
    """
    if model is None:
        check_type(out, (str, Path), "out", "give the folder of a comparison, or a model and data")
        if data is not None or methods or budget or seeds or settings:
            raise InputError("a comparison that was begun keeps its settings", str(out), "give out alone")
        return Comparison(Path(str(out)), comparison.resume(str(out), say))
    check_type(model, (str, Path), "model", "give any source of a model")
    check_type(data, (str, Path), "data", "give a file or a named data set")
    options = {"model": str(model), "source": str(data), "methods": list(methods), "budget": budget, "seeds": seeds}
    values = {name: value for name, value in options.items() if value is not None}
    folder = Path(out or default_folder(str(model)))
    built = build(CompareSettings, {**settings, **values}, "compare")
    return Comparison(folder, comparison.run_comparison(built, folder, say))


def default_folder(model: str) -> str:
    """Where a comparison is kept if nobody says where."""
    return f"comparisons/{time.strftime('%Y%m%d-%H%M%S')}-{Path(model).name}"
