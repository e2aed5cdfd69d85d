"""What all arms of the published table are given: the same texts, the same split, the tutorial's recipe.

A folder with ``train.jsonl`` (a text a row) and ``held_out.json`` (token ids of the texts that are measured), written
once and read by every arm. Documents are divided into training and held-out ones first and then into texts of at most
128 tokens with the end of the text, so that nobody cuts a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arms

if TYPE_CHECKING:
    from lmworks.text.tokenizer import Tokenizer

DATA = "python-source"
TEXT_TOKENS, EPOCHS = 128, 3
BATCH, ACCUMULATION = 8, 8
"""Texts of a pass and passes of an optimizer step: lmworks takes all 64 at once."""
RATES = {"full": 2e-4, "lora": 1e-4}
RANK, ALPHA, DROPOUT = 16, 32, 0.05
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
"""The linears that GPT-2 calls c_attn and c_proj."""
SCHEDULE = "linear"
"""Of the learning rate, without warm-up: what Trainer does unless it is told otherwise."""
TRAINED, HELD_OUT = 1000, 200
"""Texts; of the held-out ones half are there to choose a learning rate by, and half to measure."""
HELD_OUT_DOCUMENTS = 0.2


def model_folder(source: str) -> Path:
    """The model as a Hugging Face folder, which all arms open."""
    from lmworks.base import sources

    return arms.reference_folder() if source == arms.MODEL else Path(sources.find(source).path)


def prepare(model: Path, data: str, folder: Path, trained: int = TRAINED, held_out: int = HELD_OUT) -> dict[str, Any]:
    """Write the texts.

    Args:
        model: a folder with the tokenizer.
        data: a file, whose paragraphs are documents if it is plain text, or a named data set of texts.
        folder: to write to; is made.
        trained, held_out: at most so many texts, spread over the documents.

    Returns:
        texts and tokens of each part.

    Raises:
        SystemExit: the data holds other rows than texts, or too few of them.
    """
    from lmworks.families.folder import open_tokenizer
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings

    settings = DataSettings(document="paragraph", held_out=HELD_OUT_DOCUMENTS, held_out_max=10**9)
    table = corpus.read(data, settings)
    if table.kind != "text":
        raise SystemExit(f"--data {data}: its rows are of kind {table.kind}; give texts")
    tokenizer = open_tokenizer(model)
    sides = [
        spread(list(split_texts(tokenizer, [row.values["text"] for row in part.rows])), most)
        for part, most in zip(corpus.split(table, settings), (trained, held_out), strict=True)
    ]
    if min(map(len, sides)) < 2:
        raise SystemExit(f"--data {data}: too few texts; give more documents")
    half = len(sides[1]) // 2  # texts of one document stay together
    parts = {"train": sides[0], "validation": sides[1][:half], "test": sides[1][half:]}
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in parts["train"]]
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    ids = {name: [[*tokenizer.opening, *of_text] for of_text in tokenizer.encode_many(parts[name])] for name in parts}
    measured = {name: ids[name] for name in ("validation", "test")}
    (folder / "held_out.json").write_text(json.dumps(measured), encoding="utf-8")
    return {name: {"texts": len(of_part), "tokens": sum(map(len, of_part))} for name, of_part in ids.items()}


def split_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[str]:
    """Stretches of the texts, each of at most :data:`TEXT_TOKENS` tokens with those that begin and end a text.

    A stretch is cut where a token begins. Encoded by itself it can have more tokens than it had in its text; then it
    is made shorter.
    """
    room = TEXT_TOKENS - len(tokenizer.opening) - max(1, len(tokenizer.closing))
    for text, (_, starts) in zip(texts, tokenizer.spans(texts), strict=True):
        begin = 0
        while begin < len(starts):
            end = min(begin + room, len(starts))
            while len(tokenizer.encode(stretch := _between(text, starts, begin, end))) > room:
                end -= 1
            if len(tokenizer.encode(stretch)) > 1:  # of a single token nothing is predicted
                yield stretch
            begin = end


def _between(text: str, starts: Sequence[int], begin: int, end: int) -> str:
    """The characters of these tokens."""
    return text[starts[begin] : starts[end] if end < len(starts) else len(text)]


def spread(items: list[str], most: int) -> list[str]:
    """At most so many, evenly over all."""
    return [items[place * len(items) // most] for place in range(most)] if len(items) > most else items


def training_texts(folder: Path) -> list[str]:
    """The texts to train on."""
    return [json.loads(line)["text"] for line in (folder / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def held_out_ids(folder: Path) -> dict[str, list[list[int]]]:
    """Token ids of the texts of ``validation`` and ``test``, without an end of the text."""
    ids: dict[str, list[list[int]]] = json.loads((folder / "held_out.json").read_text(encoding="utf-8"))
    return ids
