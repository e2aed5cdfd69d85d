"""A run is a folder: the recipe it ran with, and a journal with one JSON line an event.

The journal is only ever appended to. It is what resuming, comparing and the report card read, so each line is
valid JSON, numbers keep every bit, and a training step stands in it once: when a resumed run repeats a step, the
two are compared instead. Knows nothing of what the events mean, except ``step``.
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, full_disk, is_full

try:
    import fcntl
except ImportError:  # Windows: the folder is then not locked
    fcntl = None  # type: ignore[assignment]

JOURNAL = "journal.jsonl"
UNCOMPARED = ("time", "seconds")
"""What may differ when a step is repeated: how long it took and when."""

Event = dict[str, Any]


class RunFolder:
    """A run on the disk.

    Opening reads and changes nothing. The first write locks the journal for this process until it ends or the folder
    is closed, and cuts off a last line that a killed process left unfinished.

    Attributes:
        path: the folder.
        recipe: its ``recipe.yaml``.
        journal: its ``journal.jsonl``.
        checkpoints: the folder of checkpoints; not made here.
        final: the folder of the result; not made here.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens a run that exists.

        Raises:
            InputError: the folder is no run.
        """
        self.path = Path(path)
        self.recipe, self.journal = self.path / "recipe.yaml", self.path / JOURNAL
        self.checkpoints, self.final = self.path / "checkpoints", self.path / "final"
        self._writer: _Writer | None = None
        if not self.journal.is_file():
            fault = f"has no {JOURNAL}: it is no run" if self.path.is_dir() else "there is no such folder"
            raise InputError(
                fault, str(self.path), "give the folder of a run, as --out or the first lines of tune name it"
            )

    @classmethod
    def create(cls, path: str | Path, recipe_yaml: str) -> RunFolder:
        """Makes the folder of a new run.

        Raises:
            InputError: there is something in that folder already, or no room.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            goes_on = f", or go on with it: lmworks resume {path}" if (path / JOURNAL).is_file() else ""
            hint = f"choose another with --out{goes_on}"
            raise InputError("is there already and not empty", str(path), hint)
        atomic_write(path / "recipe.yaml", recipe_yaml)
        atomic_write(path / JOURNAL, b"")
        return cls(path)

    def write(self, event: str, **fields: Any) -> Event:
        """Appends an event, with its time (seconds since 1970), and hands it to the system at once.

        A number that JSON has not (NaN, infinity) becomes null, and ``not_finite`` names it. A ``step`` that the
        journal has already is compared with it: an equal one is not written again; otherwise an event ``divergence``
        is written that holds both.

        Returns:
            the event as the journal has it; of an equal step, the earlier one.

        Raises:
            InputError: another process writes this run, or the disk is full. The journal is then as it was.
        """
        line = _plain({"event": event, **fields})
        line.setdefault("time", round(time.time(), 3))
        if self._writer is None:
            self._writer = _Writer.of(self.journal)
        if event == "step":
            earlier = self._writer.steps.get(line["step"])
            if earlier is not None:
                return self._compare(earlier, line)
        self._writer.append(line)
        if event == "step":
            self._writer.steps[line["step"]] = line
        return line

    def _compare(self, earlier: Event, line: Event) -> Event:
        names = dict.fromkeys([*earlier, *line])
        differ = [n for n in names if n not in UNCOMPARED and earlier.get(n) != line.get(n)]
        if not differ:
            return earlier
        was, now = ({name: event.get(name) for name in differ} for event in (earlier, line))
        return self.write("divergence", step=line["step"], was=was, now=now)

    def events(self, kind: str | None = None) -> list[Event]:
        """All events, or those of one kind, in order. A last line that is not finished is left out.

        Raises:
            InputError: a line before the last is no event.
        """
        events = (event for event, _ in _read(self.journal))
        return [event for event in events if kind is None or event["event"] == kind]

    def sync(self) -> None:
        """Waits until all that was written is on the disk itself."""
        if self._writer is not None:
            self._writer.sync()

    def close(self) -> None:
        """Lets go of the lock, once no other RunFolder of this process holds it."""
        self._writer = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"


def is_locked(folder: str | Path) -> bool:
    """Whether a process writes this run now; False where the system has no locks."""
    if fcntl is None:
        return False
    with (Path(folder) / JOURNAL).open("rb") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class _Writer:
    """The one open journal of a process: its lock, its end, and the steps it has. Shared by RunFolders of one path."""

    shared: ClassVar[weakref.WeakValueDictionary[tuple[int, str], _Writer]] = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, path: Path) -> _Writer:
        key = (os.getpid(), os.path.realpath(path))
        writer = cls.shared.get(key)
        if writer is None:
            writer = cls.shared[key] = cls(path)
        return writer

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle = os.open(path, os.O_RDWR)
        if fcntl is not None:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hint = "wait until it ends, or stop it"
                raise InputError("another process is writing this run", str(path.parent), hint) from None
        self.end = 0
        self.steps: dict[int, Event] = {}
        for event, end in _read(path):
            self.end = end
            if event["event"] == "step":
                self.steps[event["step"]] = event
        os.ftruncate(self.handle, self.end)

    def append(self, line: Event) -> None:
        data = json.dumps(line, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        try:
            count = 0
            while count < len(data):
                count += os.pwrite(self.handle, data[count:], self.end + count)
        except OSError as error:
            os.ftruncate(self.handle, self.end)
            if is_full(error):
                raise full_disk(self.path, len(data)) from error
            raise
        self.end += len(data)

    def sync(self) -> None:
        os.fsync(self.handle)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


def _read(path: Path) -> Iterator[tuple[Event, int]]:
    """Each event with the place in the file where its line ends."""
    data = path.read_bytes()
    start = 0
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        start += len(line) + 1
        try:
            event = json.loads(line)
            event["event"]
        except (ValueError, KeyError, TypeError):
            if start == len(data):  # a power cut can leave zeros and an end of line
                return
            hint = "restore the line, or delete it where it is nothing but damage"
            raise InputError("is no event of a journal", f"{path}:{number}", hint) from None
        yield event, start


def _plain(fields: Event) -> Event:
    """The value in types that JSON has."""
    odd: dict[str, str] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, bool | str | int) or value is None:
            return value
        if isinstance(value, float):
            if math.isfinite(value):
                return float(value)
            odd[name] = repr(float(value))
            return None
        if isinstance(value, dict):
            return {str(key): plain(inner, f"{name}.{key}" if name else str(key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner, f"{name}[{index}]") for index, inner in enumerate(value)]
        if hasattr(value, "item"):  # a scalar of numpy or torch
            return plain(value.item(), name)
        return str(value)

    result = plain(fields, "")
    if odd:
        result["not_finite"] = odd
    return result
