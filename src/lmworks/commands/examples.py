"""How lmworks data show prints the examples of a task: what the model sees, and what it learns to say.

Knows no model; reads examples alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

from lmworks.commands import show
from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.model.head_requests import SPANS
from lmworks.run.token_view import ANSWER, CLASSES, LOSS, TAG, Token, TokenText, TokenView, fate, size_of, span_of
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

GIVEN = "dim"
LEARNED = "bold green"
MARK = "bold magenta"
FATES = {"masked": "bold red", "replaced": "bold yellow", "left": "bold cyan"}
"""What became of a hidden token, and its colour."""


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
        self.tokenizer, self.most, self.lines = tokenizer, most, lines
        self.view = TokenView(tokenizer, labels)
        self.console = show.console()
        self.plain = not self.console.is_terminal or self.console.no_color
        self.special = set(tokenizer.specials.values())

    def example(self, example: Example, name: str) -> None:
        """One sampled example under a line that says what it is."""
        print(f"--- example {name}, {example.place}: {size_of(example)}")
        for head, said in self.view.labels_of(example):
            print(f"{head}: {said}")
        texts = self.view.texts(example)
        for text in texts:
            shown = text.tokens[: self.most]
            if self.lines:
                for token in shown:
                    print(self._line(text, token))
            else:
                self._inline(text, shown)
            if text.type is None:
                self._more(len(text.tokens))
        if texts and texts[-1].type is not None:
            self._more(len(example))

    def _line(self, text: TokenText, token: Token) -> str:
        """A token in a line of its own."""
        piece = repr(self.tokenizer.piece(token.id))
        if text.type is None:
            return f"{token.id:>8} {text.title:6} {'loss' if token.state == LOSS else '    '} {piece}"
        state = {ANSWER: "answer", TAG: "loss"}.get(token.state, token.state if token.state in FATES else "")
        target = f" -> {token.target}" if token.state == TAG else ""
        if token.state in FATES:
            assert isinstance(token.target, int)
            target = f" -> {token.target} {self.tokenizer.piece(token.target)!r}"
        return f"{token.id:>8} type {text.type} {state:8} {piece}{target}"

    def _inline(self, text: TokenText, tokens: Sequence[Token]) -> None:
        """A text in one line; sentinels and masks are marked in texts in which nothing is hidden in its place."""
        line = Text(f"{text.title}: " if text.title else "")
        for token in tokens:
            piece = self.view.piece(token.id)
            if token.state in FATES:
                assert isinstance(token.target, int)
                self._marked(line, f"{piece}→{self.view.piece(token.target).strip()}", FATES[token.state])
            elif token.state == TAG:
                self._marked(line, f"{piece}/{token.target}", LEARNED)
            elif token.state == ANSWER:
                self._marked(line, piece, LEARNED)
            elif text.type is None and token.id in self.special:
                self._marked(line, piece, MARK)
            else:
                line.append(piece, style=LEARNED if token.state == LOSS else GIVEN)
        self.console.print(line, soft_wrap=True)

    def _marked(self, line: Text, text: str, style: str) -> None:
        space = " " * (len(text) - len(text.lstrip(" ")))
        text = text.lstrip(" ")
        line.append(f"{space}[{text}]" if self.plain else f"{space}{text}", style=style)

    def _more(self, length: int) -> None:
        if length > self.most:
            print(f"... and {length - self.most} more tokens (--tokens)")


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
            pointing = sum(span_of(example)[1] == 0 for example in samples)
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
