"""What the page may name as a model or a data set: names that there are, and files and folders of the studio."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL
from lmworks.base.sources import aliases, cached_alias
from lmworks.baselines import tfidf_settings
from lmworks.comparisons.comparison_state import STATE
from lmworks.comparisons.contenders import RECOMMENDED
from lmworks.run import ngram_recipe, presets
from lmworks.studio.folders import Folders, shown
from lmworks.text import datasets, formats

MOST = 500
"""Names of a list that the page offers; any other may be written."""
ELSEWHERE = ("hub:", "pypi:")
RECIPES = (".yaml", ".yml")


def new_models() -> dict[str, str]:
    """The names of new models with what they are: networks, and n-gram models."""
    networks = {name: presets.preset(name).about for name in presets.names()}
    return {**networks, **ngram_recipe.ABOUT}


def known_models() -> dict[str, str]:
    """The short names of models, and of classifiers by counts of words, with what they are."""
    return {**{name: alias.about for name, alias in aliases().items()}, **tfidf_settings.ABOUT}


def offered_models(folders: Folders, with_classifiers: bool = True) -> list[dict[str, Any]]:
    """The models that a form offers: those of the studio's folders, then short names, those in the cache first; and
    classifiers by counts of words, if they are asked for."""
    here = [{"name": name, "about": about} for name, about in _models_in(folders)]
    short = [
        {"name": alias.name, "about": alias.about if cached_alias(alias) else f"{alias.about} (would be fetched)"}
        for alias in sorted(aliases().values(), key=lambda alias: cached_alias(alias) is None)
    ]
    counted = tfidf_settings.ABOUT.items() if with_classifiers else ()
    return [*here[:MOST], *short, *({"name": name, "about": about} for name, about in counted)]


def offered_data(folders: Folders) -> list[dict[str, Any]]:
    """The data sets that a form offers: files of the studio's folders, then named ones."""
    here = [{"name": name, "about": "file"} for name in _data_in(folders)]
    return [*here[:MOST], *({"name": name, "about": named.about} for name, named in datasets.NAMED.items())]


def model_word(folders: Folders, name: str, is_new: bool = False) -> str:
    """A model as a command names it that is run in the first folder; as of :func:`model_source`.

    Args:
        folders: of the studio.
        name: of the model; of a new one, its preset.
        is_new: whether it is a new model.
    """
    if is_new:
        if name not in new_models():
            raise InputError("is no new model", shown(name), f"one of: {', '.join(new_models())}")
        return name
    return _word(folders, model_source(folders, name))


def data_word(folders: Folders, name: str) -> str:
    """A data set as a command names it; as of :func:`data_source`."""
    return _word(folders, data_source(folders, name))


def model_source(folders: Folders, name: str) -> str | Path:
    """A model that is opened: a name, or a path in the folders.

    Args:
        folders: of the studio.
        name: a short name, ``hub:owner/name``, ``pypi:distribution``, or that of a file or folder.

    Raises:
        InputError: there is no such model in the folders.
    """
    return _source(folders, name, known_models())


def data_source(folders: Folders, name: str) -> str | Path:
    """A data set: a named one, ``hub:owner/name``, or a path in the folders.

    Raises:
        InputError: there is no such data set in the folders.
    """
    source = _source(folders, name, datasets.NAMED)
    if isinstance(source, Path) and source.is_dir():
        for file in source.rglob("*"):
            if file.is_symlink():
                folders.name(file)  # refuses one that leads out of the folders
    return source


def path_word(folders: Folders, path: Path) -> str:
    """A path as a command names it that is run in the first folder: relative to it, where it lies in it."""
    if not path.is_relative_to(folders.first):
        return str(path)
    word = os.path.relpath(path, folders.first)
    is_plain = re.fullmatch(r"\w[^:]*", word) and word not in datasets.NAMED and word not in known_models()
    return word if is_plain else f"./{word}"


def _word(folders: Folders, source: str | Path) -> str:
    return path_word(folders, source) if isinstance(source, Path) else source


def _source(folders: Folders, name: str, known: Container[str]) -> str | Path:
    name = name.strip()
    if not name:
        raise InputError("is not named", "", "choose one of the list, or write a name")
    if name.endswith(RECIPES):
        hint = "name a model and data, and give the settings in the form"
        raise InputError("is a recipe, which may name files outside of the studio's folders", shown(name), hint)
    if name in known or name.startswith(ELSEWHERE):
        return name
    path = folders.path(name)
    if not path.exists():
        raise InputError("there is no such file or folder here", shown(name), "choose one of the list")
    return path


def _models_in(folders: Folders) -> Iterator[tuple[str, str]]:
    """The name of each model in the folders, and what it is."""
    for path, about in _model_paths(folders):
        with contextlib.suppress(InputError):  # a link that leads out of the folders
            yield folders.name(path), about


def _model_paths(folders: Folders) -> Iterator[tuple[Path, str]]:
    for place, below, files in folders.walk():
        if JOURNAL in files:
            below[:] = []
            if (place / "final").is_dir():
                yield place, "run"
        elif STATE in files:
            below[:] = []
            if (place / RECOMMENDED / "final").is_dir():
                yield place / RECOMMENDED, "recommended by a comparison"
        elif "adapter_config.json" in files:
            yield place, "adapter"
        elif "config.json" in files and any(file.endswith(".safetensors") for file in files):
            below[:] = []
            yield place, "model"
        yield from ((place / file, "GGUF file") for file in files if file.endswith(".gguf"))


def _data_in(folders: Folders) -> Iterator[str]:
    """The name of each data file in the folders, but for those of runs and models."""
    for place, below, files in folders.walk():
        if {JOURNAL, STATE, "config.json"} & set(files):
            below[:] = []
            continue
        for file in files:
            suffixes = [suffix.lower() for suffix in Path(file).suffixes if suffix.lower() != ".gz"]
            if suffixes and suffixes[-1] in formats.SUFFIXES and not file.startswith("."):
                with contextlib.suppress(InputError):  # a link that leads out of the folders
                    yield folders.name(place / file)
