"""Rows -> examples: token ids, and which of them are to be learned.

Texts are learned as a whole (long ones in chunks); of prompt and completion, chats and labels only what the model is
to say, told by its position. Counts everything that a person should know before training. Knows nothing of batches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import Document, Window
from lmworks.data.prompts import Prompt, as_messages, plain, prompts, uses_template
from lmworks.text import chat
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tokenizer import Tokenizer

__all__ = ["Examples", "Prompt", "Report", "check", "examples", "prompts"]

ROWS_AT_ONCE = 512
"""Rows encoded in one call, so that all cores work and memory stays small."""


@dataclass
class Report:
    """What became of the rows.

    Attributes:
        kind: of the table.
        template: "chat template" or "plain".
        rows: rows of the table.
        examples: examples made (long texts make several).
        tokens, loss_tokens: of all examples; loss_tokens counts what is predicted and learned.
        longest: tokens of the longest example.
        truncated, dropped_tokens: rows cut at the end, and what was cut off.
        too_long: rows left out because they were too long (on_long: skip).
        chunked: texts divided into several examples.
        no_trainable: rows without a token to learn; they are left out.
        end_without_loss: whole rows in which no end-of-turn token is learned.
        with_specials: rows whose own text writes out a special token.
        skipped: bad rows left out while reading.
        notes: how the rows were read, and what was decided here.
        first_no_trainable, first_end_without_loss: the place of the first such row.
    """

    kind: str
    template: str
    rows: int = 0
    examples: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    longest: int = 0
    truncated: int = 0
    dropped_tokens: int = 0
    too_long: int = 0
    chunked: int = 0
    no_trainable: int = 0
    end_without_loss: int = 0
    with_specials: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    first_no_trainable: str = ""
    first_end_without_loss: str = ""


@dataclass
class Examples:
    """Examples, what was counted on the way, and the labels that may be chosen from (kind labels)."""

    items: list[Example]
    report: Report
    choices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        return self.items[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.items)


_FULL = "their prompts fill all the room"
_NOTHING = {"text": "their texts are empty or too short"}

Part = tuple[str, str, bool, str, bool]
"""text, text before it, loss, content, ended: as in chat.Piece"""


def examples(table: Table, tokenizer: Tokenizer, settings: DataSettings, context: int) -> Examples:
    """All rows of a table as examples of at most `settings.max_tokens`, else of `context` tokens and what they predict.

    Raises:
        InputError: max_tokens is more than the context, a chat without template, a row too long under on_long: stop.
    """
    limit = limit_of(settings, context) if settings.max_tokens else context + 1  # the last passes through no network
    if table.kind == "pairs":
        fault = "rows of source and target train an encoder-decoder (objective seq2seq), not a decoder"
        hint = "name the columns --columns '{prompt: SOURCE, completion: TARGET}', or take another model"
        raise InputError(fault, table.name, hint)
    templated = uses_template(table, tokenizer, settings)
    report = Report(table.kind, "chat template" if templated else "plain", rows=len(table), skipped=len(table.skipped))
    report.notes = list(table.notes)
    choices = table.labels
    special = re.compile("|".join(map(re.escape, tokenizer.specials))) if tokenizer.specials else None
    items: list[Example] = []
    for begin in range(0, len(table), ROWS_AT_ONCE):
        rows = table.rows[begin : begin + ROWS_AT_ONCE]
        if special is not None:
            report.with_specials += sum(any(special.search(text) for text in _texts_of(row)) for row in rows)
        if table.kind == "text":
            items += _text_examples(rows, tokenizer, limit, report)
        else:
            items += _answer_examples(rows, tokenizer, settings, templated, choices, limit, report)
    count(items, report)
    _note(table, tokenizer, settings, templated, report)
    return Examples(items, report, choices)


def check(report: Report, settings: DataSettings) -> None:
    """Refuse what would train badly without a word.

    Raises:
        InputError: nothing to learn at all, rows without a token to learn, or ends of turn that carry no loss.
    """
    if not report.loss_tokens:
        raise InputError("no row has a token to learn", report.first_no_trainable, "look at them: lmworks data show")
    if report.no_trainable and not settings.allow_no_loss:
        raise InputError(
            f"{report.no_trainable} of {report.rows} rows have no token to learn ({_NOTHING.get(report.kind, _FULL)})",
            report.first_no_trainable,
            "raise max_tokens, hint such rows, or leave them out with allow_no_loss: true",
        )
    if report.end_without_loss and not settings.allow_no_end:
        raise InputError(
            f"in {report.end_without_loss} of {report.rows} rows the end of the turn carries no loss: "
            "a model trained so does not learn to stop",
            report.first_end_without_loss,
            "use a chat template that ends turns with a special token, give the tokenizer an eos_token, "
            "or go on with allow_no_end: true",
        )


def limit_of(settings: DataSettings, context: int) -> int:
    """The longest example in tokens.

    Raises:
        InputError: more is asked for than the model's context.
    """
    if settings.max_tokens is not None and settings.max_tokens > context:
        hint = f"set max_tokens to at most {context}"
        raise InputError(f"the model's context is {context} tokens, not {settings.max_tokens}", "max_tokens", hint)
    return settings.max_tokens or context


def _texts_of(row: Row) -> list[str]:
    if "messages" in row.values:
        return [message["content"] for message in row.values["messages"]]
    return [value for value in row.values.values() if isinstance(value, str)]


# Whole texts


def _text_examples(rows: Sequence[Row], tokenizer: Tokenizer, limit: int, report: Report) -> list[Example]:
    """Each text begins and ends as the family's do. A chunk after the first begins with the last token of the one
    before as its context, so every token is learned once."""
    made = []
    opening, closing = tokenizer.opening, _closing(tokenizer)
    first = max(len(opening), 1)  # the first token of all has nothing it could be predicted from
    texts = [row.values["text"] for row in rows]
    for row, text, (ids, starts) in zip(rows, texts, tokenizer.spans(texts), strict=True):
        whole = np.array([*opening, *ids, *closing], dtype=np.int32)
        if len(whole) <= first:
            _without_loss(row, report)
            continue
        report.chunked += len(whole) > limit
        characters = np.array([*([0] * len(opening)), *starts, *([len(text)] * len(closing))], dtype=np.int32)
        document = Document(whole, characters, text, row.place)
        for begin in range(0, max(len(whole) - 1, 1), limit - 1):
            made.append(chunk(Window(document, begin, min(begin + limit, len(whole))), first))
    return made


def chunk(window: Window, first: int) -> Example:
    """A stretch of a text as an example: its first token is context alone, as are those before `first` in the text."""
    document, given = window.document, max(1, first - window.begin)
    ids = document.ids[window.begin : window.end]
    loss = np.ones(len(ids), dtype=bool)
    loss[:given] = False
    size = document.bytes(window.begin + given, window.end)
    return Example(ids, loss, document.place, size, origin=window)


def _closing(tokenizer: Tokenizer) -> list[int]:
    if tokenizer.closing:
        return tokenizer.closing
    return [tokenizer.eos_id] if tokenizer.eos_id is not None else []


# Prompts with answers


def _answer_examples(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    settings: DataSettings,
    templated: bool,
    choices: list[str],
    limit: int,
    report: Report,
) -> list[Example]:
    parts = [_parts(row, tokenizer, settings, templated, choices) for row in rows]
    flat = [part for row_parts in parts for part in row_parts]
    encoded = iter(tokenizer.encode_many([part[0] for part in flat], [part[1] for part in flat]))
    made = []
    for row, row_parts in zip(rows, parts, strict=True):
        ids, loss = _join(row_parts, encoded, tokenizer, templated)
        ended = all(part[4] for part in row_parts if part[2])
        size = sum(len(part[3].encode("utf-8", errors="replace")) for part in row_parts if part[2])
        example = _fit(Example(ids, loss, row.place, size), ended, tokenizer, settings, limit, report)
        if example is not None:
            made.append(example)
    return made


def _parts(row: Row, tokenizer: Tokenizer, settings: DataSettings, templated: bool, choices: list[str]) -> list[Part]:
    """A row as stretches of text that are encoded alone."""
    if not templated:
        prompt, answer = plain(row, settings)
        return [(prompt, "", False, "", False), (answer, prompt, True, answer, tokenizer.eos_id is not None)]
    try:
        cut = chat.pieces(tokenizer, as_messages(row, settings, choices), turns=settings.turns)
    except InputError as error:
        fault = f"{error.place}: {error.fault}" if error.place else error.fault
        hint = f"{error.hint}; or leave such rows out with {option('on_bad_row', 'skip')}"
        raise InputError(fault, row.place, hint) from error
    return [(piece.text, piece.after, piece.loss, piece.content, piece.ended) for piece in cut]


def _join(
    parts: list[Part], encoded: Iterator[list[int]], tokenizer: Tokenizer, templated: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a row's parts one after the other; without a template BOS and EOS go around them."""
    ids: list[int] = [] if templated else list(tokenizer.opening)
    loss = [False] * len(ids)
    for part in parts:
        piece = next(encoded)
        ids += piece
        loss += [part[2]] * len(piece)
    if not templated and tokenizer.eos_id is not None:
        ids.append(tokenizer.eos_id)
        loss.append(True)
    return np.array(ids, dtype=np.int32), np.array(loss, dtype=bool)


