"""Where the files of a benchmark are: below a folder of the user, or fetched from the hub. Reads their rows.

A layout's ``file`` is the end of a path: it is found wherever below the folder it lies, also where the folder is the
one in which it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base import sources
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.base.files import expand_home
from lmworks.base.settings import build
from lmworks.suites.benchmark import Benchmark, Layout
from lmworks.suites.expressions import evaluate
from lmworks.text import formats
from lmworks.text.plain_text import read_text, split_lines
from lmworks.text.rows import BadRows, DataSettings

ROW, FILE, FOLDER = "row", "file", "folder"
"""Names in expressions: the whole row, as in ``row["#1 String"]``; the name of its file without ending; its folder."""


class Unavailable(InputError):
    """The files of a benchmark, or the library of one of its metrics, are not there."""


@dataclass(frozen=True)
class Item:
    """A row of a benchmark.

    Attributes:
        values: its columns, the entries that ``each`` took out of it, the layout's fields, and those of its file.
        place: file and line.
        number: which row it is, from 0.
    """

    values: Mapping[str, Any]
    place: str
    number: int


@dataclass(frozen=True)
class BenchmarkFiles:
    """The files of a benchmark on this disk.

    Attributes:
        layout: the one in which they are.
        split: that they hold.
        paths: of the rows.
        example_paths: of the rows that few-shot prompts may show; empty: there are none.
        origin: the folder, or the source on the hub.
    """

    layout: Layout
    split: str
    paths: list[Path]
    example_paths: list[Path]
    origin: str


def find_files(
    name: str, benchmark: Benchmark, data: str | Path | None, split: str | None = None, offline: bool | None = None
) -> BenchmarkFiles:
    """The files of a benchmark.

    Args:
        name: of the benchmark, for errors.
        benchmark: whose files they are.
        data: the folder below which they lie; None: they are fetched from the hub, once.
        split: in place of the layout's own.
        offline: fetch nothing; default: as LMWORKS_OFFLINE says.

    Raises:
        InputError: they are not there; the hint says where to put them.
    """
    if data is None:
        folder, origin = _fetch(name, benchmark, offline), f"hub:{benchmark.hub}"
    else:
        folder, origin = expand_home(data).resolve(), str(data)
        if not folder.is_dir():
            raise InputError("there is no such folder", str(data), "give the folder that holds the suite's files")
    for layout in benchmark.layouts:
        named = split or layout.split
        if paths := _matching(folder, layout.file, named):
            examples = _matching(folder, layout.examples, named) if layout.examples else []
            return BenchmarkFiles(layout, named, paths, examples, origin)
    wanted = list(dict.fromkeys(_pattern(layout.file, split or layout.split) for layout in benchmark.layouts))
    hint = f"put {wanted[0]} anywhere below {folder}" + (
        f"; it is published at {benchmark.url}" if benchmark.url else ""
    )
    if benchmark.hub and data is not None:
        hint += f"; or leave --data out: it is then fetched from hub:{benchmark.hub}"
    raise Unavailable(f"the files of {name} are not there: {list_names(wanted)}", origin, hint)


def _fetch(name: str, benchmark: Benchmark, offline: bool | None) -> Path:
    wanted = _pattern(benchmark.layouts[0].file, benchmark.layouts[0].split)
    place = f"it is published at {benchmark.url}" if benchmark.url else "see docs/evaluating.md"
    hint = f"put {wanted} anywhere below a folder and name that: --data FOLDER; {place}"
    if benchmark.hub is None:
        raise Unavailable(f"the files of {name} are not on the hub", "--data", hint)
    try:
        return sources.find(f"hub:{benchmark.hub}", "data", offline).path
    except InputError as error:
        raise Unavailable(f"the files of {name} cannot be fetched: {error.fault}", error.place, hint) from error


def _pattern(file: str, split: str) -> str:
    return file.replace("{split}", split)


def _matching(folder: Path, file: str, split: str) -> list[Path]:
    """The files whose path ends as the pattern says: all below one folder, the one nearest to the top."""
    pattern = _pattern(file, split)
    levels = pattern.count("/")
    found = [path for path in folder.rglob(pattern.rpartition("/")[2]) if path.is_file() and path.match(pattern)]
    tops = [path.parents[levels] for path in found]
    top = min(tops, key=lambda parent: (len(parent.parts), str(parent)), default=None)
    return sorted(path for path in found if path.parents[levels] == top)


def read_items(files: BenchmarkFiles, paths: list[Path]) -> list[Item]:
    """The rows of some of a benchmark's files.

    Raises:
        InputError: a file or a row cannot be read, or there is no row.
    """
    settings = build(DataSettings, dict(files.layout.read), "read")
    items: list[Item] = []
    for path in paths:
        rows = list(formats.records(path, settings, BadRows("stop"), []))
        lines = {name: _lines(files, path, name, len(rows)) for name in files.layout.beside}
        for number, row in enumerate(rows):
            beside = {name: texts[number] for name, texts in lines.items()}
            values = {**row.values, **beside, ROW: row.values, FILE: path.stem, FOLDER: str(path.parent)}
            items += [Item(fields, place, len(items)) for fields, place in _rows(files.layout, values, row.place)]
    if not items:
        raise InputError("has no row of the benchmark", str(paths[0]), "give the file as it was published")
    return items


def _lines(files: BenchmarkFiles, path: Path, name: str, count: int) -> list[str]:
    """The lines of a file beside another one, a line for each of its rows.

    Raises:
        InputError: it is not there, or has another number of lines.
    """
    place = path.parent / _pattern(files.layout.beside[name], files.split)
    if not place.is_file():
        raise Unavailable(f"there is no {place.name} beside {path.name}", str(path.parent), "put it there")
    lines = split_lines(read_text(place))
    if len(lines) != count:
        fault = f"{count_of(len(lines), 'line')}, and {path.name} has {count_of(count, 'row')}"
        raise InputError(fault, str(place), "take both from the same release")
    return lines


def _rows(layout: Layout, values: dict[str, Any], place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows that a row of the file holds, with the layout's fields."""
    for within, at in _entries(list(layout.each.items()), values, place):
        if layout.where is not None and not evaluate(layout.where, within, at):
            continue
        fields = dict(within)
        for name, text in layout.fields.items():
            fields[name] = evaluate(text, fields, at)
        yield fields, at


def _entries(lists: list[tuple[str, str]], values: dict[str, Any], place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """A row, or one for each entry of the lists within it."""
    if not lists:
        yield values, place
        return
    (name, text), rest = lists[0], lists[1:]
    entries = evaluate(text, values, place)
    if not isinstance(entries, list):
        raise InputError(f"{text} is a {type(entries).__name__}, not a list", place, "give the published file")
    for number, entry in enumerate(entries, 1):
        yield from _entries(rest, {**values, name: entry}, f"{place}, {name} {number}")
