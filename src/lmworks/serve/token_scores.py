"""The scores of tokens as OpenAI's API writes them: ``logprobs`` of chats and of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmworks.serve.token_choice import TokenScore
from lmworks.text.tokenizer import Tokenizer

LEAST = -9999.0
"""Stands for log 0, which JSON has no number for; as in OpenAI's API."""


def chat_scores(tokenizer: Tokenizer, scores: Sequence[TokenScore]) -> dict[str, Any]:
    """``logprobs`` of a chat's choice or of one of its chunks."""
    return {"content": text_scores(tokenizer, scores), "refusal": None}


def text_scores(tokenizer: Tokenizer, scores: Sequence[TokenScore]) -> list[dict[str, Any]]:
    """The same of a part of a response: an entry for each token."""

    def entry(token: int, log_probability: float) -> dict[str, Any]:
        written = tokenizer.token_bytes(token)
        text = tokenizer.piece(token)
        return {"token": text, "logprob": max(log_probability, LEAST), "bytes": list(written)}

    return [
        {**entry(score.id, score.log_probability), "top_logprobs": [entry(*other) for other in score.top]}
        for score in scores
    ]


class CompletionScores:
    """``logprobs`` of a completion, chunk by chunk: it counts the characters of the text.

    Args:
        tokenizer: of the model.
        top: how many of the likeliest tokens are told.
    """

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer, self._top, self._characters = tokenizer, top, 0

    def prompt(self, ids: Sequence[int], scores: Sequence[TokenScore]) -> dict[str, list[Any]]:
        """Those of an echoed prompt, whose first token has none."""
        columns = self._columns()
        self._place(columns, ids[0])
        columns["token_logprobs"].append(None)
        columns["top_logprobs"].append(None)
        return self._add(columns, scores)

    def new(self, scores: Sequence[TokenScore]) -> dict[str, list[Any]]:
        """Those of new tokens."""
        return self._add(self._columns(), scores)

    def _columns(self) -> dict[str, list[Any]]:
        return {name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}

    def _add(self, columns: dict[str, list[Any]], scores: Sequence[TokenScore]) -> dict[str, list[Any]]:
        for score in scores:
            self._place(columns, score.id)
            columns["token_logprobs"].append(max(score.log_probability, LEAST))
            likeliest = dict(score.top) | ({score.id: score.log_probability} if self._top else {})
            named = {self._tokenizer.piece(token): max(value, LEAST) for token, value in likeliest.items()}
            columns["top_logprobs"].append(named or None)
        return columns

    def _place(self, columns: dict[str, list[Any]], token: int) -> None:
        """The token's text and the character at which it begins."""
        columns["tokens"].append(self._tokenizer.piece(token))
        columns["text_offset"].append(self._characters)
        # bytes that begin a character of UTF-8
        self._characters += sum(byte & 0xC0 != 0x80 for byte in self._tokenizer.token_bytes(token))


def joined(parts: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The columns of several parts, one below the other."""
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}
