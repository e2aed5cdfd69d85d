"""Files -> raw rows: the values of their columns and their place. Knows formats, not what the columns mean."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmworks.base.errors import InputError
from lmworks.text import conll, questions
from lmworks.text.columns import find_fields
from lmworks.text.delimited import delimited, tabbed_lines
from lmworks.text.plain_text import byte_fault, convert_hint
from lmworks.text.rows import BadRows, DataSettings, Row, option, refuse_duplicate_columns

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
    ".conll": "conll",
    ".conllu": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
}


def format_of(path: Path, settings: DataSettings) -> str:
    """The format of a file: the setting, else by its name (``.gz`` is left aside).

    Raises:
        InputError: no setting, and an ending that is not known.
    """
    if settings.format:
        return settings.format
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    name = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if name is None:
        others = ", ".join(kind for kind in dict.fromkeys(SUFFIXES.values()) if kind != "txt")
        hint = f"{option('format', 'txt')} for plain text; or one of {others}"
        raise InputError("its name does not say what format it has", str(path), hint)
    return name


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
    if path.stat().st_size == 0:
        raise InputError("the file is empty", str(path), "give a file with at least one row")
    if _is_tagged(path, settings):
        notes.append(f"{path.name} is read as CoNLL: its lines are words with tags")
        return conll.sentences(path, _lines(path, bad), settings, bad)
    kind = format_of(path, settings)
    if kind == "conll":
        return conll.sentences(path, _lines(path, bad), settings, bad)
    if kind == "txt":
        return _texts(path, settings, bad)
    if kind in ("csv", "tsv"):
        return delimited(path, _lines(path, bad), kind, settings, bad, notes)
    if kind == "jsonl":
        return _json_lines(path, bad)
    if kind == "json":
        return _json(path, bad, notes)
    return _parquet(path)


def _is_tagged(path: Path, settings: DataSettings) -> bool:
    """Whether a file that its name does not call so is in a CoNLL format, by its first lines."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    by_name = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if settings.format or settings.kind not in (None, "tags") or by_name not in (None, "txt", "tsv"):
        return False
    if by_name == "txt" and "document" in settings.model_fields_set:
        return False
    try:
        return conll.is_tagged(line for _, line in _lines(path, BadRows("skip")))
    except InputError:  # which is said where the file is read
        return False


BYTE_ORDER_MARKS = {"UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-16": (b"\xff\xfe", b"\xfe\xff")}
"""UTF-32 first: one of its marks begins as one of UTF-16 does."""


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str]]:
    r"""Numbered lines, without their ends: ``\n``, ``\r\n`` or ``\r``, not other Unicode line separators."""
    number = 0
    try:
        with _open(path) as file:
            for raw in _raw_lines(file):
                number += 1
                if number == 1:
                    _refuse_other_encodings(path, raw)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    bad.add(byte_fault(error.start, raw[error.start]), f"{path}:{number}", convert_hint(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"not a whole gzip file ({error})", str(path), "fetch it again") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), "check the path and its rights") from error


def text_lines(path: Path) -> list[str]:
    """All lines of a plain text, empty ones too, without their ends; ``.gz`` is read.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8.
    """
    return [line for _, line in _lines(path, BadRows("stop", may_skip=False))]


def _refuse_other_encodings(path: Path, begin: bytes) -> None:
    """Refuse a file whose first bytes say that it is another kind of file than UTF-8 text.

    Raises:
        InputError: it is; the hint makes a file of it that can be read.
    """
    if begin.startswith(b"\x1f\x8b"):
        hint = f"give it the name of one: mv {shlex.quote(path.name)} {shlex.quote(path.name + '.gz')}"
        raise InputError("the file is compressed by gzip", str(path), hint)
    for encoding, marks in BYTE_ORDER_MARKS.items():
        if begin.startswith(marks):
            raise InputError(f"the file is {encoding}, not UTF-8", str(path), convert_hint(path, encoding))


def _raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    for raw in file:
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if b"\r" in line:
            yield from line.split(b"\r")
        else:
            yield line


def _texts(path: Path, settings: DataSettings, bad: BadRows) -> Iterator[Row]:
    """Plain text: the whole file, its paragraphs (blank lines between), or its lines, as documents."""
    lines = list(_lines(path, bad))
    if settings.kind != "text" and "document" not in settings.model_fields_set:
        _refuse_columns(path, [line for _, line in lines if line.strip()])
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
        paragraph: list[str] = []
        for number, line in [*lines, (0, "")]:
            if line.strip():
                begin = begin if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield Row({"text": "\n".join(paragraph)}, f"{path}:{begin}")
                paragraph = []


