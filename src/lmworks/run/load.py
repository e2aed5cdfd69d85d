"""Opens anything that a run leaves or a source names: a language model, or a classifier by counts of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.journal import JOURNAL
from lmworks.baselines import tfidf_folder


def load(source: str | Path, **options: Any) -> Any:
    """Open a model from any source.

    Args:
        source: a folder, a GGUF file, an alias, ``hub:owner/name``, ``pypi:distribution``, or a run.
        **options: those of language_model/opening.open_saved_model: dtype, device, offline, storage, base.

    Returns:
        a ``LanguageModel``; of a folder that holds one, a ``TextClassifier``.

    Raises:
        InputError: there is no such model, or its files are damaged.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(f"{source!r} names no model", "source", "give a folder, a file or a name as text")
    folder = classifier_folder(source)
    if folder is None:
        from lmworks.run import checkpoint_model

        return checkpoint_model.load(source, **options)
    if given := sorted(name for name, value in options.items() if value not in (None, "cpu", "float32")):
        raise InputError(f"is a classifier by counts of words; {given[0]} was given", str(source), "leave it out")
    from lmworks.baselines.tfidf import TextClassifier

    return TextClassifier.open(folder)


def classifier_folder(source: str | Path) -> Path | None:
    """The folder of a classifier by counts of words that a source names, or that a run has as its result; else None."""
    folder = expand_home(source)
    if (folder / JOURNAL).is_file():
        folder = folder / "final"
    return folder if tfidf_folder.is_tfidf(folder) else None
