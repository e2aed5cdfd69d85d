"""A GGUF file: metadata and tensors, read from a memory map. Knows nothing of models or tokenizers.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, counts, key-value pairs, one
description a tensor, then the tensors' bytes, aligned. Every read is checked against the end of the file, so that one
cut short or damaged gives an error with the byte where it shows. The `gguf` library knows the quantized types; its own
reader is not used, as it builds an array object for each of a vocabulary's strings, which takes seconds.

A model may be split over several files (``NAME-00001-of-00003.gguf``; keys ``split.*``, by llama-gguf-split): the first
has the metadata, each describes its own tensors. Naming any of them opens all.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from lmworks.base.errors import InputError
from lmworks.base.hub import PART

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
READABLE: tuple[str, ...] = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
READABLE += ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0")
KINDS = {int(kind) for kind in GGML_QUANT_SIZES}
CHUNK = 1 << 18  # elements dequantized at a time: their float32 form fits a core's cache
FETCH_AGAIN = "the file is damaged or was not fetched whole: fetch it again"
PIECE = re.compile(r"\.(gguf[-.]split-?[a-z]+|part[-_]?\d+of\d+|part[-_.]?\d+|\d{3})$", re.IGNORECASE)


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in the file.

    Attributes:
        name: its name.
        shape: (rows, columns) or (size,); the order of PyTorch, which is the reverse of the file's.
        kind: how its numbers are stored, such as Q4_1.
        offset, size: where its bytes begin in the file and how many they are.
        part: index of the file, where the model is split over several.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    size: int
    part: int = 0

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


def value_of(metadata: Mapping[str, Any], key: str, kind: type, place: str, default: Any = None) -> Any:
    """The value of a key, or the default where it is missing; it must be of one kind: int, float, bool, str, list (of
    texts) or numpy.ndarray.

    Raises:
        InputError: it is of another kind.
    """
    value = metadata.get(key)
    if value is None:
        return default
    is_kind = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not is_kind or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} is a {type(value).__name__}, not a {kind.__name__}", place, FETCH_AGAIN)
    return value


class GGUFFile:
    """Metadata and tensors of one GGUF model, with all its parts where it is split.

    Attributes:
        metadata: values by key; arrays of numbers are numpy arrays, arrays of texts are lists.
        tensors: where each tensor lies, by name.

    Raises:
        InputError: not GGUF, an unknown version or byte order, cut short, damaged, or a part is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        first = _Part(self.path)
        count = value_of(first.metadata, "split.count", int, str(path), 1)
        self._parts = [first] if count < 2 else _all_parts(first, count)
        self.metadata = self._parts[0].metadata
        self.tensors: dict[str, Stored] = {}
        for index, part in enumerate(self._parts):
            for name, stored in part.tensors.items():
                if name in self.tensors:
                    raise InputError(f"tensor {name!r} stands in an earlier part too", str(part.path), FETCH_AGAIN)
                self.tensors[name] = replace(stored, part=index)
        promised = value_of(self.metadata, "split.tensors.count", int, str(path), len(self.tensors))
        if count > 1 and promised != len(self.tensors):
            fault = f"its {count} parts hold {len(self.tensors)} tensors, not {promised}"
            raise InputError(fault, str(path), FETCH_AGAIN)

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor, as they lie in the file."""
        stored = self.tensors[name]
        return np.frombuffer(self._parts[stored.part].map, np.uint8, stored.size, stored.offset)

    def read(self, names: list[str], dtype: torch.dtype = torch.float32, threads: int = 2) -> dict[str, torch.Tensor]:
        """Tensors by name, dequantized. Those stored in float32 stay in the file's map, if that is ``dtype``.

        Args:
            names: of the tensors.
            dtype: float32, bfloat16 or float16.
            threads: that dequantize.

        Raises:
            InputError: a type of quantization that is not read here.
        """
        result: dict[str, torch.Tensor] = {}
        chunks: list[tuple[torch.Tensor, np.ndarray, GGMLQuantizationType]] = []
        for name in names:
            stored = self._readable(name)
            if stored.kind == "F32" and dtype == torch.float32:
                result[name] = torch.from_numpy(self.raw(name).view(np.float32)).view(stored.shape)
                continue
            result[name] = torch.empty(stored.shape, dtype=dtype)
            chunks += _chunks(result[name], self.raw(name), GGMLQuantizationType[stored.kind])
        # Freeing one big block makes glibc keep blocks up to its size; otherwise each chunk's intermediate results
        # would go back to the system and be fetched again, page by page, which takes as long as the arithmetic.
        np.empty(16 * 4 * CHUNK, np.uint8)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(_dequantize, *zip(*chunks, strict=True)) if chunks else ():
                pass
        self._forget()
        return result

    def read_stored(self, names: list[str]) -> dict[str, torch.Tensor]:
        """Matrices as the file has them, in its map: (rows, columns), or of quantized ones the blocks,
        (rows, bytes of a row) uint8.

        Raises:
            InputError: a type of quantization that is not read here.
        """
        dense = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        result = {}
        for name in names:
            stored = self._readable(name)
            raw = torch.from_numpy(self.raw(name)).view(stored.shape[0], -1)
            result[name] = raw.view(dense[stored.kind]) if stored.kind in dense else raw
        return result

    def _readable(self, name: str) -> Stored:
        stored = self.tensors[name]
        if stored.kind not in READABLE:
            raise InputError(
                f"tensor {name!r} is quantized as {stored.kind}, which is not read here",
                str(self.path),
                f"take a file quantized as one of {', '.join(READABLE)}",
            )
        return stored

    def _forget(self) -> None:
        """Let the system take back the pages that were read; those that are read again are loaded again. Nothing may
        have been written to the map before: it would be lost."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for part in self._parts:
                part.map.madvise(mmap.MADV_DONTNEED)