def _refuse_columns(path: Path, lines: list[str]) -> None:
    """Refuse a text whose lines all hold the same number of tabs: they are rows, unless the settings say text.

    Raises:
        InputError: it is such a text; the hint reads it as rows, or as text.
    """
    columns = tabbed_lines(lines)
    if columns is None:
        return
    names = [name.strip().lower() for name in lines[0].split("\t")]
    fields = option("format", "tsv")
    if not find_fields(names, {}, DataSettings()):
        fields += f" {option('header', False)} {option('columns', columns)}"
    hint = f"read it as rows: {fields}; or as one text: {option('kind', 'text')}"
    raise InputError("a text file whose lines look like rows of columns with tabs between them", str(path), hint)


class _Objects:
    """Makes dictionaries of the objects of a JSON text, and remembers in which of them a key stands twice."""

    def __init__(self) -> None:
        self.double_keys: dict[int, str] = {}

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.double_keys[id(values)] = next(key for key, count in counts.items() if count > 1)
        return values

    def double_key(self, value: Any) -> str | None:
        """A key that stands twice in an object or in one within it."""
        if not self.double_keys or not isinstance(value, (dict, list)):
            return None
        parts = value.values() if isinstance(value, dict) else value
        return self.double_keys.get(id(value)) or next(filter(None, map(self.double_key, parts)), None)


_LIST_BEGIN = re.compile(r"\s*\[\s*(\{|$)")
"""A first line with which a list of objects begins, on one line or on several."""


def _json_lines(path: Path, bad: BadRows) -> Iterator[Row]:
    is_first = True
    for number, line in _lines(path, bad):
        if not line.strip():
            continue
        if is_first and _LIST_BEGIN.match(line):
            hint = f"read it so: {option('format', 'json')}; or write one JSON object on each line"
            raise InputError("a JSON list, not JSON lines", f"{path}:{number}", hint)
        is_first = False
        place = f"{path}:{number}"
        objects = _Objects()
        try:
            value = json.loads(line, object_pairs_hook=objects)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(line.rstrip()) or error.msg.startswith("Unterminated")
            fault = "JSON that ends in the middle" if cut else f"not JSON ({error.msg})"
            bad.add(f"{fault}, character {error.colno}", place, "write one whole JSON object on each line")
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of open brackets
            bad.add(f"JSON that cannot be read ({error})", place, "write one plain JSON object on each line")
            continue
        if not isinstance(value, dict):
            bad.add(f"a JSON {type(value).__name__}, not an object", place, "write one JSON object on each line")
            continue
        if key := objects.double_key(value):
            bad.add(f"key {key!r} stands twice in one object", place, "keep one of the two")
            continue
        yield Row(value, place)


def _json(path: Path, bad: BadRows, notes: list[str]) -> Iterator[Row]:
    """A list of objects; or one object that holds such a list; or JSON lines under another name."""
    lines = [line for _, line in _lines(path, bad)]
    objects = _Objects()
    try:
        value = json.loads("\n".join(lines), object_pairs_hook=objects)
    except json.JSONDecodeError as error:
        if lines and lines[0].lstrip().startswith("{") and error.msg == "Extra data":
            notes.append(f"{path.name} holds one JSON object a line; it is read as JSONL")
            yield from _json_lines(path, bad)
            return
        hint = "write a list of objects: [{...}, {...}]"
        raise InputError(f"not JSON ({error.msg})", f"{path}:{error.lineno}", hint) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON that cannot be read ({error})", str(path), "write a plain list of objects") from error
    if questions.is_squad(value):
        notes.append(f"{path.name} has the layout of SQuAD")
        yield from questions.squad_rows(value, str(path))
        return
    if isinstance(value, dict):
        if id(value) in objects.double_keys:
            fault = f"key {objects.double_keys[id(value)]!r} stands twice in one object"
            raise InputError(fault, str(path), "keep one of the two")
        lists = {key: entry for key, entry in value.items() if isinstance(entry, list)}
        if len(lists) != 1:
            raise InputError("not a list of objects", str(path), "write a list of objects: [{...}, {...}]")
        key, value = next(iter(lists.items()))
        notes.append(f"the rows of {path.name} are its list {key!r}")
    if not isinstance(value, list):
        raise InputError("not a list of objects", str(path), "write a list of objects: [{...}, {...}]")
    for number, row in enumerate(value, 1):
        place = f"{path}: row {number}"
        if not isinstance(row, dict):
            bad.add(f"a JSON {type(row).__name__}, not an object", place, "write a list of objects")
        elif key := objects.double_key(row):
            bad.add(f"key {key!r} stands twice in one object", place, "keep one of the two")
        else:
            yield Row(row, place)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        refuse_duplicate_columns(file.schema_arrow.names, str(path))
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield Row(row, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file that can be read ({error})", str(path), "fetch it again") from error