def _fit(
    example: Example, ended: bool, tokenizer: Tokenizer, settings: DataSettings, limit: int, report: Report
) -> Example | None:
    """Cut or leave out what is too long, leave out what teaches nothing, and count it."""
    dropped = len(example) - limit
    if dropped > 0:
        if settings.on_long == "stop":
            hint = "raise max_tokens, shorten the row, or say on_long: cut or skip"
            raise InputError(f"{len(example)} tokens, and there is room for {limit}", example.place, hint)
        if settings.on_long == "skip":
            report.too_long += 1
            return None
        report.truncated += 1
        report.dropped_tokens += dropped
        ids, loss = example.ids[:limit], example.loss[:limit]
        size = len(tokenizer.decode(ids[loss].tolist()).encode("utf-8", errors="replace"))
        example = Example(ids, loss, example.place, size, dropped)
    if not example.loss[1:].any():
        _without_loss(example, report)
        return None
    if not ended and dropped <= 0:
        report.end_without_loss += 1
        report.first_end_without_loss = report.first_end_without_loss or example.place
    return example


def _without_loss(row: Row | Example, report: Report) -> None:
    report.no_trainable += 1
    report.first_no_trainable = report.first_no_trainable or row.place


# Counting


def count(items: list[Example], report: Report) -> None:
    """Count examples, their tokens (with those of sources) and those that carry loss."""
    report.examples = len(items)
    report.tokens = sum(example.total for example in items)
    report.loss_tokens = sum(example.learned for example in items)
    report.longest = max((example.total for example in items), default=0)


