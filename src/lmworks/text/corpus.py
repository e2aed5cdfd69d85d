"""A source of data -> a table of one kind, and its division into training and held-out rows.

The kind is recognised by the columns or set; either way it stands in the table's notes. Knows nothing of tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.base.files import expand_home
from lmworks.base.sources import is_offline
from lmworks.text import datasets, formats, python_rows, shapes
from lmworks.text.beir import is_beir, judged_pairs
from lmworks.text.columns import FIELDS, MissingColumns
from lmworks.text.labels import LabelNames, are_continuous, are_nearly_unique
from lmworks.text.plain_text import split_lines
from lmworks.text.rows import BadRows, DataSettings, Kind, Row, Table, option
from lmworks.text.tagged_rows import with_labels

CHARACTERS_A_ROW = 1000
"""How much of one long text counts as a held-out row."""
FEWEST_TEXTS = 10  # of which some are held out whole
SAMPLE_ROWS = 1000
"""Rows that are looked at before it is decided what the columns mean."""


def read(source: Any, settings: DataSettings | None = None) -> Table:
    """All usable rows of a source.

    Args:
        source: a file, a folder of files of one format, a named data set (``lmworks data list``), ``hub:owner/name``;
            or rows given in Python: a list of dictionaries, a data frame or a table (text/python_rows).
        settings: how to read it.

    Raises:
        InputError: nothing is there, a row cannot be used, or the columns do not say what a row is.
    """
    settings = settings or DataSettings()
    bad = BadRows(settings.on_bad_row)
    notes: list[str] = []
    raw, name = _open(source, settings, bad, notes)
    sample = list(itertools.islice(raw, min(settings.limit or SAMPLE_ROWS, SAMPLE_ROWS)))
    if not sample:
        reason = f" ({bad.reasons[0]})" if bad.reasons else ""
        raise InputError(f"there is no usable row{reason}", name, "give a file with at least one row")
    if not any(row.values for row in sample):
        hint = 'give rows with fields, as {"text": "..."} or {"prompt": "...", "completion": "..."}'
        raise InputError("the rows are empty: none has a column", sample[0].place, hint)
    shape = shapes.recognise(sample, settings, name)
    notes.extend(shape.notes)
    rows: list[Row] = []
    unused: dict[str, str] = {}
    for row in itertools.chain(sample, raw):
        for column, value in row.values.items():
            if column not in shape.used and value is not None:
                unused.setdefault(column, row.place)
        try:
            values = shape.build(row.values)
            rows.append(Row(values, row.place, row.key or values.get(shape.key, "")))
        except shapes.BadRow as error:
            bad.add(error.fault, row.place, shape.hint(error))
        if len(rows) == settings.limit:
            notes.append(f"only the first {count_of(settings.limit, 'row')} read (limit)")
            break
    if not rows:
        raise InputError(f"there is no usable row ({bad.reasons[0]})", name, "repair the rows, or name their columns")
    _check_late(shape, sample, unused, settings)
    notes += _notes(shape, unused, bad)
    labels: list[str] = []
    if shape.kind == "tags":
        rows, labels = with_labels(rows, notes)
    if shape.kind in ("labels", "pair_labels", "multi_labels"):
        rows, labels = _with_labels(rows, shape.labels, notes)
        if settings.limit is None and (unused_names := shape.labels.unused()):
            fault = f"no row has the labels {list_names(unused_names)}, for which names are given"
            raise InputError(fault, "data.label_names", f"leave them out; the labels are {list_names(labels)}")
        if shape.kind == "labels" and are_nearly_unique(len(labels), len(rows)):
            raise _own_labels(rows, labels, shape, settings, name)
    return Table(name, shape.kind, rows, shape.columns, notes, bad.reasons, labels)


def _check_late(shape: shapes.Shape, sample: Sequence[Row], unused: dict[str, str], settings: DataSettings) -> None:
    """Refuse a source whose later rows have columns that would have made it another kind.

    Raises:
        InputError: it is one; names the first such row.
    """
    early = {column for row in sample for column in row.values}
    late = {column: place for column, place in unused.items() if column not in early}
    if shapes.is_ambiguous(shape, sample, late, settings):
        column, place = next(iter(late.items()))
        fault = f"column {column!r} appears first in this row, after {len(sample)} rows of kind {shape.kind}"
        raise InputError(fault, place, f"give every row the same columns, or say {option('kind', shape.kind)}")


def _notes(shape: shapes.Shape, unused: dict[str, str], bad: BadRows) -> list[str]:
    notes = []
    if unused:
        notes.append(f"columns not used: {list_names(list(unused))}")
    if shape.unused_keys:
        notes.append(f"keys of messages not used: {list_names(list(shape.unused_keys))}")
    if bad.reasons:
        notes.append(f"{count_of(len(bad.reasons), 'bad row')} skipped (first: {bad.reasons[0]})")
    return notes


def _with_labels(rows: list[Row], names: LabelNames, notes: list[str]) -> tuple[list[Row], list[str]]:
    """Rows with one name for each label, and the labels, sorted."""
    merged = names.merged()
    if merged:
        rows = [replace(row, values=_merged(row.values, merged)) for row in rows]
    labels = sorted({label for row in rows for label in row.values.get("labels", [row.values.get("label")])})
    notes += [f"{count_of(len(labels), 'label')}: {list_names(labels)}", *names.notes()]
    if len(labels) == 1:
        notes.append("every row has the same label, so that there is nothing to learn: add rows with other labels")
    return rows, labels


def _merged(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The fields of a row with one name for each label."""
    if "labels" in values:
        return {**values, "labels": list(dict.fromkeys(names.get(label, label) for label in values["labels"]))}
    return {**values, "label": names.get(values["label"], values["label"])}


