"""Files on the disk: the cache folder, atomic writes, checksums, free space.

A file or folder is written under another name in the same folder, flushed to the disk, and then renamed; a reader sees
the old one or the new one, never a part. Independent of the files' content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lmworks.base.errors import InputError


def cache_folder() -> Path:
    """Where fetched models and measurements are kept.

    ``$LMWORKS_CACHE``, else ``$XDG_CACHE_HOME/lmworks``, else ``~/.cache/lmworks``, and without a home a
    folder of this user in the system's temporary one; it need not exist yet.
    """
    if chosen := os.environ.get("LMWORKS_CACHE"):
        return expand_home(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "lmworks"
    try:
        return Path.home() / ".cache" / "lmworks"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"lmworks-{os.getuid()}"


def expand_home(path: str | Path) -> Path:
    """A path with a home folder in place of ``~``. As in a shell, the ``~`` of an unknown user stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def human(size: float) -> str:
    """Bytes as people read them, in powers of 1000: ``98.4 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(path: str | Path) -> int:
    """Bytes of all files below a folder, or of one file."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def free_disk_space(path: str | Path) -> int:
    """Bytes that this user may still write where ``path`` is or will be."""
    return shutil.disk_usage(_existing(Path(path))).free


def check_disk_space(path: str | Path, size: int, content: str) -> None:
    """Check that there is enough free space before writing.

    Args:
        path: the file or folder to write; need not exist.
        size: bytes.
        content: what is written, as the error names it: "the checkpoint of step 10".

    Raises:
        InputError: less than ``size`` is free.
    """
    free = free_disk_space(path)
    if free < size:
        raise InputError(
            f"no room on the disk for {content}: it takes {human(size)}, {human(free)} are free",
            str(path),
            f"free at least {human(size - free)} there, or choose a folder on another disk",
        )


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: of the disk, of a quota, of one file


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, this user's share of it, or the size that a file may have is exhausted.

    safetensors says so only in the text of its message.
    """
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(os.strerror(number) in str(error) or f"os error {number})" in str(error) for number in FULL)


def full_disk(path: str | Path, size: int | None = None) -> InputError:
    """The error for a disk that became full while ``path`` was written; ``size`` in bytes where it is known."""
    needed = f"; it takes {human(size)}" if size else ""
    return InputError(
        f"no room left on the disk, or for a file so large (ulimit -f){needed}, "
        f"{human(free_disk_space(path))} are free; "
        "nothing half-written was left",
        str(path),
        f"free {human(size) if size else 'some room'} there, or choose a folder on another disk",
    )


def _utf8(text: str) -> bytes:
    """A text in UTF-8. Half of a surrogate pair, as in the name of a file that is not UTF-8, becomes the escape that
    JSON and YAML read back."""
    return text.encode("utf-8", errors="backslashreplace")


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes a file wholly or not at all, and to the disk itself; a text as UTF-8. Missing folders are made.

    A link is followed: what it points to is written, and the link stays.

    Raises:
        InputError: no room, or the place cannot be written.
    """
    data = _utf8(content) if isinstance(content, str) else content
    with atomic_file(path, len(data)) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: str | Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A file that appears at ``path`` when the block ends well, and not at all when it fails; links and folders as for
    `atomic_write`. The block only writes into it: an OSError in it is taken for one of writing.

    Args:
        path: the file.
        size: bytes that it will have, where they are known: for the message of a full disk.

    Yields:
        the open file, under another name.

    Raises:
        InputError: no room, or the place cannot be written.
    """
    path = _target(Path(path))
    make_folder(path.parent)
    aside = _aside(path)
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        if is_full(error):
            raise full_disk(path, size) from error
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears at ``path`` when the block ends well, and not at all when it fails.

    A folder that stands there already is replaced; a link to a folder stays, and the folder it leads to is replaced.
    What a killed process left of the same folder is removed. Files get the permissions of any new file here (the
    umask's), whichever library wrote them.

    Yields:
        the folder to write into, a sibling with another name.

    Raises:
        InputError: the place cannot be written, or the disk becomes full within the block.
    """
    path = _target(Path(path))
    make_folder(path.parent)
    remove_leftovers(path)
    aside = _aside(path)
    try:
        aside.mkdir()
    except OSError as error:
        raise full_disk(path) if is_full(error) else _unwritable(path, error) from error
    try:
        yield aside
        mode = _usual_mode(aside)
        for file in aside.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(mode)
            _sync(file)
        _put(aside, path)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if is_full(error):
            raise full_disk(path) from error
        raise
    _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders of ``path`` that killed processes left beside it."""
    for partial in path.parent.glob(f".{path.name}.*"):
        parts = partial.name[len(path.name) + 2 :].split(".")
        if parts[-1] in ("tmp", "old") and parts[0].isdigit() and not _lives(int(parts[0])):
            with contextlib.suppress(OSError):
                shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink()


def make_folder(path: Path, hint: str = "") -> Path:
    """Makes a folder and those above it, where they are missing; returns it.

    Args:
        path: the folder.
        hint: of the error; by default to choose another place.

    Raises:
        InputError: a file stands in the way, or the place cannot be written; the path at fault is named.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = full_disk(path) if is_full(error) else _unwritable(path, error)
        raise InputError(fault.fault, fault.place, hint or fault.hint) from error
    if not os.access(path, os.W_OK):
        raise InputError("may not be written", str(path), hint or "choose a place that you may write to")
    return path


def _unwritable(path: Path, error: OSError) -> InputError:
    """The error for a place that cannot be written; a file that stands where a folder should is named."""
    try:
        block = next((above for above in (path, *path.parents) if above.exists() and not above.is_dir()), None)
    except OSError:
        block = None
    if block is not None and block != path:
        return InputError(f"cannot be written: {block} is a file, not a folder", str(path), "choose another place")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return InputError("cannot be made: a file of this name stands in the way", str(path), "choose another name")
    reason = error.strerror or str(error)
    return InputError(f"cannot be written: {reason}", str(path), "choose a place that you may write to")


def _target(path: Path) -> Path:
    """Where a path leads: itself, or what the link at its end points to.

    Raises:
        InputError: links that lead to one another.
    """
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise InputError("is a link that leads nowhere", str(path), "choose another name") from error


def _usual_mode(folder: Path) -> int:
    """The permissions that a new file in a folder gets: what the umask leaves of rw-rw-rw-."""
    probe = folder / f".mode.{os.urandom(3).hex()}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        probe.unlink()


def _put(aside: Path, path: Path) -> None:
    """Renames a folder into its place, and the one that stands there away."""
    if not path.exists():
        os.rename(aside, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(path, old)
    os.rename(aside, path)
    shutil.rmtree(old, ignore_errors=True)


def _aside(path: Path) -> Path:
    """A sibling's name that no other process, and no other write of this one, uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.tmp")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _existing(path: Path) -> Path:
    """The nearest folder above that is there and may be looked at."""
    path = path.absolute()
    while path != path.parent:
        with contextlib.suppress(OSError):
            if path.exists():
                return path
        path = path.parent
    return path


def _sync(path: Path) -> None:
    """Brings a file or folder to the disk."""
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Brings the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        _sync(path)
