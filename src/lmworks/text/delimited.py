"""CSV and TSV -> raw rows, going on after a record that cannot be read; text files that look like such tables.

Knows no file: lines come with their numbers. Quotes are read as in RFC 4180.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lmworks.base.errors import InputError
from lmworks.text.rows import BadRows, DataSettings, Row, option

QUOTES_HINT = (
    f"close the quotes (a quote inside a quoted field is written twice), or read with {option('quotes', 'false')}"
)
OTHER_DELIMITERS = (";", "\t", "|", ",")
LEAST_LINES = 3
"""A record of so many lines is looked at: each of them may be a row of its own."""

Line = tuple[int, str]


class _Feed:
    """Numbered lines for `csv.reader`; `taken` are those of the current record, which can be given back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.lines = lines
        self.again: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.taken.append(line)
        return line[1] + "\n"

    def give_back(self, after: int) -> None:
        """Lines of the current record after that line number will be read again."""
        self.again.extendleft(reversed([line for line in self.taken if line[0] > after]))


def delimited(
    path: Path, lines: Iterator[Line], kind: str, settings: DataSettings, bad: BadRows, notes: list[str]
) -> Iterator[Row]:
    """Rows of a CSV or TSV; their values are named by the header, else by numbers from 1.

    A record that is no CSV, or has another number of fields than the header, is a bad row. Where a quoted field runs
    over lines that look like rows, a quote is missing: only the line in which it opens is left out.
    """
    feed = _Feed(lines)
    delimiter = settings.delimiter or ("," if kind == "csv" else "\t")
    quotes = settings.quotes if settings.quotes is not None else kind == "csv"
    names: list[str] | None = None
    suspects: list[str] = []
    for fields in _records(path, feed, delimiter, quotes, bad):
        first, last = feed.taken[0][0], feed.taken[-1][0]
        if names is None:
            names = _names(fields, f"{path}:{first}", settings)
            if settings.header:
                continue
        rows_inside = len(feed.taken) >= LEAST_LINES and _are_rows(feed.taken, len(names), delimiter)
        if len(fields) != len(names):
            if rows_inside:
                first = _opening_line(feed.taken, delimiter)
                feed.give_back(first)
            bad.add(*_count_fault(fields, names, first, last, rows_inside, path))
            continue
        if rows_inside:
            suspects.append(f"lines {first} to {last}")
        yield Row(dict(zip(names, fields, strict=True)), f"{path}:{first}", has_header=settings.header)
    if suspects:
        more = f" and {len(suspects) - 1} more" if len(suspects) > 1 else ""
        fault = f"{path.name}: a quoted field runs over lines that look like rows ({suspects[0]}{more})"
        notes.append(f"{fault}; if a quote is missing there, close it, or read with {option('quotes', 'false')}")


def _records(path: Path, feed: _Feed, delimiter: str, quotes: bool, bad: BadRows) -> Iterator[list[str]]:
    """The fields of each record that is not empty; its lines are ``feed.taken`` until the next record is asked for.

    A record that is no CSV is a bad row, and reading goes on after the line in which its quote opens.

    Raises:
        InputError: the first record is no CSV, so that the columns are not known.
    """
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(feed, delimiter=delimiter, quoting=quoting, strict=True)
    is_first = True
    while True:
        feed.taken.clear()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            opened = _opening_line(feed.taken, delimiter)
            fault = _quote_fault(str(error), opened, feed.taken[-1][0])
            if is_first:
                raise InputError(fault, f"{path}:{opened}", QUOTES_HINT) from error
            bad.add(fault, f"{path}:{opened}", QUOTES_HINT)
            feed.give_back(opened)
            continue
        if fields is None:
            return
        if fields:
            is_first = False
            yield fields


def _quote_fault(error: str, opened: int, last: int) -> str:
    if error.startswith("unexpected end"):
        return "not a CSV record: a quote opens in this line and nothing closes it"
    if opened == last:
        return f"not a CSV record ({error})"
    return f"not a CSV record: a quote opens in this line, and line {last} closes it wrongly ({error})"


