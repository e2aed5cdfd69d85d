"""Whose turn it is: clients that wait get theirs one after the other, however much each of them asks for."""

from __future__ import annotations

from collections.abc import Iterable


class Turns:
    """The latest turn of each client that waits. One thread calls at a time."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        self._count = 0

    def latest(self, client: str) -> int:
        """The number of its latest turn; 0: it had none while it waited. The client with the lowest is the next."""
        return self._latest.get(client, 0)

    def take(self, client: str, waiting: Iterable[str]) -> None:
        """A client has a turn.

        Args:
            client: whose turn it is.
            waiting: the clients that still wait afterwards; nothing is kept of others.
        """
        self._count += 1
        latest = self._latest | {client: self._count}
        self._latest = {name: latest[name] for name in waiting if name in latest}