def _all_parts(opened: _Part, count: int) -> list[_Part]:
    """Every part of a split model, in order, given one of them."""
    place = str(opened.path)
    number = value_of(opened.metadata, "split.no", int, place, 0) + 1
    if MAGIC in opened.rest():
        hint = "join the parts with llama-gguf-split --merge, or put them beside one another and name the first"
        raise InputError(f"its {count} parts were joined byte by byte, which gives no GGUF file", place, hint)
    match = PART.fullmatch(opened.path.name)
    if match is None or int(match["count"]) != count:
        fault = f"this is part {number} of {count}, and its name does not tell the names of the others"
        raise InputError(fault, place, f"name the parts NAME-00001-of-{count:05d}.gguf and so on")
    paths = [opened.path.with_name(f"{match['name']}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
    if missing := [path.name for path in paths if not path.is_file()]:
        fault = f"this is part {number} of a model in {count} files; {_few(missing)} not beside it"
        raise InputError(fault, place, "fetch every part into this folder")
    parts = [opened if path == opened.path else _Part(path) for path in paths]
    for index, part in enumerate(parts):
        numbers = [value_of(part.metadata, key, int, str(part.path), 0) for key in ("split.no", "split.count")]
        if numbers != [index, count]:
            fault = (
                f"it says to be part {numbers[0] + 1} of {numbers[1]}, its name that it is part {index + 1} of {count}"
            )
            raise InputError(fault, str(part.path), "the parts are not of one model: fetch them again")
    return parts


def _few(names: list[str]) -> str:
    """The first names, how many more there are, and the verb: "a, b and 2 more are"."""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{listed} {'is' if len(names) == 1 else 'are'}"


class _Part:
    """One file: its map, metadata and tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                # a private map: nothing that happens to the weights in memory reaches the file
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be opened: {error}", str(path), "give the path of a GGUF file") from error
        cursor = _Cursor(self.map, str(path))
        if cursor.take(4) != MAGIC:
            hint = "give a .gguf file, or the folder that holds config.json and the weights"
            if PIECE.search(path.name):  # of a file that was cut by a tool that knows nothing of GGUF
                hint = "join the pieces first, in order: cat NAME.part1 NAME.part2 > NAME.gguf"
            raise InputError("is not a GGUF file: it does not begin with GGUF", str(path), hint)
        _check_version(cursor.number("I"), str(path))
        tensors, pairs = cursor.number("Q"), cursor.number("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = cursor.text()
            if key in self.metadata:
                raise cursor.error(f"key {key!r} stands there twice")
            self.metadata[key] = cursor.value(cursor.number("I"))
        self.tensors: dict[str, Stored] = {}
        for stored in self._describe(cursor, tensors):
            if stored.name in self.tensors:
                raise cursor.error(f"tensor {stored.name!r} stands there twice")
            self.tensors[stored.name] = stored

    def rest(self) -> bytes:
        """Up to 4 kB of what lies behind the last tensor; empty where nothing does."""
        end = max((stored.offset + stored.size for stored in self.tensors.values()), default=len(self.map))
        return self.map[end : end + 4096]

    def _describe(self, cursor: _Cursor, count: int) -> Iterator[Stored]:
        """Where the tensors lie: one after the other in the order of their descriptions, each aligned. A file whose
        offsets say otherwise is damaged: its sizes, types or offsets are not those that it was written with."""
        listed = []
        for _ in range(count):
            name, dimensions = cursor.text(), cursor.number("I")
            if not 1 <= dimensions <= 4:
                raise cursor.error(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
            if 0 in shape:
                raise cursor.error(f"tensor {name!r} has no elements")
            listed.append((name, shape, cursor.number("I"), cursor.number("Q")))
        alignment = value_of(self.metadata, "general.alignment", int, cursor.place, 32)
        if alignment <= 0 or alignment & (alignment - 1):
            raise cursor.error(f"general.alignment is {alignment}, not a power of two")
        base, expected = -(-cursor.at // alignment) * alignment, 0
        for name, shape, number, offset in listed:
            if number not in KINDS:
                fault = f"tensor {name!r} is of the unknown type {number}"
                raise InputError(fault, str(self.path), FETCH_AGAIN)
            kind = GGMLQuantizationType(number)
            block, width = GGML_QUANT_SIZES[kind]
            stored = Stored(name, shape, kind.name, base + offset, math.prod(shape) // block * width)
            if shape[-1] % block:
                fault = f"tensor {name!r} has rows of {shape[-1]}, not whole blocks"
                raise InputError(fault, str(self.path), FETCH_AGAIN)
            if offset != expected:
                fault = f"tensor {name!r} begins {offset:,} bytes behind the header, not {expected:,}"
                raise InputError(fault, str(self.path), FETCH_AGAIN)
            expected += -(-stored.size // alignment) * alignment
            if stored.offset + stored.size > len(self.map):
                raise InputError(
                    f"tensor {name!r} should end at byte {stored.offset + stored.size:,}, "
                    f"but the file has {len(self.map):,}",
                    str(self.path),
                    FETCH_AGAIN,
                )
            yield stored


def _chunks(
    out: torch.Tensor, raw: np.ndarray, kind: GGMLQuantizationType
) -> Iterator[tuple[torch.Tensor, np.ndarray, GGMLQuantizationType]]:
    """Arguments of :func:`_dequantize`: some blocks of a tensor, and where their numbers go."""
    block, width = GGML_QUANT_SIZES[kind]
    flat, step = out.view(-1), max(CHUNK // block, 1)
    for begin in range(0, len(raw) // width, step):
        yield flat[begin * block : (begin + step) * block], raw[begin * width : (begin + step) * width], kind


def _dequantize(out: torch.Tensor, raw: np.ndarray, kind: GGMLQuantizationType) -> None:
    """One chunk: whole blocks in, numbers out."""
    if kind == GGMLQuantizationType.BF16:  # the library widens it through integers; torch has the type itself
        out.copy_(torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16))
    elif kind == GGMLQuantizationType.F16:
        out.copy_(torch.from_numpy(raw.view(np.float16)))
    else:
        out.copy_(torch.from_numpy(dequantize(raw.reshape(1, -1), kind).reshape(-1)))


def _check_version(version: int, place: str) -> None:
    if version in VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        hint = "take the little-endian file, or convert it with gguf-convert-endian FILE little"
        raise InputError("its numbers are in the other byte order (big-endian GGUF)", place, hint)
    raise InputError(f"GGUF version {version} is not read here", place, "convert it with a present-day llama.cpp")


class _Cursor:
    """Reads forward through the header, and never past the end of the file."""

    def __init__(self, data: mmap.mmap, place: str) -> None:
        self.data, self.place, self.at = data, place, 0

    def error(self, fault: str) -> InputError:
        return InputError(f"{fault} (at byte {self.at:,} of {len(self.data):,})", self.place, FETCH_AGAIN)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise self.error(f"the file ends inside its header, where {count:,} more bytes should be")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return self._decode(self.take(self.number("Q")))

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != ARRAY:
            raise self.error(f"a value is of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == STRING:
            return self._texts(count)
        if inner in NUMBERS:
            dtype = np.dtype("<" + NUMBERS[inner])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        raise self.error(f"an array is of the unknown type {inner}")

    def _texts(self, count: int) -> list[str]:
        """Many strings. The plainest loop there is: a vocabulary has a hundred thousand of them."""
        data, at, end = self.data, self.at, len(self.data)
        if count * 8 > end - at:
            raise self.error(f"an array of {count:,} texts does not fit in the file")
        length_at, texts = struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            if at + 8 > end or (stop := at + 8 + length_at(data, at)[0]) > end:
                self.at = at
                raise self.error("the file ends inside an array of texts")
            texts.append(data[at + 8 : stop])
            at = stop
        self.at = at
        return [self._decode(text) for text in texts]

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error("a text is not UTF-8") from None
