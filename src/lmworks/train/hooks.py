"""What a caller adds to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from lmworks.model.transformer import Transformer


@dataclass
class Hooks:
    """Functions that the loop calls, and what it shows.

    Attributes:
        evaluate: (network in evaluation mode, step) -> figures of the held-out rows, ``loss`` among them; the floats
            are shown.
        sample: (network in evaluation mode, step) -> generated texts, each with ``prompt`` and ``answer``; called after
            each evaluation (without ``evaluate``: at the same steps), shown, and written as an event ``samples``.
        console: where progress is written; None: standard error.
        quiet: no progress lines.
        library_bytes: bytes that the process uses besides the model; None: the loop measures them.
    """

    evaluate: Callable[[Transformer, int], dict[str, Any]] | None = None
    sample: Callable[[Transformer, int], list[dict[str, str]]] | None = None
    console: Console | None = None
    quiet: bool = False
    library_bytes: int | None = None
