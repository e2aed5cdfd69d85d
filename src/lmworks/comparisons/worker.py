"""The process of one piece of work of a comparison: python -m lmworks.comparisons.worker JOB RESULT.

Each run has a process of its own, so that its peak of memory is its own. JOB and RESULT are JSON files; the result is
{"error": {...}} where an input is refused. The process ends when the one that started it has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.journal import JOURNAL, RunFolder

Job = dict[str, Any]
STARTED = time.monotonic()


def plan(job: Job) -> dict[str, Any]:
    """The plans of contenders, by name: what a run of each needs; of one that cannot be run ``reason``. Takes minutes,
    so that its progress is shown on standard error.

    Args:
        job: "model", "data"; "contenders": name -> groups of its recipe.
    """
    from lmworks.base import process_memory
    from lmworks.run import setup  # noqa: F401 - imports what a run does, so that the time is known
    from lmworks.train.progress import EvaluationProgress

    process = time.monotonic() - STARTED  # a run's process imports the same
    plans: dict[str, Any] = {}
    with EvaluationProgress("planning") as progress:
        progress.begin("contenders", len(job["contenders"]))
        for name, groups in job["contenders"].items():
            try:
                plans[name] = {"process": process, **_plan_of(name, groups, job)}
            except InputError as error:
                plans[name] = {"reason": error.fault, "place": error.place, "hint": error.hint}
            process_memory.release_memory()  # else the memory of the models before would be planned for
            process_memory.reset_peak_memory()
            progress.advance(1)
    return plans


def _plan_of(name: str, groups: dict[str, Any], job: Job) -> dict[str, Any]:
    """The plan of a contender; see comparison_state.Result.plan."""
    from lmworks.comparisons.contender_recipes import data_and_groups
    from lmworks.run import recipe as recipes
    from lmworks.run.setup import set_up

    began = time.monotonic()
    data, others = data_and_groups(groups, job["data"])
    recipe = recipes.resolve({**others, "model": job["model"], "data": data}, name)
    is_set = "epochs" in recipe.train.model_fields_set
    setup = set_up(recipe)
    plan, epochs = setup.plan, recipe.train.epochs
    choosing = 0.0 if setup.method.trains else plan.seconds.get("training", 0.0)
    return {
        "task": setup.task.name,
        "start": time.monotonic() - began - sum(setup.preparation.values()) + choosing,
        "epoch": plan.seconds.get("training", 0.0) / epochs,
        "steps": plan.steps / epochs,
        "evaluation": plan.seconds.get("after", 0.0),
        "before": plan.seconds.get("before", 0.0),
        "most_epochs": epochs,
        "is_length_set": is_set,
        "parameters": plan.parameters,
        "trainable": plan.trainable,
        "memory": plan.memory.get("total"),
        "token": plan.seconds.get("training", 0.0) / max(1, plan.tokens),
        "learning_rate": recipe.train.learning_rate,
        "note": plan.note,
    }


def run(job: Job) -> dict[str, Any]:
    """Begin a run, or go on with it.

    Args:
        job: "model", "data", "out", "groups": groups of its recipe.
    """
    from lmworks.run import api

    folder = Path(job["out"])
    if (folder / JOURNAL).is_file() and RunFolder(folder).events("start"):
        ended = api.resume(folder)
    else:
        ended = api.tune(job["model"], job["data"], out=folder, **job["groups"])
    return {"stopped": ended.stopped}


def nearest(job: Job) -> dict[str, Any]:
    """Answer as the nearest training row does.

    Args:
        job: "data", "out", "task", "rows" and "samples" to answer and to keep.
    """
    from lmworks.comparisons import nearest_answer

    nearest_answer.run(job["data"], job["task"], job["rows"], job["samples"], Path(job["out"]))
    return {}


def measure(job: Job) -> dict[str, Any]:
    """Measure what a run's result costs in use, what it forgot and what it memorised, as far as its kind can.

    Args:
        job: "run"; "parts": which of in_use, forgetting, memorisation; "canaries": how many were made, with
            "kind"; "retained": a file that keeps what the base can do.
    """
    from lmworks.comparisons import measuring

    return measuring.measure(job)


WORK: dict[str, Callable[[Job], dict[str, Any]]] = {"plan": plan, "run": run, "nearest": nearest, "measure": measure}


def main(arguments: list[str]) -> int:
    """Do the work that a file describes.

    Args:
        arguments: the files of job and result.
    """
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        _end_with_parent(job["parent"])
        result = WORK[job["work"]](job)
    except InputError as error:
        result = {"error": {"fault": error.fault, "place": error.place, "hint": error.hint}}
    except KeyboardInterrupt:
        result = {"stopped": "interrupted"}
    atomic_write(Path(arguments[1]), json.dumps(result))
    return 0


def _end_with_parent(parent: int) -> None:
    """Stop as Ctrl-C does when the process that started this one has ended, by whatever signal.

    Args:
        parent: its process id, which this process may be too late to ask for.
    """
    if os.name == "nt":  # Python may be started by another program there, which is the parent
        parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)  # for the step that is going on, and its checkpoint
        os._exit(130)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