def _own_labels(
    rows: list[Row], labels: list[str], shape: shapes.Shape, settings: DataSettings, name: str
) -> InputError:
    """That the labels are none, and options that read the rows: text and label exchanged, or rows of another kind.

    Every prompt lists all labels: rows that are labelled so would be as long as the file.
    """
    label, text = shape.columns["label"], None if settings.text else shape.columns.get("text")
    are_texts = all(form.startswith('"') for forms in shape.labels.forms.values() for form in forms)
    ways = []
    if text and are_texts and not are_nearly_unique(len({row.values["text"] for row in rows}), len(rows)):
        ways.append(f"if so: {option('columns', {'text': label, 'label': text})}")
    ways.append(f"to learn them as answers: {_as_answers(label, text, are_texts, settings)}")
    if "text" in shape.columns:
        ways.append(f"to learn the texts alone: {option('kind', 'text')}")
    fault = f"nearly every row has a label of its own: {len(labels):,} labels in {len(rows):,} rows"
    place = f"{name}, column {label!r}"
    if are_continuous(labels):
        fault = f"{fault}, and they are numbers on a scale: predicting these is regression"
        fields = {"text": text, "value": label} if text else {"value": label}
        values = f"to learn the values: {option('columns', fields)}"
        return InputError(fault, place, "; or ".join([values, "write classes instead (low, high)", *ways]))
    return InputError(f"{fault}; are text and label swapped?", place, "; or ".join(ways))


def _as_answers(label: str, text: str | None, are_texts: bool, settings: DataSettings) -> str:
    """Options that read text and label as prompt and completion; labels that are no texts need a pattern."""
    options = [option("kind", "completion")]
    columns = {"prompt": text} if text and settings.prompt is None else {}
    if settings.text and settings.prompt is None:
        options.append(option("prompt", settings.text))
    if are_texts:
        columns["completion"] = label
    else:
        options.append(option("completion", f"{{{label}}}"))
    return " ".join([*options, *([option("columns", columns)] if columns else [])])


