"""The plan of a run, made by ``lmworks plan`` in a process of its own, which ends with the request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from lmworks.studio.processes import COMMAND, environment

LABEL = re.compile(r"(\S+) {2,}(.*)")
"""A line of a plan: ``memory      1.2 GB (weights ...)``."""
LONGEST_LINE = 1 << 20


async def planning(words: Sequence[str], directory: Path) -> AsyncGenerator[dict[str, Any], None]:
    """What making a plan says while it is made, and the plan.

    Args:
        words: of the command, after ``lmworks``.
        directory: in which it is run.

    Yields:
        ``{"line": TEXT}`` of progress; at last what :func:`read_plan` gives, or ``{"failure": TEXT}``.
    """
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *words,
        cwd=directory,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        limit=LONGEST_LINE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        output, said = asyncio.ensure_future(process.stdout.read()), list[str]()
        async for line in process.stderr:
            said.append(line.decode("utf-8", errors="replace").rstrip())
            yield {"line": said[-1]}
        text = (await output).decode("utf-8", errors="replace")
        if await process.wait() == 0:
            yield read_plan(text)
        else:
            yield {"failure": failure_of(said)}
    finally:
        await _end(process)


def read_plan(text: str) -> dict[str, Any]:
    """The lines of a plan: ``rows`` of (label, text), and ``notes``."""
    rows: list[list[str]] = []
    notes: list[str] = []
    for line in text.splitlines():
        if match := LABEL.fullmatch(line):
            rows.append([match[1], match[2]])
        elif line.startswith(" ") and rows:  # more about the row above it
            rows[-1][1] += f"; {line.strip()}"
        elif line.strip():
            notes.append(line.strip())
    return {"rows": rows, "notes": notes}


def failure_of(lines: Sequence[str]) -> str:
    """What a command says of why it failed: its error with the hint, else its last line."""
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not errors:
        return next((line for line in reversed(lines) if line.strip()), "it ended without a word")
    first, *rest = lines[errors[-1] :]
    return "\n".join([first.removeprefix("error: "), *(line.strip() for line in rest)])


async def _end(process: Process) -> None:
    """End a process and those that it has started, if it has not ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
