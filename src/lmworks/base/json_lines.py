"""JSON objects appended to a file, one a line; each is on the disk itself before the call returns.

A process that is killed, or a machine without power, at any moment loses no line whose call returned. What it can leave
is a last line that is not finished: readers leave it out and say so, the next writer cuts it off. Several processes
may append to one file: each write has the lock of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, full_disk, is_full

try:
    import fcntl
except ImportError:  # Windows: the file is then not locked against other processes
    fcntl = None  # type: ignore[assignment]


class JsonLines:
    """A file of JSON objects. Any thread may call.

    Args:
        path: the file; one that is not there has no objects, and the first to be appended makes it.

    Attributes:
        path: the file.
        notes: what was wrong with the file and does not stop the work, as sentences.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._objects: list[dict[str, Any]] = []
        self._end = 0  # bytes of the lines that were read
        self._lock = threading.Lock()

    def objects(self) -> list[dict[str, Any]]:
        """All objects, in order. What was read before is not read again. A last line that is not finished is left out.

        Raises:
            InputError: a line before the last is no JSON object, or the file cannot be read.
        """
        with self._lock:
            if self.path.is_file():
                with self._locked(os.O_RDONLY) as handle:
                    self._read(handle)
            return list(self._objects)

    def append(self, value: dict[str, Any]) -> None:
        """Append an object, and wait until it is on the disk. An unfinished last line is cut off before.

        Raises:
            InputError: no room on the disk, a file that cannot be written, or, in it, a line that is no JSON object.
                The file is then as it was.
        """
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        with self._lock:
            if not self.path.exists():
                atomic_write(self.path, b"")
            with self._locked(os.O_RDWR) as handle:
                self._read(handle)
                os.ftruncate(handle, self._end)
                self._write(handle, line)
            self._objects.append(json.loads(line))
            self._end += len(line)

    def _write(self, handle: int, line: bytes) -> None:
        try:
            count = 0
            while count < len(line):
                count += os.pwrite(handle, line[count:], self._end + count)
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, self._end)
            if is_full(error):
                raise full_disk(self.path, len(line)) from error
            raise InputError(f"cannot be written: {error.strerror}", str(self.path), "check the disk") from error

    @contextlib.contextmanager
    def _locked(self, mode: int) -> Iterator[int]:
        """A handle of the file, with its lock while the block runs."""
        try:
            handle = os.open(self.path, mode)
        except OSError as error:
            hint = "check the path and its rights"
            raise InputError(f"cannot be opened: {error.strerror}", str(self.path), hint) from error
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_SH if mode == os.O_RDONLY else fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _read(self, handle: int) -> None:
        """Take up the lines that were added since the last reading, by whatever process."""
        size = os.fstat(handle).st_size
        if size < self._end:
            raise InputError("has become shorter while it was open", str(self.path), "open it again")
        data = bytearray()
        while len(data) < size - self._end:
            part = os.pread(handle, size - self._end - len(data), self._end + len(data))
            if not part:
                break
            data += part
        taken = 0
        for line in bytes(data).split(b"\n")[:-1]:
            value = _object(line)
            if value is None:
                if taken + len(line) + 1 == len(data):  # a power cut can leave zeros and an end of line
                    break
                hint = "restore the line, or delete it where it is nothing but damage"
                raise InputError("is no JSON object", f"{self.path}:{len(self._objects) + 1}", hint)
            self._objects.append(value)
            self._end += len(line) + 1
            taken += len(line) + 1
        if rest := len(data) - taken:
            note = f"{self.path.name}: the last line was not finished ({rest:,} bytes), and is left out: "
            note += "a process was killed while it wrote it"
            self.notes += [note] if note not in self.notes else []


def _object(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
