"""The folders that a studio was started on: the page names files relative to them, and reaches no other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from lmworks.base.errors import InputError

DEEPEST = 6
"""Folders below a root that are looked through."""
LONGEST_PART = 255
"""Bytes of a file name that all file systems take."""
SKIPPED = {"node_modules", "__pycache__", "site-packages"}


class Folders:
    """The folders, and the names of what is in them.

    With one root the name of a file is its path from there (``runs/a/report.html``); with several it begins with the
    root's own name (``project/runs/a/report.html``).

    Args:
        roots: folders, which may not lie in each other.

    Raises:
        InputError: one is no folder, lies in another one, or has the name of another one.
    """

    def __init__(self, roots: Sequence[str | Path]) -> None:
        paths = [_folder(root) for root in roots]
        self.roots: dict[str, Path] = {}
        for path in paths:
            for other in paths:
                if other is not path and path.is_relative_to(other):
                    raise InputError(f"lies in {other}, which is shown too", str(path), "give the outer one alone")
            name = "" if len(paths) == 1 else path.name
            if name in self.roots:
                hint = "start a second studio for it, or give the folder that holds both"
                raise InputError(f"has the name of {self.roots[name]}", str(path), hint)
            self.roots[name] = path

    @property
    def first(self) -> Path:
        """The first root: where new runs and ratings go."""
        return next(iter(self.roots.values()))

    def path(self, name: str) -> Path:
        """The file or folder of a name, which need not exist.

        Raises:
            InputError: it is an absolute path, leads out of the folders (by ``..`` or by a link), is hidden, or cannot
                be the name of a file.
        """
        parts = PurePosixPath(name).parts
        if name.startswith(("/", "\\", "~")) or Path(name).is_absolute() or not all(map(_is_plain, parts)):
            raise self._outside(name)
        if "" in self.roots:
            root, below = self.roots[""], parts
        elif parts and parts[0] in self.roots:
            root, below = self.roots[parts[0]], parts[1:]
        else:
            raise self._outside(name)
        path = root.joinpath(*below).resolve()
        if not path.is_relative_to(root):
            raise self._outside(name)
        return path

    def file(self, name: str) -> Path:
        """The file of a name.

        Raises:
            InputError: it is outside of the folders, or there is no such file.
        """
        path = self.path(name)
        if not path.is_file():
            raise InputError("there is no such file", shown(name), "reload the list")
        return path

    def name(self, path: str | Path) -> str:
        """The name of a path.

        Raises:
            InputError: it is outside of the folders.
        """
        whole = Path(path).resolve()
        for name, root in self.roots.items():
            if whole.is_relative_to(root):
                return str(PurePosixPath(name, whole.relative_to(root).as_posix()))
        raise self._outside(str(path))

    def walk(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Each folder with the names of the folders and files in it, both sorted.

        Hidden folders, links and what is deeper than DEEPEST are left out; removing a name from the list of folders
        leaves it out as well, as with ``os.walk``.
        """
        for root in self.roots.values():
            for place, folders, files in os.walk(root):
                path = Path(place)
                is_deep = len(path.relative_to(root).parts) >= DEEPEST
                folders[:] = [] if is_deep else sorted(name for name in folders if _is_shown(path / name))
                yield path, folders, sorted(files)

    def _outside(self, name: str) -> InputError:
        places = ", ".join(str(root) for root in self.roots.values())
        fault = "is not in the folders that the studio was started on"
        return InputError(fault, shown(name), f"they are: {places}")


def shown(name: str) -> str:
    """A name that a client sent, as a message may quote it."""
    return name[:120].encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _folder(root: str | Path) -> Path:
    path = Path(root).expanduser()
    if not path.is_dir():
        raise InputError("there is no such folder", str(root), "give a folder that exists")
    return path.resolve()


def _is_plain(part: str) -> bool:
    """Whether a part of a name can be that of a file that is not hidden."""
    try:
        return not part.startswith(".") and "\0" not in part and len(part.encode()) <= LONGEST_PART
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _is_shown(path: Path) -> bool:
    is_environment = (path / "pyvenv.cfg").is_file()
    return not (path.name.startswith(".") or path.name in SKIPPED or path.is_symlink() or is_environment)
