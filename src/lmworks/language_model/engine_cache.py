"""Caches what the native engine needs of a model, so that its next opening needs neither torch nor packing.

Each model has a folder in the cache: the packed weights, the tokenizer, and ``model.json``. The folder's name is a hash
of the paths, sizes and times of change of the model's files. A decoder and an encoder have entries of their own. An
adapter is opened beside its base, which alone is cached. Imports no torch.
``LMWORKS_ENGINE_CACHE`` names another folder for all entries; ``off`` disables the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from lmworks.adapt.adapter_base import DEFAULT, base_of, is_adapter
from lmworks.adapt.native_lora import NotComputed
from lmworks.base.errors import InputError
from lmworks.base.files import (
    atomic_folder,
    atomic_write,
    cache_folder,
    check_disk_space,
    expand_home,
    folder_size,
    human,
)
from lmworks.base.journal import JOURNAL
from lmworks.base.json_file import read_object
from lmworks.base.settings import build
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.engine_file import FORMAT, EngineWeights, open_engine
from lmworks.kernels.native_module import native_module
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.native_adapters import check_adapter
from lmworks.language_model.native_encoder import NativeEncoder
from lmworks.language_model.native_model import NativeModel
from lmworks.language_model.saved_source import find_saved
from lmworks.model.config import ModelConfig
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

ENGINES, WEIGHTS, MODEL = "engines", "engine.safetensors", "model.json"
LAYOUT = 2
"""Version of the files beside the weights; rises when they change."""
ENCODER = "encoder"
"""Part of the key of an encoder: the same files have another entry where they are opened as a decoder."""


def open_cached(source: str, base: str | None = None) -> NativeModel | None:
    """The model of a source from the cache, of an adapter its base with the adapter "default"; None: it is not there.

    Args:
        source: of a model or an adapter.
        base: of an adapter: its base, where that has moved; of a whole model there is none in the cache then.

    Raises:
        InputError: there is no such source, or its adapter is damaged or not for its base.
    """
    if native_module() is None or _engines() is None:
        return None
    if (adapter := _adapter_of(source)) is not None:
        return _open_adapter(adapter, source, base)
    return _open_entry(source, "", _open) if base is None else None


def open_cached_encoder(source: str) -> NativeEncoder | None:
    """The encoder of a source from the cache; None where it is not there.

    Raises:
        InputError: there is no such source.
    """
    return _open_entry(source, ENCODER, _open_encoder)


Model = TypeVar("Model")


def _open_entry(source: str, kind: str, open_folder: Callable[[Path, str], Model]) -> Model | None:
    """``open_folder(folder, source)`` of a source's entry; None where there is none, or it cannot be read."""
    if native_module() is None or (folders := _engines()) is None or (path := _files_of(source)) is None:
        return None
    folder = folders / key_of(path, kind)
    if not (folder / MODEL).is_file():
        return None
    try:
        return open_folder(folder, source)
    except InputError:  # damaged: the caller opens the model's own files, and stores it again
        shutil.rmtree(folder, ignore_errors=True)
        return None


def base_to_store(source: str, base: str | None = None) -> str | None:
    """The base of an adapter, where the engine computes the adapter and the cache lacks the base; else None.

    Arguments and errors as for :func:`open_cached`.
    """
    if native_module() is None or (folders := _engines()) is None or (adapter := _adapter_of(source)) is None:
        return None
    try:
        check_adapter(adapter)
    except NotComputed:
        return None
    base = base_of(adapter, base)
    path = _files_of(base)
    return base if path is not None and not (folders / key_of(path) / MODEL).is_file() else None


def store(model: LanguageModel) -> list[str]:
    """Put a model that was opened and packed into the cache; not an adapter, nor one that has a head or examples.

    Args:
        model: prepared for generation.

    Returns:
        Notes for a person: that it is cached, or why not.
    """
    weights, path, folders = model.engine_weights, _files_of(model.source), _engines()
    if model.own_tokenizer is None or model.few_shot is not None or model.config.heads:
        return []
    if weights is None or path is None or folders is None:
        return []
    return _put(folders / key_of(path), weights, path, lambda folder: _write(folder, model, path))


def store_encoder(model: LanguageModel) -> list[str]:
    """Put an encoder that was opened and packed into the cache; not one that has an adapter beside it.

    Args:
        model: prepared.

    Returns:
        Notes for a person, as :func:`store`.
    """
    weights, path, folders = model.encoder_weights, _files_of(model.source), _engines()
    if model.own_tokenizer is None or weights is None or path is None or folders is None:
        return []
    return _put(folders / key_of(path, ENCODER), weights, path, lambda folder: _write_encoder(folder, model, path))


def _put(folder: Path, weights: EngineWeights, path: Path, write: Callable[[Path], None]) -> list[str]:
    """Make an entry of the cache, of which ``write`` writes all but the weights; remove older ones of the same path."""
    try:
        check_disk_space(folder, weights.nbytes(), "the packed weights")
        with atomic_folder(folder) as aside:
            weights.save(aside / WEIGHTS)
            write(aside)
    except (InputError, OSError) as error:
        fault = error.fault if isinstance(error, InputError) else str(error)
        return [f"the native engine's weights are not cached for the next opening: {fault}"]
    _remove_older(path, folder)
    size = human(folder_size(folder))
    return [f"computed by the native engine; its packed weights are cached for the next opening: {size} in {folder}"]


def key_of(path: Path, kind: str = "") -> str:
    """The name of the folder for the model of a file or folder, in the state that its files have now.

    Args:
        path: of the model; modules of a sentence encoder have folders of their own in it.
        kind: empty, or ENCODER.
    """
    inside = () if path.is_file() else (*path.iterdir(), *path.glob("[0-9]_*/config.json"))
    files = [path] if path.is_file() else sorted(file for file in inside if file.is_file())
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, LAYOUT, kind, state]).encode()).hexdigest()[:32]


