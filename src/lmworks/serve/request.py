"""What is asked of a model, and what comes of it: a request with its choices (answers), and the events that it sends.

Created where a request arrives; then the worker's thread changes it (serve/worker.py), and its events go back through
``send``. Only :meth:`Request.cancel` is called from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmworks.generate.decode import Token
from lmworks.generate.sampling import Rules
from lmworks.generate.text import ReplyBuilder
from lmworks.serve.token_choice import ChoiceSettings, TokenChooser, TokenScore, score_tokens
from lmworks.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class PromptScores:
    """The scores of a prompt's tokens but its first, where they were asked for; comes before all else of a choice."""

    index: int
    scores: list[TokenScore]


@dataclass(frozen=True)
class Piece:
    """New text of a choice, which may be empty, and the scores of its tokens where they were asked for."""

    index: int
    text: str
    scores: list[TokenScore]


@dataclass(frozen=True)
class Finished:
    """A choice has ended.

    Attributes:
        index: of the choice.
        reason: "stop": an end token, a stop string or the end of a grammar; "length": max_tokens, or a full context.
        completion_tokens: new tokens, the end token among them.
        reused_tokens: tokens of the prompt that were not read again.
    """

    index: int
    reason: FinishReason
    completion_tokens: int
    reused_tokens: int


@dataclass(frozen=True)
class Results:
    """What was asked of each text of a request."""

    values: list[Any]


@dataclass(frozen=True)
class Failed:
    """The request came to nothing; no event follows."""

    error: Exception


Event = PromptScores | Piece | Finished | Results | Failed


class TimeLimit(Exception):
    """A request took longer than it may.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request was not done after {seconds:g} seconds, which is the limit")


class Stopping(Exception):
    """The server stops before a request is done."""


class QueueFull(Exception):
    """So many requests wait that no more are taken.

    Args:
        retry_after: seconds after which there is probably room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests are waiting")
        self.retry_after = retry_after


class Request:
    """One request.

    Args:
        send: takes its events, in the worker's thread.
        time_limit: seconds from now on.
        client: who asks; each gets its share.
    """

    def __init__(self, send: Callable[[Event], None], time_limit: float, client: str = "") -> None:
        self.send, self.began, self._time_limit, self.client = send, time.monotonic(), time_limit, client
        self.is_over = False
        """Nobody waits for more: it was cancelled, it failed, or it is done."""

    def cancel(self) -> None:
        """Nobody waits for it any more; its places are free before the next token is computed."""
        self.is_over = True

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        if not self.is_over:
            self.is_over = True
            self.send(Failed(error))

    def check_time(self, now: float) -> None:
        """Let it fail where its time is over."""
        if now - self.began > self._time_limit:
            self.fail(TimeLimit(self._time_limit))


class TextRequest(Request):
    """A request about texts, such as for their vectors. Other arguments as of :class:`Request`.

    Attributes:
        texts: as the queue reads them.
        results: of the first of them, as far as they are computed.
    """

    def __init__(
        self, send: Callable[[Event], None], time_limit: float, texts: Sequence[Any], client: str = ""
    ) -> None:
        super().__init__(send, time_limit, client)
        self.texts, self.results = texts, list[Any]()


class GenerationRequest(Request):
    """A request for one answer or several. Arguments as of :class:`Request`.

    Attributes:
        choices: the answers, in order.
    """

    def __init__(self, send: Callable[[Event], None], time_limit: float, client: str = "") -> None:
        super().__init__(send, time_limit, client)
        self.choices: list[Choice] = []

    def active(self) -> int:
        """How many of its choices have a place."""
        return sum(choice.placed is not None for choice in self.choices)


class Choice:
    """One answer as it grows.

    Args:
        request: the one that it belongs to.
        prompt: ids that the model reads.
        opening: ids that the decoder begins with: of a decoder the prompt, of an encoder-decoder its start token.
        limit: new tokens at most; 0: the prompt alone is read.
        settings: how its tokens are chosen.
        tokenizer, rules: of the model.
        generator: draws its tokens.
        scores_prompt: tell the scores of the prompt's tokens too.
        adapter: of the model, with which it is computed; None: none.

    Attributes:
        index: its number within the request.
        ids: the opening and all new ids.
        placed: when it got its place; None while it waits, and when it has ended.
        number: of its sequence in the backend, once its prompt has begun to be read.
        reused: tokens of the prompt that were not read again.
        read: tokens of the prompt that are read.
        finish_reason: None while it may go on.
        last_time: when its last token came.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: Sequence[int],
        opening: Sequence[int],
        limit: int,
        settings: ChoiceSettings,
        tokenizer: Tokenizer,
        rules: Rules,
        generator: np.random.Generator,
        scores_prompt: bool = False,
        adapter: str | None = None,
    ) -> None:
        self.request, self.prompt, self.ids = request, prompt, list(opening)
        self.index, self.scores_prompt, self.adapter = len(request.choices), scores_prompt, adapter
        self.placed: float | None = None
        self.number, self.reused, self.read = -1, 0, 0
        self.finish_reason: FinishReason | None = None
        self.last_time = request.began
        self._limit, self._settings, self._new = limit, settings, 0
        self._chooser = TokenChooser(settings, rules, tokenizer.end_ids, generator, limit)
        self._text = ReplyBuilder(tokenizer, len(prompt), settings.sampling, False, keep_special=settings.keeps_special)
        self._prompt_scores: list[TokenScore] = []
        self._scores: list[TokenScore] = []  # of tokens whose text is held back
        request.choices.append(self)

    @property
    def new_tokens(self) -> int:
        """How many have come."""
        return self._new

    def take_prompt(self, logits: np.ndarray, begin: int) -> None:
        """Take the logits (n, V) after the prompt's tokens from number ``begin`` on, which score those that follow."""
        following = self.prompt[begin + 1 : begin + 1 + len(logits)]
        top = self._settings.top_log_probabilities or 0
        self._prompt_scores += score_tokens(logits[: len(following)], following, top)

    def begin(self) -> None:
        """The prompt is read: tell its scores; end where nothing is to follow."""
        if self.scores_prompt:
            self.request.send(PromptScores(self.index, self._prompt_scores))
        if self._limit == 0:
            self._finish("length")

    def take(self, logits: np.ndarray) -> None:
        """Choose the next token by its logits (V,), and send what is certain of the text."""
        token = self._chooser.choose(logits, self.ids, self._new, self._limit - self._new)
        ended: FinishReason = "length" if self._chooser.is_shortened else "stop"
        if token is None:
            self._finish(ended)
            return
        self.ids.append(token)
        self._new += 1
        piece = self._text.add(Token(token))
        if self._settings.top_log_probabilities is not None and self._text.stop_reason != "end":
            self._scores += score_tokens(logits[None], [token], self._settings.top_log_probabilities)
        if self._text.stop_reason is not None:
            self._finish("stop", piece)
        elif self._chooser.is_finished:
            self._finish(ended, piece)
        elif self._new >= self._limit:
            self._finish("length", piece)
        elif piece:
            self._send(piece)

    def _send(self, text: str) -> None:
        self.request.send(Piece(self.index, text, self._scores))
        self._scores = []

    def _finish(self, reason: FinishReason, piece: str = "") -> None:
        rest = piece + self._text.finish()
        # a stop string may end in the text that was held back
        self.finish_reason = "stop" if self._text.stop_reason is not None else reason
        if rest or self._scores:
            self._send(rest)
        self.request.send(Finished(self.index, self.finish_reason, self._new, self.reused))
        if all(choice.finish_reason is not None for choice in self.request.choices):
            self.request.is_over = True
