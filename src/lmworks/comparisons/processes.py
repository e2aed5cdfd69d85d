"""Starts the processes of a comparison, one at a time, and reads what they give. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: the folder is then not locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def run_job(work: str, **job: Any) -> dict[str, Any]:
    """Run a job (a function of comparisons/worker) in a process of its own.

    Ctrl-C reaches that process too; it is waited for, so that it can save what it has. However it ends, the
    interruption is that of this process too: a signal may reach this one alone, or that one while it starts.

    Raises:
        InputError: the work was refused, or its process ended otherwise.
        KeyboardInterrupt: it was interrupted.
    """
    with tempfile.TemporaryDirectory(prefix="lmworks-") as scratch:
        job_file, result_file = Path(scratch, "job.json"), Path(scratch, "result.json")
        job_file.write_text(json.dumps({"work": work, "parent": os.getpid(), **job}), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "lmworks.comparisons.worker", str(job_file), str(result_file)]
        )
        code, is_interrupted = _wait(process)
        if is_interrupted or code == -signal.SIGINT:  # the latter: before it could say so
            raise KeyboardInterrupt
        if not result_file.is_file():
            place = str(job.get("out", work))
            fault = f"its process ended with exit code {code} (-9: killed, perhaps for want of memory)"
            raise InputError(fault, place, "see the lines above; less memory: --train.memory 2GB")
        values: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    if error := values.get("error"):
        raise InputError(error["fault"], error["place"], error["hint"])
    if values.get("stopped") == "interrupted":
        raise KeyboardInterrupt
    return values


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, bool]:
    """The exit code of a process, and whether this process was interrupted meanwhile."""
    is_interrupted = False
    while True:
        try:
            return process.wait(), is_interrupted
        except KeyboardInterrupt:
            is_interrupted = True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a comparison's folder, so that no other process works on it.

    Raises:
        InputError: one does, or the folder may not be written.
    """
    if fcntl is None:
        yield
        return
    try:
        lock = (folder / LOCK).open("w")
    except OSError as error:
        hint = "copy it to a place that you may write to, and go on with the copy"
        raise InputError(f"may not be written: {error.strerror}", str(folder), hint) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                "another process works on this comparison", str(folder), "wait until it has ended"
            ) from None
        yield
