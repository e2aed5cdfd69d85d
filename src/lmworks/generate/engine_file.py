"""The native engine's weights: given part by part, written to a file and read from it. Imports no torch.

The file is in the format of safetensors. It has matrices as the engine packs them, in the same way on any processor, so
that opening it is copying; its metadata hold the engine's config and the kind of each matrix.
"""

from __future__ import annotations

import json
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lmworks.base.errors import InputError
from lmworks.kernels.native_module import API_VERSION, native_module

FORMAT = f"lmworks engine {API_VERSION}"
"""Written into the file; files of another version are not read."""
WHOLE_MODEL = -1
"""In place of a layer's index, for what belongs to no layer."""
DTYPES = {"F32": np.float32, "U8": np.uint8}
ROTARY_TABLES = {False: "rotary", True: "local_rotary"}


class EngineWeights:
    """An engine that is given its weights, and can be written to a file.

    Keeps the arrays for the file, but for the matrices, which it reads back from the engine.

    Args:
        config: the model as native/engine.cpp reads it.

    Attributes:
        engine: of the compiled module.

    Raises:
        ValueError: by the engine, where a size, a kind or a name does not fit the config.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.engine = native_module().Engine(config)
        self._config = config
        self._kinds: dict[str, int] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def set_matrix(self, layer: int, name: str, kind: int, data: np.ndarray, bias: np.ndarray | None) -> None:
        """Give the engine a matrix.

        Args:
            layer: its index, or WHOLE_MODEL.
            name: such as q_proj.
            kind: a WeightKind of native/engine.hpp.
            data: its bytes, (n,) uint8: dense numbers row after row, or the blocks of a GGUF file.
            bias: (rows,) float32.
        """
        self.engine.set_matrix(layer, name, kind, data, bias)
        key = _key(layer, name)
        self._kinds[key] = kind
        if bias is not None:
            self._arrays[f"{key}.bias"] = bias

    def set_norm(self, layer: int, name: str, weight: np.ndarray, bias: np.ndarray | None) -> None:
        """Give it a norm's weight and bias, (size,) float32."""
        self.engine.set_norm(layer, name, weight, bias)
        key = _key(layer, name)
        self._arrays[f"{key}.weight"] = weight
        if bias is not None:
            self._arrays[f"{key}.bias"] = bias

    def set_vector(self, name: str, values: np.ndarray) -> None:
        """Give it head_bias (V,), embed_positions (positions, E), or an encoder's embed_tokens (V, E), flat or not,
        float32."""
        self.engine.set_vector(name, values)
        self._arrays[name] = values

    def set_rotary(self, is_local: bool, cos: np.ndarray, sin: np.ndarray) -> None:
        """Give it cosines and sines, (positions, R / 2) float32; ``is_local``: for layers with a sliding window, where
        they have a rotary base of their own."""
        self.engine.set_rotary(is_local, cos, sin)
        for name, table in (("cos", cos), ("sin", sin)):
            self._arrays[f"{ROTARY_TABLES[is_local]}.{name}"] = table

    @property
    def kinds(self) -> dict[str, int]:
        """The kind of each matrix."""
        return dict(self._kinds)

    def nbytes(self) -> int:
        """Bytes that the file will have, but for its header."""
        return int(self.engine.sizes()[0]) + sum(array.nbytes for array in self._arrays.values())

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be written.
        """
        matrices = {key: np.frombuffer(self.engine.packed(*_layer_and_name(key)), np.uint8) for key in self._kinds}
        metadata = {"format": FORMAT, "config": json.dumps(self._config), "kinds": json.dumps(self._kinds)}
        save_file({**self._arrays, **matrices}, path, metadata)


def open_engine(path: Path) -> Any:
    """The engine of a file that :meth:`EngineWeights.save` wrote.

    Raises:
        InputError: it cannot be read, or was written by another version.
    """
    try:
        with path.open("rb") as file:
            arrays = ArrayFile(file)
            if arrays.metadata["format"] != FORMAT:
                raise InputError("was written by another version of lmworks", str(path), "delete it")
            engine = native_module().Engine(json.loads(arrays.metadata["config"]))
            _fill(engine, arrays, json.loads(arrays.metadata["kinds"]))
            engine.finish()
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", str(path), "delete it") from error
    return engine


class ArrayFile:
    """Reads single arrays of a safetensors file, flat.

    The safetensors library would map the whole file, whose pages would be in memory beside the engine's copy, and copy
    each array once more.

    Args:
        file: at its beginning.

    Attributes:
        metadata: of the file.
        names: of all arrays.

    Raises:
        ValueError: it is no such file, or not a whole one.
    """

    def __init__(self, file: BufferedReader) -> None:
        size = file.seek(0, SEEK_END)
        file.seek(0)
        self._begin = 8 + int.from_bytes(file.read(8), "little")
        if self._begin > size:
            raise ValueError("it ends within its header")
        self._file, self._entries = file, json.loads(file.read(self._begin - 8))
        self.metadata: dict[str, str] = self._entries.pop("__metadata__")
        self.names = set(self._entries)
        for name, entry in self._entries.items():
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= size - self._begin:
                raise ValueError(f"it ends within {name}")

    def read(self, name: str) -> np.ndarray:
        """A copy of the array, (n,).

        Raises:
            KeyError: there is none, or its type is not among :data:`DTYPES`.
            ValueError: the file ends within it.
        """
        first, last = self._entries[name]["data_offsets"]
        dtype = np.dtype(DTYPES[self._entries[name]["dtype"]])
        array = np.empty((last - first) // dtype.itemsize, dtype)
        self._file.seek(self._begin + first)
        if self._file.readinto(array.view(np.uint8).data) != last - first:
            raise ValueError(f"it ends within {name}")
        return array


def _fill(engine: Any, arrays: ArrayFile, kinds: dict[str, int]) -> None:
    """Give all arrays of a file to an engine, which checks their sizes."""

    def bias_of(key: str) -> np.ndarray | None:
        return arrays.read(f"{key}.bias") if f"{key}.bias" in arrays.names else None

    for key, kind in kinds.items():
        engine.set_packed(*_layer_and_name(key), kind, arrays.read(key), bias_of(key))
    for is_local, table in ROTARY_TABLES.items():
        if f"{table}.cos" in arrays.names:
            engine.set_rotary(is_local, arrays.read(f"{table}.cos"), arrays.read(f"{table}.sin"))
    for name in ("head_bias", "embed_positions", "embed_tokens"):
        if name in arrays.names and name not in kinds:  # a decoder's embed_tokens is a matrix
            engine.set_vector(name, arrays.read(name))
    for name in sorted(arrays.names):
        key, _, part = name.rpartition(".")
        if part == "weight":
            engine.set_norm(*_layer_and_name(key), arrays.read(name), bias_of(key))


def _key(layer: int, name: str) -> str:
    """The name in the file of a matrix or norm."""
    return name if layer == WHOLE_MODEL else f"{layer}.{name}"


def _layer_and_name(key: str) -> tuple[int, str]:
    """Inverse of :func:`_key`."""
    layer, _, name = key.rpartition(".")
    return (int(layer) if layer else WHOLE_MODEL), name
