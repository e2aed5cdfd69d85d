"""The files of a classifier by counts: config.json, vocabulary.json and model.safetensors; no pickle.

``vocabulary.json`` is the list of the F n-grams in the order of the columns. Arrays, all float64: ``weight`` (K, F),
``bias`` (K,), ``idf`` (F,) of TF-IDF, ``platt`` (2, K) where scores are calibrated; baselines/tfidf_training has their
meaning. What is read is checked before it is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, check_disk_space
from lmworks.base.json_file import read_json
from lmworks.base.settings import build
from lmworks.baselines.array_folder import (
    CONFIG,
    REPAIR,
    WEIGHTS,
    Arrays,
    has_model_type,
    read_arrays,
    read_config,
)
from lmworks.baselines.tfidf_settings import TfidfSettings
from lmworks.baselines.tfidf_training import FittedClassifier

MODEL_TYPE = "lmworks-tfidf"
VOCABULARY = "vocabulary.json"
KINDS: dict[str, tuple[type, ...]] = {"settings": (dict,), "labels": (list,), "link": (str,)}


def is_tfidf(folder: Path) -> bool:
    """Whether a folder holds a classifier by counts, by its config.json."""
    return has_model_type(folder, MODEL_TYPE)


def write(folder: Path, fitted: FittedClassifier, settings: TfidfSettings) -> None:
    """Write the files.

    Raises:
        InputError: no room, or the folder cannot be written.
    """
    arrays = {"weight": fitted.weight, "bias": fitted.bias, "idf": fitted.idf, "platt": fitted.platt}
    present = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    config = {
        "model_type": MODEL_TYPE,
        "labels": fitted.labels,
        "link": fitted.link,
        "settings": settings.model_dump(mode="json"),
        "notes": fitted.notes,
    }
    check_disk_space(folder, sum(array.nbytes for array in present.values()), "the classifier")
    atomic_write(folder / WEIGHTS, save(present, metadata={"format": "np"}))
    atomic_write(folder / VOCABULARY, json.dumps(fitted.vocabulary, ensure_ascii=False, indent=0) + "\n")
    atomic_write(folder / CONFIG, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def read(folder: Path) -> tuple[FittedClassifier, TfidfSettings]:
    """What was written.

    Raises:
        InputError: a file is missing or damaged, or they do not fit together.
    """
    place = str(folder / CONFIG)
    config = read_config(folder, MODEL_TYPE, KINDS, KINDS)
    settings = build(TfidfSettings, config["settings"], place)
    labels = _names(config["labels"], "labels", place)
    if not labels:
        raise InputError("labels are empty", place, REPAIR)
    if config["link"] not in ("softmax", "sigmoid"):
        raise InputError(f"link is {config['link']!r}, not softmax or sigmoid", place, REPAIR)
    vocabulary = _names(read_json(folder / VOCABULARY), "n-grams", str(folder / VOCABULARY))
    arrays = read_arrays(folder)
    is_one = config["link"] == "sigmoid" and len(labels) == 2
    shapes: dict[str, tuple[int, ...]] = {
        "weight": (1 if is_one else len(labels), len(vocabulary)),
        "bias": (1 if is_one else len(labels),),
    }
    if settings.weighting == "tfidf":
        shapes["idf"] = (len(vocabulary),)
    if "platt" in arrays:
        shapes["platt"] = (2, 1 if is_one else len(labels))
    for name, shape in shapes.items():
        _check(arrays, name, shape, str(folder / WEIGHTS))
    idf = arrays["idf"] if settings.weighting == "tfidf" else None
    notes = [str(note) for note in config.get("notes") or []]
    weight, bias, platt = arrays["weight"], arrays["bias"], arrays.get("platt")
    return FittedClassifier(labels, vocabulary, idf, weight, bias, config["link"], platt, notes), settings


def _names(value: Any, content: str, place: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{content} are no list of texts", place, REPAIR)
    if len(set(value)) < len(value):
        raise InputError(f"{content} are not all different", place, REPAIR)
    return value


def _check(arrays: Arrays, name: str, shape: tuple[int, ...], place: str) -> None:
    if name not in arrays:
        raise InputError(f"{name} is missing", place, REPAIR)
    array = arrays[name]
    if array.dtype != np.float64 or array.shape != shape:
        fault = f"{name} is {array.dtype} of shape {array.shape}, not float64 of shape {shape}"
        raise InputError(fault, place, REPAIR)
    if np.isnan(array).any():
        raise InputError(f"{name} holds values that are no numbers", place, REPAIR)