def entries() -> list[tuple[str, int, Path]]:
    """Every entry: the file or folder that the model was opened from, bytes, and the folder in the cache."""
    folders, listed = _engines(), []
    # not those that begin with a dot: another process may be writing them
    for file in sorted(folders.glob(f"[!.]*/{MODEL}")) if folders is not None and folders.is_dir() else []:
        with contextlib.suppress(InputError):
            path = str(read_object(file).get("path", "?"))
            listed.append((path, folder_size(file.parent), file.parent))
    return listed


def _engines() -> Path | None:
    """The folder of all entries; None where the cache is disabled."""
    setting = os.environ.get("LMWORKS_ENGINE_CACHE", "")
    if setting.lower() == "off":
        return None
    return expand_home(setting) if setting else cache_folder() / ENGINES


def _is_unfinished(source: str) -> bool:
    """Whether it is a run without a result."""
    run = expand_home(source) / JOURNAL
    return run.is_file() and not run.with_name("final").is_dir()


def _files_of(source: str) -> Path | None:
    """The file or folder of a whole model; None of an adapter or a prompt, and of a run that has not finished."""
    if _is_unfinished(source):
        return None
    path = find_saved(source).path
    return path if path.is_file() or ((path / "config.json").is_file() and not is_adapter(path)) else None


def _adapter_of(source: str) -> Path | None:
    """The folder of an adapter; None of all else."""
    if _is_unfinished(source):
        return None
    path = find_saved(source).path
    return path if path.is_dir() and is_adapter(path) else None


def _open_adapter(adapter: Path, source: str, base: str | None) -> NativeModel | None:
    """The base of an adapter from the cache, with the adapter in use; None: it is not there, or PyTorch is needed."""
    try:
        check_adapter(adapter)
        base = base_of(adapter, base)
        model = open_cached(base) if _files_of(base) is not None else None  # an adapter of an adapter needs PyTorch
        if model is None:
            return None
        model.put_adapter(DEFAULT, adapter)
    except NotComputed:
        return None
    model.use_adapter(DEFAULT)
    model.source = source
    return model


def _open(folder: Path, source: str) -> NativeModel:
    """The decoder of an entry.

    Raises:
        InputError: a file of the entry cannot be read.
    """
    values = read_object(folder / MODEL)
    try:
        config = build(ModelConfig, values["config"], str(folder / MODEL))
        tokenizer = Tokenizer.open(folder)
        tokenizer.end_ids |= set(values["end_ids"])
        tokenizer.rows = values["rows"]
        generation, notes, formats = values["generation"], list(values["notes"]), list(values["weight_formats"])
        family, fingerprint, sample = str(values["family"]), str(values["fingerprint"]), list(values["weight_sample"])
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(f"cannot be read ({error})", str(folder / MODEL), "delete it") from error
    engine = open_engine(folder / WEIGHTS)
    model = NativeModel(engine, config, tokenizer, source, formats, generation, notes, InputFormat.read(folder))
    model.family, model.fingerprint, model.weight_sample = family, fingerprint, sample
    return model


def _open_encoder(folder: Path, source: str) -> NativeEncoder:
    """The encoder of an entry; errors as for :func:`_open`."""
    values = read_object(folder / MODEL)
    try:
        config = build(ModelConfig, values["config"], str(folder / MODEL))
        tokenizer = Tokenizer.open(folder)
        tokenizer.rows = values["rows"]
        pooling, notes = values["pooling"], list(values["notes"])
        own = None if pooling is None else SentencePooling(**{**pooling, "modes": tuple(pooling["modes"])})
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(f"cannot be read ({error})", str(folder / MODEL), "delete it") from error
    return NativeEncoder(open_engine(folder / WEIGHTS), config, tokenizer, source, own, notes)


def _write(folder: Path, model: LanguageModel, path: Path) -> None:
    """The files of a decoder's entry beside the weights; ``path``: of the model's own files."""
    from lmworks.adapt.adapters import fingerprint, weight_sample

    tokenizer = model.tokenizer
    tokenizer.save(folder, compact=True)
    if model.input_format is not None:
        model.input_format.save(folder)
    values: dict[str, Any] = {
        "path": str(path.resolve()),
        "config": model.config.model_dump(mode="json"),
        "weight_formats": model.weight_formats,
        "generation": model.generation,
        "notes": model.notes,
        "end_ids": sorted(tokenizer.end_ids),
        "rows": tokenizer.rows,
        "family": model.family.name,
        "fingerprint": fingerprint(model.network),
        "weight_sample": weight_sample(model.network),
    }
    atomic_write(folder / MODEL, json.dumps(values, ensure_ascii=False, indent=1))


def _write_encoder(folder: Path, model: LanguageModel, path: Path) -> None:
    """As :func:`_write`, of an encoder."""
    model.tokenizer.save(folder, compact=True)
    values: dict[str, Any] = {
        "path": str(path.resolve()),
        "config": model.config.model_dump(mode="json"),
        "pooling": None if model.pooling is None else asdict(model.pooling),
        "notes": model.notes,
        "rows": model.tokenizer.rows,
    }
    atomic_write(folder / MODEL, json.dumps(values, ensure_ascii=False, indent=1))


def _remove_older(path: Path, folder: Path) -> None:
    """Remove earlier states of the same file or folder from the cache."""
    for other_path, _, other in entries():
        if other_path == str(path.resolve()) and other != folder:
            shutil.rmtree(other, ignore_errors=True)