def split(table: Table, settings: DataSettings | None = None) -> tuple[Table, Table]:
    """Training and held-out rows.

    A row's side follows from the SHA-256 of its key (its content, or the module for named sets made of modules), so it
    depends neither on the order of the rows nor on chance, and duplicates stay together. Groups of one key are held out
    in the order of their hashes while they fit into the share asked for; the first few held-out rows are a fair sample
    of all. A table of a few long texts is divided inside each text instead: its end is held out.

    With ``validation``, the rows that are held out so are left out, and others are held out of the rest.

    Returns:
        (train, held_out); held_out is empty where ``held_out`` is 0 or nothing can be taken away.
    """
    settings = settings or DataSettings()
    if settings.additional:
        train, rest = split(table, settings.model_copy(update={"additional": []}))
        kept_apart = {content_hash(row) for row in table.rows} - {content_hash(row) for row in train.rows}
        for source in settings.additional:
            train = _with_additional(train, source, kept_apart)
        return train, rest
    if settings.validation:
        rest, left_out = split(table, settings.model_copy(update={"validation": 0.0}))
        inner = {"held_out": settings.validation, "validation": 0.0}
        notes = [*table.notes, f"left out for validation: the {count_of(len(left_out), 'row')} held out otherwise"]
        return split(replace(rest, notes=notes), settings.model_copy(update=inner))
    share = settings.held_out
    if share == 0:
        return table, _part(table, [], [])
    if is_divided_inside(table):
        return _split_inside(table, settings)
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        groups.setdefault(_key(row), []).append(index)
    wanted = min(int(share) if share >= 1 else max(1, round(share * len(table))), settings.held_out_max)
    if share >= 1 and wanted >= len(table):
        raise InputError(f"held_out {int(share)} takes all {len(table)} rows", "data.held_out", option("held_out", 0.1))
    held_out: set[int] = set()
    for key in sorted(groups)[: len(groups) - 1]:  # the last one stays, so that something is left to train on
        if len(held_out) + len(groups[key]) <= wanted:
            held_out.update(groups[key])
    train_rows = [row for index, row in enumerate(table.rows) if index not in held_out]
    # In the order of their hashes, so that the first few of them are a fair sample of all.
    held_out_rows = sorted((table.rows[index] for index in held_out), key=content_hash)
    note = f"held out: {len(held_out_rows)} of {count_of(len(table), 'row')}, by the hash of their {_key_name(table)}"
    if not held_out:
        together = f"rows of the same {_key_name(table)} stay together"
        note = f"nothing is held out: {together}, and all are the same"
        if len(groups) > 1:
            most = count_of(wanted, "row")
            note = f"nothing is held out: {together}, and no group has at most {most}; raise data.held_out"
    return _part(table, train_rows, [note]), _part(table, held_out_rows, [])


def is_divided_inside(table: Table) -> bool:
    """Whether the end of each text is held out: where there are too few texts to hold some of them out whole."""
    return table.kind == "text" and len({_key(row) for row in table.rows}) < FEWEST_TEXTS


def _with_additional(train: Table, source: str, kept_apart: set[str]) -> Table:
    """The rows to train on, and those of another file of the same kind after them.

    Args:
        train: the rows to train on.
        source: of the other rows.
        kept_apart: content hashes of the rows that are held out or left out, which stay so.

    Raises:
        InputError: the other rows have labels that these lack.
    """
    table = read_additional(source, train.kind)
    if unknown := [label for label in table.labels if label not in train.labels]:
        fault = f"has labels that the other rows lack: {list_names(unknown)}"
        raise InputError(fault, source, f"give rows with the labels {list_names(train.labels)}")
    more = [row for row in table.rows if content_hash(row) not in kept_apart]
    note = f"{count_of(len(more), 'additional row')} of {source}"
    if len(more) < len(table):
        note += f", without {len(table) - len(more)} that are among the held-out rows"
    return _part(train, [*train.rows, *more], [note])


def read_additional(source: str, kind: Kind) -> Table:
    """The rows of a file that are trained on beside others.

    Args:
        source: of the rows; settings of the others, such as the names of their columns, do not hold for them.
        kind: of the others.

    Raises:
        InputError: they cannot be read, or are of another kind.
    """
    columns = list_names(list(FIELDS[kind]))
    hint = f"give rows of kind {kind}, as the others are: with the columns {columns}"
    try:
        table = read(source, DataSettings(kind=kind))
    except MissingColumns as error:  # whose hint is about settings of the other rows
        raise InputError(error.fault, error.place, hint) from None
    if table.kind != kind:
        raise InputError(f"rows of kind {table.kind} cannot be trained on beside rows of kind {kind}", source, hint)
    return table


def _key(row: Row) -> str:
    return _hash(row.key) if row.key else content_hash(row)


def content_hash(row: Row) -> str:
    """SHA-256 of a row's values: without a key of its own, it decides on which side of a split the row falls."""
    return _hash(json.dumps(row.values, sort_keys=True, ensure_ascii=False, default=str))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _key_name(table: Table) -> str:
    names = {"questions": "context", "pair_labels": "first text", "pair_values": "first text"}
    return names.get(table.kind) or ("module" if table.rows[0].key else "content")


def _part(table: Table, rows: list[Row], notes: list[str]) -> Table:
    return replace(table, rows=rows, notes=[*table.notes, *notes])