def _count_fault(
    fields: list[str], names: list[str], first: int, last: int, rows_inside: bool, path: Path
) -> tuple[str, str, str]:
    """Fault, place and hint of a record with another number of fields than the header."""
    fault = f"{len(fields)} fields where {len(names)} are expected"
    if rows_inside:
        return f"{fault}: a quote opens in this line, and only line {last} closes it", f"{path}:{first}", QUOTES_HINT
    fault += f", in lines {first} to {last}" if last > first else ""
    hint = "give every row the same number of fields, with quotes around fields that hold the delimiter"
    return fault, f"{path}:{first}", hint


def _opening_line(lines: list[Line], delimiter: str) -> int:
    """The line in which the quote opens that is never closed, or is closed wrongly; else that of the last quote."""
    opened, state = lines[0][0], "start"
    for number, text in lines:
        for sign in f"{text}\n":
            if state == "quoted":
                state = "closed" if sign == '"' else "quoted"
            elif sign == '"' and state in ("start", "closed"):  # after "closed" it is a doubled quote
                opened = number if state == "start" else opened
                state = "quoted"
            elif sign in (delimiter, "\n"):
                state = "start"
            elif state == "closed":
                return opened
            else:
                state = "plain"
    return opened


def _are_rows(lines: list[Line], count: int, delimiter: str) -> bool:
    """Whether each line alone has that number of fields, two or more."""
    if count < 2:
        return False
    return all(len(next(csv.reader([text], delimiter=delimiter), [])) == count for _, text in lines)


def _names(fields: list[str], place: str, settings: DataSettings) -> list[str]:
    """The names of the columns: the header's, else numbers."""
    if not settings.header:
        return [str(index) for index in range(1, len(fields) + 1)]
    if len(fields) == 1 and settings.delimiter is None:
        _refuse_other_delimiter(fields[0], place)
    names = [name.strip() or f"column {index}" for index, name in enumerate(fields, 1)]
    double = next((name for name, count in Counter(names).items() if count > 1), None)
    if double is not None:
        columns = guess_columns([fields])
        hint = (
            "name each column once; or, where the first line is a row, "
            f"{option('header', False)} {option('columns', columns)}"
        )
        raise InputError(f"the header names {double!r} twice", place, hint)
    return names


def _refuse_other_delimiter(header: str, place: str) -> None:
    """Refuse a table of one column whose name holds what may stand between columns.

    Raises:
        InputError: it is such a table; the hint reads it with the other delimiter.
    """
    sign = next((sign for sign in OTHER_DELIMITERS if sign in header.strip()), None)
    if sign is not None:
        hint = option("format", "tsv") if sign == "\t" else option("delimiter", sign)
        raise InputError(f"the header is one column, {header.strip()!r}; do others stand in it?", place, hint)


def tabbed_lines(lines: list[str]) -> dict[str, int] | None:
    """The likely columns of lines with as many tabs each, by number from 1; None where the lines look like text."""
    if len(lines) < 2:
        return None
    counts = Counter(line.count("\t") for line in lines)
    tabs, alike = counts.most_common(1)[0]
    rows = [line.split("\t") for line in lines if line.count("\t") == tabs]
    full = sum(all(field.strip() for field in row) for row in rows)
    if tabs == 0 or full < 0.95 * len(lines) or (len(lines) < 5 and alike < len(lines)):
        return None
    return guess_columns(rows)


def guess_columns(rows: list[list[str]]) -> dict[str, int]:
    """A proposal of what the columns of a table without names are: text and label, prompt and completion, or text.

    The longest column is the text; another one whose values repeat is a label.
    """
    columns = list(zip(*rows, strict=True))
    longest = max(range(len(columns)), key=lambda place: sum(map(len, columns[place])))
    others = [place for place in range(len(columns)) if place != longest]
    if not others:
        return {"text": 1}
    label = min(others, key=lambda place: (len(set(columns[place])), sum(map(len, columns[place]))))
    length = {place: sum(map(len, columns[place])) for place in (longest, label)}
    repeats = len(set(columns[label])) <= len(rows) / 2
    short = len(rows) < 10 and max(map(len, columns[label])) <= 20 and 2 * length[label] <= length[longest]
    if repeats or short:
        return {"text": longest + 1, "label": label + 1}
    first, second = sorted((longest, label))
    return {"prompt": first + 1, "completion": second + 1}
