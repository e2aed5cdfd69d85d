"""Chat: a decoder learns the assistant's turns of conversations, written through its chat template."""

from __future__ import annotations

from typing import ClassVar

from lmworks.tasks.instructions import Instructions


class Chat(Instructions):
    """Rows of messages. Which turns carry loss, the data settings say (turns: all, last)."""

    name: ClassVar[str] = "chat"
    learns: ClassVar[str] = "the assistant's turns of conversations"
    kinds: ClassVar[tuple[str, ...]] = ("chat",)
    default_for: ClassVar[tuple[str, ...]] = ("chat",)
