"""Commands that go on when the browser or the server ends: each in a session of its own, known by what is on the disk.

Beside the folder of a run, ``runs/faq``, lies ``runs/.faq.process``: ``process.json`` names the command, its process
and when that began, ``output.txt`` has all that it wrote. (The run's own folder must be empty when the run begins.) A
process is alive where one of that number began at that time, whichever server asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, make_folder
from lmworks.base.json_file import read_object

SUFFIX = ".process"
RECORD, OUTPUT = "process.json", "output.txt"
COMMAND = [sys.executable, "-m", "lmworks.commands.main"]
SAME_START = 1.0
"""Seconds by which the start of a process may be read differently: the system counts it from the boot, whose time is
derived from the clock."""
MOST_OUTPUT = 256_000
"""Bytes of the output that are read, from its end."""

_starting = threading.Lock()
"""Held while a process is started, so that two requests do not start two of one run."""


@dataclass(frozen=True)
class RunProcess:
    """The process that works, or last worked, on a run.

    Attributes:
        words: of its command, after ``lmworks``.
        pid: its number, which is that of its session too.
        started: seconds since 1970.
        stops: how often it was asked to stop.
    """

    words: list[str]
    pid: int
    started: float
    stops: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.started) <= SAME_START
        except psutil.Error:
            return False


def start(run: Path, words: Sequence[str], directory: Path) -> RunProcess:
    """Start a command for a run, whose output is added to that of earlier ones.

    Args:
        run: its folder, which need not exist.
        words: of the command, after ``lmworks``.
        directory: in which it is run.

    Raises:
        InputError: a process works on the run, or the place cannot be written.
    """
    folder = _folder(run)
    with _starting:
        if (earlier := read(run)) is not None and earlier.is_alive:
            raise InputError("is being worked on already", run.name, "wait until it ends, or stop it")
        make_folder(folder)
        with (folder / OUTPUT).open("ab") as output:
            process = subprocess.Popen(
                [*COMMAND, *words],
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # else an ended one would stay as a zombie
        record = RunProcess(list(words), process.pid, _start_of(process.pid))
        _write(folder, record)
    return record


def read(run: Path) -> RunProcess | None:
    """The process of a run; None where none was started by a studio, or its record is damaged."""
    try:
        return RunProcess(**read_object(_folder(run) / RECORD))
    except (InputError, TypeError):
        return None


def stop(run: Path) -> None:
    """Ask the process of a run to stop, as Ctrl-C does: with the processes that it has started; the second time it does
    not finish its step.

    Raises:
        InputError: no process of a studio works on it.
    """
    process = read(run)
    if process is None or not process.is_alive:
        raise InputError("no process of the studio works on it", run.name, "it has ended, or stop it where it runs")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    _write(_folder(run), RunProcess(process.words, process.pid, process.started, process.stops + 1))


def forget(run: Path) -> None:
    """Remove what is kept of the process of a run; the run itself stays.

    Raises:
        InputError: it is alive.
    """
    if (process := read(run)) is not None and process.is_alive:
        raise InputError("is being worked on", run.name, "stop it first")
    shutil.rmtree(_folder(run), ignore_errors=True)


def runs_with_process(folder: Path) -> Iterator[Path]:
    """The folders of the runs directly in a folder for which a process was started; they may be gone."""
    for record in sorted(folder.glob(f".*{SUFFIX}/{RECORD}")):
        yield folder / record.parent.name[1 : -len(SUFFIX)]


def output_of(run: Path, begin: int = 0) -> tuple[str, int]:
    """What the processes of a run have written.

    Args:
        run: its folder.
        begin: bytes that are left out at the beginning.

    Returns:
        the text, of which the beginning is left out where it is very long, and the bytes up to its end.
    """
    path = _folder(run) / OUTPUT
    if not path.is_file():
        return "", begin
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - MOST_OUTPUT))
        content = file.read()
        return content.decode("utf-8", errors="replace"), file.tell()


def environment() -> dict[str, str]:
    """The environment of a command whose output is kept: plain, in UTF-8, written at once."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}


def _folder(run: Path) -> Path:
    return run.with_name(f".{run.name}{SUFFIX}")


def _write(folder: Path, process: RunProcess) -> None:
    atomic_write(folder / RECORD, json.dumps(asdict(process), indent=1) + "\n")


def _start_of(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:  # it has ended
        return 0.0
