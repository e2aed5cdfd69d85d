"""Files -> raw rows: their columns and the place they came from. Knows formats, not what the columns mean."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lmworks.base.errors import InputError
from lmworks.text.rows import BadRows, DataSettings, Row

SUFFIXES = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".rst": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def format_of(path: Path, settings: DataSettings) -> str:
    """The format of a file: as told, else by its name (``.gz`` is looked through).

    Raises:
        InputError: the name says nothing.
    """
    if settings.format:
        return settings.format
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    found = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is None:
        kinds = ", ".join(dict.fromkeys(SUFFIXES.values()))
        raise InputError("its name does not say what format it has", str(path), f"tell it: --format, one of {kinds}")
    return found


def files_in(folder: Path, settings: DataSettings) -> list[Path]:
    """The data files of a folder and its subfolders, in order of their names; all must have one format."""
    every = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    readable: dict[str, list[Path]] = {}
    for path in every:
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
        if settings.format or (suffixes and suffixes[-1] in SUFFIXES):
            readable.setdefault(format_of(path, settings), []).append(path)
    if not readable:
        raise InputError("this folder has no data file in it", str(folder), f"known are {', '.join(SUFFIXES)}")
    if len(readable) > 1:
        counts = ", ".join(f"{len(paths)} {name}" for name, paths in readable.items())
        raise InputError(f"this folder mixes formats ({counts})", str(folder), "name one of the files, or divide them")
    return next(iter(readable.values()))


def records(path: Path, settings: DataSettings, bad: BadRows, notes: list[str]) -> Iterator[Row]:
    """All rows of one file, in order; their values are named by its columns.

    Raises:
        InputError: the file cannot be read, or has a bad row and such rows are not to be skipped.
    """
    kind = format_of(path, settings)
    if path.stat().st_size == 0:
        raise InputError("the file is empty", str(path), "give a file with at least one row")
    if kind == "txt":
        return _texts(path, settings, bad, notes)
    if kind in ("csv", "tsv"):
        return _delimited(path, kind, settings, bad)
    if kind == "jsonl":
        return _json_lines(path, bad)
    if kind == "json":
        return _json(path, bad, notes)
    return _parquet(path)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str]]:
    """Numbered lines, without their ends. Lines end at a newline alone, not at other Unicode line separators."""
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                        hint = f"convert it: iconv -f UTF-16 -t UTF-8 {path.name}"
                        raise InputError("the file is UTF-16, not UTF-8", str(path), hint)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    fault = f"not UTF-8: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}"
                    bad.add(fault, f"{path}:{number}", f"convert the file: iconv -f LATIN1 -t UTF-8 {path.name}")
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"not a whole gzip file ({error})", str(path), "fetch it again") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), "check the path and its rights") from error


def _texts(path: Path, settings: DataSettings, bad: BadRows, notes: list[str]) -> Iterator[Row]:
    """Plain text: the whole file, its paragraphs (blank lines between), or its lines, as documents."""
    lines = list(_lines(path, bad))
    full = [line for _, line in lines if line.strip()]
    with_tab = sum(line.count("\t") == 1 for line in full)
    if len(full) > 4 and with_tab > 0.95 * len(full):
        example = '--format tsv --header false --columns "{text: 1, label: 2}"'
        notes.append(f"{path.name} was read as text, but its lines hold one tab each; if these are columns: {example}")
    if settings.document == "file":
        text = "\n".join(line for _, line in lines)
        if text.strip():
            yield Row({"text": text}, f"{path}:1")
    elif settings.document == "line":
        for number, line in lines:
            if line.strip():
                yield Row({"text": line}, f"{path}:{number}")
    else:
        begin = 0
        held: list[str] = []
        for number, line in [*lines, (0, "")]:
            if line.strip():
                begin = begin if held else number
                held.append(line)
            elif held:
                yield Row({"text": "\n".join(held)}, f"{path}:{begin}")
                held = []


def _delimited(path: Path, kind: str, settings: DataSettings, bad: BadRows) -> Iterator[Row]:
    """CSV and TSV. A record with another number of fields than the header has is a bad row."""
    csv.field_size_limit(sys.maxsize)
    number = 0

    def feed() -> Iterator[str]:
        nonlocal number
        for number, line in _lines(path, bad):  # noqa: B007  (the enclosing function reads it)
            yield line + "\n"

    quotes = settings.quotes if settings.quotes is not None else kind == "csv"
    reader = csv.reader(
        feed(),
        delimiter=settings.delimiter or ("," if kind == "csv" else "\t"),
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    names: list[str] | None = None
    while True:
        first = number + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            hint = "close the quotes (a quote inside a quoted field is written twice), or read with --quotes false"
            bad.add(f"not a CSV record ({error})", f"{path}:{first}", hint)
            continue
        if fields is None:
            return
        if not fields:
            continue
        if names is None:
            names = _header(fields, path, settings)
            if settings.header:
                continue
        if len(fields) != len(names):
            hint = "give every row the same number of fields, with quotes around fields that hold the delimiter"
            bad.add(f"{len(fields)} fields where {len(names)} are expected", f"{path}:{first}", hint)
            continue
        yield Row(dict(zip(names, fields, strict=True)), f"{path}:{first}")


def _header(fields: list[str], path: Path, settings: DataSettings) -> list[str]:
    if not settings.header:
        return [str(index) for index in range(1, len(fields) + 1)]
    names = [name.strip() or f"column {index}" for index, name in enumerate(fields, 1)]
    double = next((name for name in names if names.count(name) > 1), None)
    if double:
        hint = "name each column once; or, where there is no header, say --header false"
        raise InputError(f"the header names {double!r} twice", f"{path}:1", hint)
    return names


def _json_lines(path: Path, bad: BadRows) -> Iterator[Row]:
    for number, line in _lines(path, bad):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(line.rstrip()) or error.msg.startswith("Unterminated")
            what = "JSON that ends in the middle" if cut else f"not JSON ({error.msg})"
            bad.add(f"{what}, character {error.colno}", place, "write one whole JSON object on each line")
            continue
        if not isinstance(value, dict):
            bad.add(f"a JSON {type(value).__name__}, not an object", place, "write one JSON object on each line")
            continue
        yield Row(value, place)


def _json(path: Path, bad: BadRows, notes: list[str]) -> Iterator[Row]:
    """A list of objects; or one object that holds such a list; or JSON lines under another name."""
    lines = [line for _, line in _lines(path, bad)]
    try:
        value = json.loads("\n".join(lines))
    except json.JSONDecodeError as error:
        if lines and lines[0].lstrip().startswith("{") and error.msg == "Extra data":
            notes.append(f"{path.name} holds one JSON object a line; it is read as JSONL")
            yield from _json_lines(path, bad)
            return
        hint = "write a list of objects: [{...}, {...}]"
        raise InputError(f"not JSON ({error.msg})", f"{path}:{error.lineno}", hint) from error
    if isinstance(value, dict):
        lists = {key: held for key, held in value.items() if isinstance(held, list)}
        if len(lists) != 1:
            raise InputError("not a list of objects", str(path), "write a list of objects: [{...}, {...}]")
        key, value = next(iter(lists.items()))
        notes.append(f"the rows of {path.name} are its list {key!r}")
    if not isinstance(value, list):
        raise InputError("not a list of objects", str(path), "write a list of objects: [{...}, {...}]")
    for number, row in enumerate(value, 1):
        place = f"{path}: row {number}"
        if isinstance(row, dict):
            yield Row(row, place)
        else:
            bad.add(f"a JSON {type(row).__name__}, not an object", place, "write a list of objects")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield Row(row, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file that can be read ({error})", str(path), "fetch it again") from error
