"""Examples of a table's rows, and the report of what became of the rows. Knows no batch and no task."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.data.batch import Example
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tokenizer import Tokenizer

_FULL = "their prompts fill all the room"
_NOTHING = {"text": "their texts are empty or too short"}


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

    def unusual(self) -> dict[str, int]:
        """The counts of what a person should look at, by names in words; without those that are 0."""
        counts = {
            "truncated rows": self.truncated,
            "tokens cut off": self.dropped_tokens,
            "rows left out as too long": self.too_long,
            "texts divided into chunks": self.chunked,
            "rows with no token to learn": self.no_trainable,
            "rows whose end of turn carries no loss": self.end_without_loss,
            "rows that write out special tokens": self.with_specials,
            "bad rows skipped": self.skipped,
        }
        return {name: count for name, count in counts.items() if count}


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


def start_report(table: Table, template: str) -> Report:
    """A report that has counted no example yet."""
    return Report(table.kind, template, rows=len(table), skipped=len(table.skipped), notes=list(table.notes))


def check_report(report: Report, settings: DataSettings) -> None:
    """Refuse what would train badly without a word.

    Raises:
        InputError: nothing to learn at all, rows without a token to learn, or ends of turn that carry no loss.
    """
    if not report.loss_tokens:
        why = "all are too long" if report.too_long == report.rows else _NOTHING.get(report.kind, _FULL)
        raise InputError(f"no row has a token to learn ({why})", report.first_no_trainable, _remedy(report, settings))
    if report.no_trainable and not settings.allow_no_loss:
        raise InputError(
            f"{report.no_trainable} of {report.rows} rows have no token to learn ({_NOTHING.get(report.kind, _FULL)})",
            report.first_no_trainable,
            f"{_remedy(report, settings)}; or leave them out: {option('allow_no_loss', True)}",
        )
    if report.end_without_loss and not settings.allow_no_end:
        raise InputError(
            f"in {report.end_without_loss} of {report.rows} rows the end of the turn carries no loss: "
            "a model trained so does not learn to stop",
            report.first_end_without_loss,
            "use a chat template that ends turns with a special token, give the tokenizer an eos_token, "
            f"or go on with {option('allow_no_end', True)}",
        )


def _remedy(report: Report, settings: DataSettings) -> str:
    """What gives rows a token to learn."""
    if report.kind == "text":
        return "give longer texts"
    if settings.max_tokens is not None:
        return "raise data.max_tokens, or give shorter prompts"
    return "give shorter prompts, or take a model with a longer context"


def limit_of(settings: DataSettings, context: int) -> int:
    """The longest example in tokens.

    Raises:
        InputError: more is asked for than the model's context.
    """
    if settings.max_tokens is not None and settings.max_tokens > context:
        hint = option("max_tokens", context)
        raise InputError(f"the model's context is {context} tokens, not {settings.max_tokens}", "data.max_tokens", hint)
    return settings.max_tokens or context


def count(items: list[Example], report: Report) -> None:
    """Count examples, their tokens (with those of sources) and those that carry loss."""
    report.examples = len(items)
    report.tokens = sum(example.total for example in items)
    report.loss_tokens = sum(example.num_targets for example in items)
    report.longest = max((example.total for example in items), default=0)


def count_without_loss(item: Row | Example, report: Report) -> None:
    """Count a row that has no token to learn."""
    report.no_trainable += 1
    report.first_no_trainable = report.first_no_trainable or item.place


def count_specials(rows: Sequence[Row], tokenizer: Tokenizer, report: Report) -> None:
    """Count the rows whose own text writes out a special token."""
    report.with_specials += len(rows_with_specials(rows, tokenizer))


def rows_with_specials(rows: Sequence[Row], tokenizer: Tokenizer) -> list[Row]:
    """The rows whose own text writes out a special token."""
    if not tokenizer.specials:
        return []
    special = re.compile("|".join(map(re.escape, tokenizer.specials)))
    return [row for row in rows if any(special.search(text) for text in _texts_of(row))]


def note_rows(report: Report, nothing: str) -> None:
    """Note how many rows were cut and how many left out.

    Args:
        report: with the counts.
        nothing: what rows of its ``no_trainable`` are.
    """
    if report.truncated:
        rows = count_of(report.truncated, "row")
        report.notes.append(f"{rows} cut at the end, {count_of(report.dropped_tokens, 'token')} in all")
    left_out = {"too long": report.too_long, nothing: report.no_trainable}
    report.notes += [f"{count_of(count, 'row')} left out: {why}" for why, count in left_out.items() if count]


def _texts_of(row: Row) -> list[str]:
    if "messages" in row.values:
        return [message["content"] for message in row.values["messages"]]
    return [value for value in row.values.values() if isinstance(value, str)]
