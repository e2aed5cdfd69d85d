"""How lmworks data show prints the examples of a task: what the model sees, and what it learns to say.

Knows no model; reads examples alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

from lmworks.commands import show
from lmworks.data.batch import NEXT_SENTENCE, SPAN_END, SPAN_START, Example
from lmworks.data.examples import Examples
from lmworks.model.head_requests import SPANS, TOKENS
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

GIVEN = "dim"
LEARNED = "bold green"
MARK = "bold magenta"
FATES = {"masked": "bold red", "replaced": "bold yellow", "left": "bold cyan"}
"""What became of a hidden token, and its colour."""

CLASSES = {NEXT_SENTENCE: ("the second text follows the first", "the second text does not follow the first")}
"""What the classes of a head mean, where they have no names of their own."""


class Printer:
    """Prints examples token by token.

    Args:
        tokenizer: writes ids as pieces.
        most: tokens of each text that are shown.
        lines: a line a token, with ids.
        labels: names of the outputs of each head.
    """

    def __init__(
        self, tokenizer: Tokenizer, most: int, lines: bool, labels: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.tokenizer, self.most, self.lines, self.labels = tokenizer, most, lines, {**CLASSES, **(labels or {})}
        self.console = show.console()
        self.plain = not self.console.is_terminal or self.console.no_color
        self.spaced = _is_spaced(tokenizer)

    def example(self, example: Example, name: str) -> None:
        """One sampled example under a line that says what it is."""
        labelled = sum(labels.weight for labels in example.labels.values())
        sizes = f"{len(example)} tokens, {example.num_targets or labelled} with loss"
        if example.source is not None:
            parts = f"{len(example.source)} tokens of source, {len(example)} of the decoder"
            sizes = f"{parts}, {example.num_targets} with loss"
        cut = f", cut by {example.dropped}" if example.dropped else ""
        print(f"--- example {name}, {example.place}: {sizes}{cut}")
        for head, labels in example.labels.items():
            names = self.labels.get(head)
            for label in labels.classes.tolist() if len(labels.places) == 1 and head != TOKENS else []:
                said = names[label] if names and labels.classes.ndim == 1 else _numbers(label)
                print(f"{head.replace('_', ' ')}: {said}")
        if SPANS in example.labels:
            print(f"{SPANS.replace('_', ' ')}: {_span_said(example, self.tokenizer)}")
        if example.targets is not None:
            self._hidden(example)
            return
        if example.source is not None:
            self._text("source", example.source, None)
        self._text("target" if example.source is not None else "", example.ids, example.loss)

    def _hidden(self, example: Example) -> None:
        """A text with masked tokens: the input and, after an arrow, the target."""
        types = example.types if example.types is not None else np.zeros(len(example), dtype=int)
        assert example.targets is not None
        (first, last), ids, tags = _span_of(example), _ids_of(example), self._tags_of(example)
        for kind in np.unique(types):
            line = Text(f"type {kind}: " if example.types is not None else "")
            for place in np.flatnonzero(types == kind)[: self.most]:
                input_id, target_id = int(ids[place]), int(example.targets[place])
                outcome = fate(input_id, target_id, self.tokenizer) if example.loss[place] else ""
                if self.lines:
                    state = "answer" if first <= place <= last else "loss" if place in tags else outcome
                    text = f"{state:8} {self.tokenizer.piece(input_id)!r}"
                    target = f" -> {target_id} {self.tokenizer.piece(target_id)!r}" if outcome else ""
                    target = f" -> {tags[place]}" if place in tags else target
                    print(f"{input_id:>8} type {kind} {text}{target}")
                elif outcome:
                    self._marked(line, f"{self.piece(input_id)}→{self.piece(target_id).strip()}", FATES[outcome])
                elif place in tags:
                    self._marked(line, f"{self.piece(input_id)}/{tags[place]}", LEARNED)
                elif first <= place <= last:
                    self._marked(line, self.piece(input_id), LEARNED)
                else:
                    line.append(self.piece(input_id), style=GIVEN)
            if not self.lines:
                self.console.print(line, soft_wrap=True)
        self._more(len(example))

    def _tags_of(self, example: Example) -> dict[int, str]:
        """Places of tokens that carry a tag -> the tag; none of an example without a head for tokens."""
        if TOKENS not in example.labels:
            return {}
        labels, names = example.labels[TOKENS], self.labels.get(TOKENS)
        pairs = zip(labels.places.tolist(), labels.classes.tolist(), strict=True)
        return {place: names[number] if names else str(number) for place, number in pairs}

    def _text(self, title: str, ids: np.ndarray, loss: np.ndarray | None) -> None:
        """A text of which nothing is hidden in its place; sentinels and masks are marked."""
        line = Text(f"{title}: " if title else "")
        special = set(self.tokenizer.specials.values())
        for place, token in enumerate(ids[: self.most].tolist()):
            learned = loss is not None and place > 0 and bool(loss[place])
            if self.lines:
                print(f"{token:>8} {title:6} {'loss' if learned else '    '} {self.tokenizer.piece(token)!r}")
            elif token in special:
                self._marked(line, self.piece(token), MARK)
            else:
                line.append(self.piece(token), style=LEARNED if learned else GIVEN)
        if not self.lines:
            self.console.print(line, soft_wrap=True)
        self._more(len(ids))

    def _marked(self, line: Text, text: str, style: str) -> None:
        space = " " * (len(text) - len(text.lstrip(" ")))
        text = text.lstrip(" ")
        line.append(f"{space}[{text}]" if self.plain else f"{space}{text}", style=style)

    def _more(self, length: int) -> None:
        if length > self.most:
            print(f"... and {length - self.most} more tokens (--tokens)")

    def piece(self, token: int) -> str:
        """A token as it stands in a line: with a space before it, where the tokenizer's tokens hold none."""
        piece = self.tokenizer.piece(token)
        return f" {piece}" if self.spaced and not piece.startswith("##") else piece


