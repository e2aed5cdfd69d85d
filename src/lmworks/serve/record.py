"""What the log says of a request: numbers and names, and its texts only where the server was told to."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

KEY = "lmworks.record"
"""Of a connection's scope."""


@dataclass
class RequestRecord:
    """A request, filled while it is answered.

    Attributes:
        id: also in the response's header X-Request-Id.
        model: the one that it named, where there is such a one.
        user: what the client says of who asks.
        prompt_tokens, cached_tokens, completion_tokens: cached are those of the prompt that were not read again.
        first_token_seconds: from the request to its first token.
        finish_reasons: of its answers.
        error: a word for what went wrong.
        body: the whole of it, where the log is to have it.
        keeps_body: whether it is.
        client: who asks, for the fair order; not in the log.
    """

    id: str
    model: str | None = None
    user: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_seconds: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None
    body: str | None = None
    keeps_body: bool = False
    client: str = ""

    def fields(self) -> dict[str, Any]:
        """What is known of it, by name."""
        hidden = ("keeps_body", "client")
        known = {name: value for name, value in vars(self).items() if name not in hidden}
        return {name: value for name, value in known.items() if value not in (None, [])}


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """The record of the request of a connection."""
    record: RequestRecord = scope[KEY]
    return record
