"""Where the files of a saved model or adapter are: what base/sources finds, or the result of a finished run."""

from __future__ import annotations

from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.base.sources import LocalSource, find
from lmworks.language_model.result_heads import folder_of


def is_eliza(source: str | Path) -> bool:
    """Whether a source of a model means ELIZA (baselines/eliza): its name, and no path of that name."""
    return str(source) == "eliza" and not Path(source).exists()


def find_saved(source: str | Path, offline: bool | None = None, head: str | None = None) -> LocalSource:
    """Find a source; the folder of a run stands for its result, and a head for its folder there.

    Args:
        source: a folder, file or name.
        offline: fetch nothing; default: as LMWORKS_OFFLINE says.
        head: of a run of several tasks: the one whose folder is meant.

    Raises:
        InputError: there is none, or the run has not finished.
    """
    if is_eliza(source):
        raise InputError("answers by rules and is no model: it only talks", str(source), "lmworks chat eliza")
    local = find(str(source), "model", offline)
    if not (local.path / JOURNAL).is_file():
        return LocalSource(folder_of(local.path, head, str(source)), local.source, local.origin, local.note)
    final = local.path / "final"
    if not final.is_dir():
        hint = (
            f"finish it: lmworks resume {source}; or write its best checkpoint as a model: lmworks save {source} FOLDER"
        )
        raise InputError("this run has not finished", str(source), hint)
    return LocalSource(folder_of(final, head, str(source)), str(source), local.origin, local.note)
