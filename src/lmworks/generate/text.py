"""Texts from ids: streaming without broken characters, stop strings. Knows tokenizers, not models' insides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lmworks.base.errors import InputError
from lmworks.generate.beam import decode_best
from lmworks.generate.decode import Steps, Token, check_prompts, decode
from lmworks.generate.grammar import Grammar
from lmworks.generate.grammar_matcher import GrammarMatcher, matchers_of
from lmworks.generate.sampling import Rules, SamplingSettings, as_array, largest, softmax
from lmworks.generate.speculative import DraftModel, Guesser, PromptLookup, check_guesses, decode_speculatively
from lmworks.generate.stepper import RowStart, Stepper, Usage
from lmworks.text.tokenizer import Tokenizer

LONGEST_CHARACTER = 4  # bytes of UTF-8
StopReason = Literal["end", "stop", "length", "context"]


@dataclass(frozen=True)
class Reply:
    """What a prompt was continued with.

    Attributes:
        text: the new text, without the end token and the stop string.
        ids: all new ids, the end token included.
        stop_reason: "end" (an end token, or the end of the grammar), "stop" (a stop string), "length" (max_tokens),
            "context" (it is full).
        usage: tokens of the prompt and of ``ids``.
        log_probabilities: log p of each of ``ids`` by the model itself, where they were asked for.
        label_probabilities: of a classifier: the probability of each label.
        tool_calls: where tools were given, the calls of them in OpenAI's form; ``text`` is what stands before them.
    """

    text: str
    ids: list[int]
    stop_reason: StopReason
    usage: Usage = field(default_factory=Usage)
    log_probabilities: list[float] | None = None
    label_probabilities: dict[str, float] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class TextBuilder:
    """Decodes ids one by one and gives only the text that can no longer change.

    A character whose bytes are not all there yet, and an ending that may become a stop string, are held back.

    Args:
        tokenizer: of the model.
        stop: texts before which it ends.
        keep_special: write special tokens by their names, and do not leave them out.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], keep_special: bool = False) -> None:
        self._tokenizer, self._skip_special = tokenizer, not keep_special
        self._stop = [text for text in stop if text]
        self._ids: list[int] = []
        self._settled = 0  # ids before this one are decoded into _text for good
        self._text = ""
        self._released = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """Take one more id; give the text that is now certain."""
        self._ids.append(token)
        tail = self._tail()
        if not tail.endswith("\ufffd"):
            self._text += tail
            self._settled = len(self._ids)
        return self._release(self._text, hold=True)

    def finish(self) -> str:
        """Give what was held back; nothing follows."""
        return self._release(self._text + self._tail(), hold=False)

    def _tail(self) -> str:
        """Text of the unsettled ids, decoded after settled ones, since decoders treat a text's start apart: two, and as
        many as make whole characters, since SentencePiece's decoders give up all bytes around a broken one."""
        for begin in range(max(0, self._settled - 2), max(0, self._settled - 2 - LONGEST_CHARACTER) - 1, -1):
            before = self._tokenizer.decode(self._ids[begin : self._settled], self._skip_special)
            if not before.startswith("\ufffd"):
                break
        return self._tokenizer.decode(self._ids[begin:], self._skip_special)[len(before) :]

    def _release(self, text: str, hold: bool) -> str:
        if self.stopped:
            return ""
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        end = len(text)
        if ends:
            end, self.stopped = min(ends), True
        elif hold:
            end -= max((_overlap(text, stop) for stop in self._stop), default=0)
        piece, self._released = text[self._released : end], max(end, self._released)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class ReplyBuilder:
    """One reply as it grows, token by token.

    Args:
        tokenizer: of the model.
        prompt_tokens: how many the prompt has.
        settings: of them stop and max_tokens.
        with_log_probabilities: whether tokens come with their log-probabilities.
        grammar: the matcher of its text.
        room: tokens that the context has left for it; None: any number.
        keep_special: write special tokens by their names, as a parser of tool calls needs them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_tokens: int,
        settings: SamplingSettings,
        with_log_probabilities: bool,
        grammar: GrammarMatcher | None = None,
        room: int | None = None,
        keep_special: bool = False,
    ) -> None:
        self._text, self._end_ids = TextBuilder(tokenizer, settings.stop, keep_special), tokenizer.end_ids
        self._prompt_tokens, self._settings, self._grammar = prompt_tokens, settings, grammar
        self._cut: StopReason = "length" if room is None or room >= settings.max_tokens else "context"
        self._pieces: list[str] = []
        self._ids: list[int] = []
        self._log_probabilities: list[float] | None = [] if with_log_probabilities else None
        self.stop_reason: StopReason | None = None

    def add(self, token: Token) -> str:
        """Take one more token; give the text that is now certain."""
        self._ids.append(token.id)
        if self._log_probabilities is not None and token.log_probability is not None:
            self._log_probabilities.append(token.log_probability)
        if token.id in self._end_ids:
            self.stop_reason = "end"
            return ""
        self._pieces.append(self._text.add(token.id))
        if self._text.stopped:
            self.stop_reason = "stop"
        return self._pieces[-1]

    def finish(self) -> str:
        """Give the text that was held back; nothing follows."""
        self._pieces.append(self._text.finish())
        if self._text.stopped and self.stop_reason is None:
            self.stop_reason = "stop"
        return self._pieces[-1]

    def reply(self) -> Reply:
        """All of it, once it is finished."""
        usage = Usage(self._prompt_tokens, len(self._ids))
        return Reply("".join(self._pieces), self._ids, self._reason(), usage, self._log_probabilities)

    def _reason(self) -> StopReason:
        if self.stop_reason is not None:
            return self.stop_reason
        if self._grammar is not None and self._grammar.is_finished:
            return self._cut if self._grammar.is_shortened else "end"
        return "length" if len(self._ids) >= self._settings.max_tokens else "context"


class TextStream(Iterator[str]):
    """The new text of one prompt, piece by piece (with beams: when all of it is known).

    Args:
        pieces: the text.
        finish: gives the reply when the last piece was given.

    Attributes:
        reply: all of it, with why it stopped; None until the last piece was given.
    """

    def __init__(self, pieces: Iterator[str], finish: Callable[[], Reply]) -> None:
        self._pieces, self._finish = pieces, finish
        self.reply: Reply | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration:
            self.reply = self._finish()
            raise


def stream(
    stepper: Stepper,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    settings: SamplingSettings,
    rules: Rules | None = None,
    with_log_probabilities: bool = False,
    draft: Stepper | None = None,
    grammar: Grammar | None = None,
) -> TextStream:
    """Continue one prompt, or answer one source, piece by piece.

    Args:
        stepper: of a decoder or an encoder-decoder.
        tokenizer: of the same model.
        prompt_ids: ids of the prompt; of an encoder-decoder those of the source.
        settings: how tokens are chosen.
        rules: what the model's publisher demands.
        with_log_probabilities: keep the log-probability of each token.
        draft: of a smaller model with the same vocabulary, which guesses tokens.
        grammar: what the text must look like.
    """
    matchers = matchers_of(grammar, tokenizer, stepper.vocab_size, 1)
    (builder,) = _builders(stepper, tokenizer, [prompt_ids], settings, with_log_probabilities, matchers)
    options = (settings, rules, with_log_probabilities, draft)

    def pieces() -> Iterator[str]:
        for (token,) in _steps(stepper, tokenizer, [prompt_ids], *options, matchers):
            if token is not None and (piece := builder.add(token)):
                yield piece
            if builder.stop_reason is not None:
                break
        if piece := builder.finish():
            yield piece

    return TextStream(pieces(), builder.reply)


def complete(
    stepper: Stepper,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    rules: Rules | None = None,
    with_log_probabilities: bool = False,
    grammar: Grammar | None = None,
) -> list[Reply]:
    """Continue many prompts, or answer many sources, at once; each gets what it would get alone."""
    matchers = matchers_of(grammar, tokenizer, stepper.vocab_size, len(prompts))
    builders = _builders(stepper, tokenizer, prompts, settings, with_log_probabilities, matchers)
    steps = _steps(stepper, tokenizer, prompts, settings, rules, with_log_probabilities, None, matchers)
    step = next(steps, None)
    while step is not None:
        ended = set()
        for row, token in enumerate(step):
            if token is not None:
                builders[row].add(token)
                if builders[row].stop_reason is not None:
                    ended.add(row)
        try:
            step = steps.send(ended)
        except StopIteration:
            step = None
    for builder in builders:
        builder.finish()
    return [builder.reply() for builder in builders]


def _builders(
    stepper: Stepper,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    with_log_probabilities: bool,
    matchers: Sequence[GrammarMatcher],
) -> list[ReplyBuilder]:
    """For each prompt the builder of its reply."""
    context = None if stepper.has_encoder or settings.slide else stepper.context
    builders = []
    of_prompts: Sequence[GrammarMatcher | None] = matchers or [None] * len(prompts)
    for prompt, matcher in zip(prompts, of_prompts, strict=True):
        room = None if context is None else context - len(prompt)
        # special tokens in a text of a grammar are there because it names them, as the marks of tool calls
        keep_special = matcher is not None
        builder = ReplyBuilder(tokenizer, len(prompt), settings, with_log_probabilities, matcher, room, keep_special)
        builders.append(builder)
    return builders


def _steps(
    stepper: Stepper,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    rules: Rules | None,
    with_log_probabilities: bool,
    draft: Stepper | None,
    matchers: Sequence[GrammarMatcher],
) -> Steps:
    if settings.prompt_lookup or draft is not None:
        if len(prompts) != 1:
            fault = f"the next tokens are guessed for one prompt at a time, not for {len(prompts)}"
            raise InputError(fault, "prompt_lookup", "give one prompt, or leave prompt_lookup out")
        guesser: Guesser = PromptLookup(settings.prompt_lookup)
        if draft is not None:
            guesser = DraftModel(check_guesses(draft, settings))
        grammar = matchers[0] if matchers else None
        return decode_speculatively(
            stepper, prompts[0], settings, tokenizer.end_ids, guesser, rules, with_log_probabilities, grammar
        )
    if settings.num_beams == 1:
        return decode(stepper, prompts, settings, tokenizer.end_ids, rules, with_log_probabilities, matchers)
    if matchers:
        raise InputError("beam search keeps to no grammar", "num_beams", "set num_beams to 1, or leave grammar out")
    if with_log_probabilities:
        raise InputError("beam search gives no log-probabilities of tokens", "num_beams", "set num_beams to 1")
    return decode_best(stepper, prompts, settings, tokenizer.end_ids, rules)


def next_tokens(stepper: Stepper, tokenizer: Tokenizer, text: str, top: int) -> list[tuple[str, float]]:
    """The likeliest next tokens after a text, each with its probability.

    Raises:
        InputError: the text is empty or too long, or the model does not continue texts; top is below 1.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, not {top}", "top", "ask for one token or more")
    if stepper.has_encoder:
        hint = "lmworks generate answers it; lmworks fill fills its blanks"
        raise InputError("an encoder-decoder answers a text and does not continue it", "text", hint)
    ids = tokenizer.encode(text, special=True)
    check_prompts(stepper, [ids])
    stepper.prefill([RowStart(ids)], reserve=0)
    probabilities = softmax(as_array(stepper.logits)[0])
    return [(tokenizer.piece(token), float(probabilities[token])) for token in largest(probabilities, top).tolist()]
