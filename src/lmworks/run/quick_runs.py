"""What runs of models that train in seconds share: their start and end, and that a killed one is begun again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lmworks.base import machine, process_memory
from lmworks.base.energy import EnergyMeter
from lmworks.base.files import folder_size
from lmworks.base.journal import RunFolder
from lmworks.base.settings import to_yaml
from lmworks.reports import card, page
from lmworks.run import checks
from lmworks.run.classical_recipe import ClassicalRecipe
from lmworks.run.ngram_recipe import NgramRecipe
from lmworks.run.result import Run, Say, silent
from lmworks.text import python_rows


class QuickSetup(Protocol):
    """What a recipe becomes, with notes for the user."""

    notes: list[str]


R = TypeVar("R", ClassicalRecipe, NgramRecipe)
S = TypeVar("S", bound=QuickSetup)
SetUp = Callable[[R, list[dict[str, Any]] | None], S]
Stages = Callable[[RunFolder, S, Say], Run]


def start(recipe: R, set_up: SetUp[R, S], stages: Stages[S], say: Say | None, rows: list[dict[str, Any]] | None) -> Run:
    """Start a new run.

    Args:
        recipe: its settings; not changed.
        set_up: reads the data.
        stages: trains, saves and evaluates, and writes the journal from its first event on.
        say: called with each line of progress.
        rows: training data instead of the recipe's source; saved in the run's folder.

    Raises:
        InputError: anything about data or settings that cannot be used.
    """
    say, recipe = say or silent, recipe.model_copy(deep=True)
    recipe.out = recipe.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{recipe.model}"
    folder = Path(recipe.out)
    checks.check_folder(folder)
    if rows is not None:
        recipe.data.source = str(folder / python_rows.FILE)
    setup = set_up(recipe, rows)
    for line in setup.notes:
        say(line)
    run = RunFolder.create(folder, to_yaml(recipe))
    if rows is not None:
        python_rows.save(rows, folder / python_rows.FILE)
    return stages(run, setup, say)


def begin_again(
    folder: str | Path, resolve: Callable[[str], R], set_up: SetUp[R, S], stages: Stages[S], say: Say | None
) -> Run:
    """Finish a run that was killed: it is trained anew, on the same rows.

    Args:
        folder: of the run.
        resolve: the path of its recipe -> its settings.
        set_up, stages, say: as of :func:`start`.

    Raises:
        InputError: its recipe or its data cannot be read.
    """
    say, run = say or silent, RunFolder(folder)
    if run.events("finish"):
        say(f"{run.path} has finished already; see lmworks report {run.path}")
        if not (run.path / page.HTML).is_file():  # killed between its end and the report
            page.write(run.path, card.build(run.path))
        return Run(run.path, "finished")
    recipe = resolve(str(run.recipe))
    recipe.out = str(run.path)
    recipe.data.source = data_source(run, recipe.data.source)
    setup = set_up(recipe, None)
    say(f"resuming {run.path} from its beginning")
    run.write("resume")
    return stages(run, setup, say)


def data_source(run: RunFolder, source: str) -> str:
    """Where a run's rows are: in its folder if they were given in Python, else where its recipe says, seen from the
    directory in which it began."""
    if (run.path / python_rows.FILE).is_file():
        return str(run.path / python_rows.FILE)  # the folder may have moved
    began_in = Path(str(next(iter(run.events("start")), {}).get("working_directory", "")), source)
    return str(began_in) if began_in.exists() else source


def start_event(recipe: ClassicalRecipe | NgramRecipe, method: str, task: dict[str, Any]) -> dict[str, Any]:
    """What the journal's first event says.

    Args:
        recipe: of the run.
        method: what estimates the model.
        task: its name and, where no task of that name is registered, what is learned.
    """
    return {
        "model": recipe.model,
        "new": True,
        "data": recipe.data.source,
        "working_directory": str(Path.cwd()),
        "method": method,
        "task": task,
        "machine": machine.describe(),
        "precision": "float64",
    }


def finish(run: RunFolder, began: float, meter: EnergyMeter, parameters: int, **recorded: Any) -> Run:
    """Write the journal's last event and the report.

    Args:
        run: its folder; the model is in it.
        began: time.monotonic() when the run began.
        meter: started then.
        parameters: of the model.
        **recorded: further values of the event.
    """
    energy = meter.stop()
    run.write(
        "finish",
        seconds=time.monotonic() - began,
        peak_memory=process_memory.peak_memory(),
        energy={"joules": energy.joules, "how": energy.how, "assumption": energy.assumption},
        artefact={"path": str(run.final), "bytes": folder_size(run.final)},
        parameters={"total": parameters, "trainable": parameters},
        stopped="finished",
        **recorded,
    )
    run.sync()
    page.write(run.path, card.build(run.path))
    return Run(run.path, "finished")