def _span_of(example: Example) -> tuple[int, int]:
    """The first and the last token of the answer; (0, 0) of a window without it, (0, -1) without a head for spans."""
    labels = example.labels.get(SPANS)
    if labels is None:
        return 0, -1
    first, last = (int(labels.places[(labels.classes & mark) > 0][0]) for mark in (SPAN_START, SPAN_END))
    return first, last


def _ids_of(example: Example) -> np.ndarray:
    """The tokens whose places have labels: an encoder-decoder with a head for spans reads them one place later."""
    return example.source if example.source is not None and SPANS in example.labels else example.ids


def _numbers(label: int | list[float]) -> str:
    """A label without a name, the values of a regression, or 0 and 1 for each of several labels."""
    return ", ".join(f"{value:.6g}" for value in label) if isinstance(label, list) else str(label)


def _span_said(example: Example, tokenizer: Tokenizer) -> str:
    """What a window points to, in words."""
    first, last = _span_of(example)
    if last == 0:
        return "this window does not hold the answer, and points to its first token"
    said = tokenizer.decode(_ids_of(example)[first : last + 1].tolist())
    return f"tokens {first} to {last}, {said.strip()!r}"


def fate(input_id: int, target_id: int, tokenizer: Tokenizer) -> str:
    """What became of a hidden token: masked, replaced or left."""
    return "masked" if input_id == tokenizer.mask_id else "left" if input_id == target_id else "replaced"


def print_counts(task: Task, examples: Examples, seed: int) -> None:
    """What one draw of all examples does, in figures."""
    samples = [task.sample(example, np.random.default_rng((seed, 0, n))) for n, example in enumerate(examples.items)]
    if not samples:
        return
    may = sum(int(example.loss.sum()) for example in examples)
    if samples[0].targets is not None and may:
        fates = [
            fate(int(seen), int(meant), task.tokenizer)
            for example in samples
            if example.targets is not None
            for seen, meant in zip(example.ids[example.loss], example.targets[example.loss], strict=True)
        ]
        hidden = f"{len(fates):,} of {may:,} tokens that may be hidden ({len(fates) / may:.1%} of these)"
        shares = [f"{fates.count(name) / len(fates):.1%} {name}" for name in FATES if name in fates]
        print(f"one draw hides {hidden}" + (f"; of the hidden are {', '.join(shares)}" if shares else ""))
    for head in samples[0].labels:
        if head == SPANS:
            pointing = sum(_span_of(example)[1] == 0 for example in samples)
            print(f"{head.replace('_', ' ')}: {len(samples) - pointing:,} × with the answer, {pointing:,} × without")
            continue
        if any(example.labels[head].classes.ndim > 1 for example in samples):  # values, or several labels each
            continue
        counts = Counter(label for example in samples for label in example.labels[head].classes.tolist())
        config = task.model.head(head)
        names = CLASSES.get(head) or (config.labels if config is not None else ())
        named = [
            f"{count:,} × {names[label] if names else f'class {label}'}" for label, count in sorted(counts.items())
        ]
        print(f"{head.replace('_', ' ')}: {', '.join(named)}")
    if samples[0].source is not None:
        sources = sum(len(example.source) for example in samples if example.source is not None)
        print(f"{sources:,} tokens of source, {sum(len(example) for example in samples):,} of the decoder")


def _is_spaced(tokenizer: Tokenizer) -> bool:
    """Whether the tokens hold no spaces: decoding puts them between two of them."""
    special = set(tokenizer.specials.values())
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.piece(token)
        if token not in special and piece.isalnum():
            return " " in tokenizer.decode([token, token]).strip()
    return False
