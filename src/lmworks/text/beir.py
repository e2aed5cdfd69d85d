"""Retrieval data in BEIR's layout (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels.tsv or qrels/SPLIT.tsv."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.text.plain_text import text_fault
from lmworks.text.rows import Row

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels.tsv"
HINT = f"a folder in BEIR's layout has {CORPUS}, {QUERIES} and {QRELS} (or qrels/test.tsv)"


@dataclass(frozen=True)
class RetrievalData:
    """Documents, queries, and which documents answer which query.

    Attributes:
        name: the folder.
        documents: id -> text; a title stands before it.
        queries: id -> text.
        judgements: id of a query -> id of a document -> relevance; above 0: relevant.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, float]]


def is_beir(folder: str | Path) -> bool:
    """Whether a folder has BEIR's corpus and queries."""
    return all((Path(folder) / name).is_file() for name in (CORPUS, QUERIES))


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """The data of a folder. Queries that no line of the judgements names are left out, as in BEIR.

    Args:
        folder: where the three files are.
        split: of ``qrels/SPLIT.tsv``, where there is no ``qrels.tsv``.

    Raises:
        InputError: a file is missing or damaged, or a judgement names what there is not; with file and line.
    """
    folder = Path(folder)
    if not is_beir(folder):
        raise InputError("is no folder of retrieval data", str(folder), HINT)
    documents, queries = _texts(folder / CORPUS), _texts(folder / QUERIES)
    place = folder / QRELS if (folder / QRELS).is_file() else folder / "qrels" / f"{split}.tsv"
    judgements = _judgements(place, documents, queries)
    judged = {name: text for name, text in queries.items() if name in judgements}
    return RetrievalData(str(folder), documents, judged, judgements)


def judged_pairs(folder: str | Path, split: str = "train") -> Iterator[Row]:
    """A row for each relevant document of each query, as source and target. Rows of one document fall on the same side
    of a split into training and held-out rows.

    Args:
        folder, split: as in read_beir; without ``qrels/train.tsv`` the judgements of ``test``.
    """
    split = split if (Path(folder) / "qrels" / f"{split}.tsv").is_file() else "test"
    data = read_beir(folder, split)
    for query, judged in data.judgements.items():
        for document, relevance in judged.items():
            if relevance > 0:
                values = {"source": data.queries[query], "target": data.documents[document]}
                yield Row(values, f"{folder}: query {query}", document)


def _texts(path: Path) -> dict[str, str]:
    """Id -> text, with its title before it."""
    texts: dict[str, str] = {}
    for place, line in _lines(path):
        row = _object(line, place)
        name, text, title = row.get("_id"), row.get("text"), row.get("title") or ""
        if not isinstance(name, str) or not isinstance(text, str) or not isinstance(title, str):
            raise InputError("_id, text or title is no text", place, HINT)
        if name in texts:
            raise InputError(f"a second text with the id {name!r}", place, "give each its own _id")
        whole = f"{title} {text}".strip()
        if not whole or text_fault(whole):
            raise InputError(text_fault(whole) or "the text is empty", place, "give every row a text")
        texts[name] = whole
    if not texts:
        raise InputError("holds no row", str(path), HINT)
    return texts


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", place, "write one object a line") from error
    if not isinstance(row, dict):
        raise InputError("not a JSON object", place, "write one object a line")
    return row


def _judgements(path: Path, documents: dict[str, str], queries: dict[str, str]) -> dict[str, dict[str, float]]:
    """The lines ``query-id <TAB> corpus-id <TAB> score``, below a header or without one."""
    judgements: dict[str, dict[str, float]] = {}
    for place, line in _lines(path):
        fields = line.split("\t")
        if fields[0] == "query-id":
            continue
        if len(fields) != 3:
            fault = f"{len(fields)} fields, not query-id, corpus-id and score with tabs between them"
            raise InputError(fault, place, HINT)
        query, document, score = fields
        for name, known, file in ((query, queries, QUERIES), (document, documents, CORPUS)):
            if name not in known:
                raise InputError(f"{file} has no {name!r}", place, "take files of one data set")
        try:
            judgements.setdefault(query, {})[document] = float(score)
        except ValueError as error:
            raise InputError(f"the score {score!r} is no number", place, "write 0, 1 or more") from error
    if not judgements:
        raise InputError("holds no judgement", str(path), HINT)
    return judgements


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not empty, each with its place."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason})", str(path), "write it in UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), HINT) from error
