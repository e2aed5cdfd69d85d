"""Chat: a decoder learns the assistant's turns of conversations, written through its chat template."""

from __future__ import annotations

from lmworks.tasks.instructions import Instructions


class Chat(Instructions):
    """Rows of messages; ``data.turns`` says which of the assistant's turns carry loss."""

    name = "chat"
    learns = "the assistant's turns of conversations"
    kinds = ("chat",)
    default_for = ("chat",)
    input_kind = "text"  # conversations are not put into a prompt template