def _note(table: Table, tokenizer: Tokenizer, settings: DataSettings, templated: bool, report: Report) -> None:
    if report.truncated:
        report.notes.append(f"{report.truncated} rows are cut at the end, {report.dropped_tokens} tokens in all")
    left_out = {"too long": report.too_long, "without a token to learn": report.no_trainable}
    report.notes += [f"{count} rows are left out: {why}" for why, count in left_out.items() if count]
    if table.kind == "text":
        if not _closing(tokenizer):
            report.notes.append("the tokenizer has no end-of-text token: texts end without one")
        return
    if templated:
        report.notes.append("written through the model's chat template")
        report.notes += _unwritten(table, tokenizer)
    else:
        why = "told so" if tokenizer.chat_template is not None else "the model has no chat template"
        report.notes.append(f"prompt, answer and end-of-text token, without a template: {why}")
    if report.with_specials:
        report.notes.append(f"{report.with_specials} rows write out special tokens, which are read as such")


def _unwritten(table: Table, tokenizer: Tokenizer) -> list[str]:
    """Keys of messages that the chat template leaves out, with the number of rows that have them."""
    conversations = [row.values["messages"] for row in table.rows if "messages" in row.values]
    counts = Counter(key for messages in conversations for key in chat.unwritten_keys(tokenizer, messages))
    return [f"the chat template does not write {key!r} of messages, which {n} rows have" for key, n in counts.items()]
