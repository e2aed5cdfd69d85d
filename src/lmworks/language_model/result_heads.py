"""The result of a run of several tasks: a folder for each head, and a list of them. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write
from lmworks.base.json_file import read_object

FILE = "heads.json"
HINT = 'name the head: --head {0} (in Python head="{0}"), or its folder: {1}'


def write_heads(folder: Path, names: list[str]) -> None:
    """List the heads whose folders lie in this one."""
    atomic_write(folder / FILE, json.dumps({"heads": names}, ensure_ascii=False, indent=2) + "\n")


def heads_in(folder: Path) -> list[str]:
    """The heads whose folders lie in a folder; none where it is the folder of one model."""
    path = folder / FILE
    return [str(name) for name in read_object(path).get("heads") or []] if path.is_file() else []


def folder_of(folder: Path, head: str | None, place: str) -> Path:
    """The folder of a model with one head.

    Args:
        folder: of a model, or of several heads.
        head: its name; None: the only one.
        place: what the person named, for errors.

    Raises:
        InputError: there are several and none is named, or there is none of this name.
    """
    names = heads_in(folder)
    if not names:
        if head is not None:
            raise InputError(f"has no heads by names; {head!r} was named", place, "leave the head out")
        return folder
    if head in names:
        return folder / str(head)
    listed, hint = ", ".join(names), HINT.format(names[0], folder / names[0])
    if head is None:
        raise InputError(f"was trained on several tasks and has the heads {listed}", place, hint)
    raise InputError(f"has no head {head!r}; its heads are {listed}", place, hint)