def _split_inside(table: Table, settings: DataSettings) -> tuple[Table, Table]:
    """Hold out the end of each long text, from a paragraph's (else a line's, else a word's) beginning on."""
    if settings.held_out >= 1:
        hint = f"give a share, {option('held_out', 0.1)}, or read paragraphs as rows: {option('document', 'paragraph')}"
        raise InputError("a number of rows cannot be held out of so few texts", "data.held_out", hint)
    most = settings.held_out_max * CHARACTERS_A_ROW // len(table)
    train, held_out = [], []
    for row in table.rows:
        text = row.values["text"]
        place = len(text) - min(round(settings.held_out * len(text)), most)
        for border in ("\n\n", "\n", " "):
            cut = text.rfind(border, len(text) // 2, place)
            if cut >= 0:
                place = cut + len(border)
                break
        line = text.count("\n", 0, place) + 1
        train.append(Row({"text": text[:place]}, row.place, row.key))
        if text[place:].strip():
            where = f"{row.place.rpartition(':')[0]}:{line}" if row.place.endswith(":1") else row.place
            held_out.append(Row({"text": text[place:]}, where, row.key))
    count = sum(len(row.values["text"]) for row in held_out)
    note = f"held out: the end of {'the text' if len(table) == 1 else 'each text'}, {count:,} characters"
    return _part(table, train, [note]), _part(table, held_out, [])


def _open(source: Any, settings: DataSettings, bad: BadRows, notes: list[str]) -> tuple[Iterator[Row], str]:
    """Raw rows of a source, and its name."""
    if not isinstance(source, (str, Path)):
        rows = [Row(values, f"row {number}") for number, values in enumerate(python_rows.rows_of(source), 1)]
        return iter(rows), python_rows.NAME
    name = str(source)
    if name in datasets.NAMED:
        return iter(datasets.read(name, notes)), name
    if name.startswith("hub:"):
        return _hub(name.removeprefix("hub:"), settings), name
    path = expand_home(source)
    if is_beir(path):
        return judged_pairs(path), name
    if path.is_dir():
        files = formats.files_in(path, settings)
        notes.append(f"{count_of(len(files), 'file')} of {path}")
        return itertools.chain.from_iterable(formats.records(file, settings, bad, notes) for file in files), name
    if not path.is_file():
        raise _no_file(path, name)
    return formats.records(path, settings, bad, notes), name


def _no_file(path: Path, name: str) -> InputError:
    """What is wrong with a path that is neither a file nor a folder."""
    if path.is_symlink() and not path.exists():
        hint = "make the link anew, or give the file itself"
        return InputError(f"is a link to {path.readlink()}, which is not there or leads back to it", name, hint)
    if path.exists():
        hint = "write what it gives into a file, and give that"
        return InputError("is no regular file, but a pipe, a socket or a device", name, hint)
    return InputError("there is no such file or data set", name, _nearest(path))


def _nearest(path: Path) -> str:
    """Advice for a name that nothing has."""
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, [*neighbours, *datasets.NAMED], n=1)
    if near:
        return f"did you mean {path.parent / near[0] if near[0] in neighbours else near[0]}?"
    return "give a file, a folder, hub:owner/name, or a named data set (lmworks data list)"


def _hub(name: str, settings: DataSettings) -> Iterator[Row]:
    """Rows of a data set of the hub, through the `datasets` library."""
    if is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"  # read by the library when it is imported
    try:
        import datasets as hub
    except ImportError as error:
        hint = "pip install 'lmworks[hub]'"
        raise InputError("data sets of the hub need the datasets library", f"hub:{name}", hint) from error
    repository, _, revision = name.partition("@")
    try:
        table = hub.load_dataset(repository, settings.subset, split=settings.split, revision=revision or None)
    except Exception as error:  # the library raises dozens of kinds, network errors among them
        hint = "check the name, --subset and --split, and that the hub can be reached; or give a local file"
        raise InputError(f"cannot be loaded ({split_lines(str(error).strip())[0]})", f"hub:{name}", hint) from error
    return hub_rows(table, f"hub:{name}")


def hub_rows(table: Iterable[dict[str, Any]], name: str) -> Iterator[Row]:
    """Rows of a `datasets` table; class numbers become the names that it gives them."""
    classes = python_rows.class_names(table)
    for number, values in enumerate(table, 1):
        yield Row(python_rows.named(values, classes), f"{name}: row {number}")
