"""What is evaluated of a run, on rows that were never trained on. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lmworks.base.settings import Settings

TASK_ROWS = 48
"""Default of ``task_rows`` for an opened model in a run that is not short."""

GENERAL_BYTES = 24_000
"""Default of ``general_bytes`` for an opened model in a run that is not short."""

OPENED_MAX_TOKENS, NEW_MAX_TOKENS = 64, 48
"""Defaults of ``max_tokens`` for opened and for new models."""


class EvaluateSettings(Settings):
    """What is evaluated before, during and after training. None: what suits an opened model, or a new one."""

    task_rows: int | None = Field(
        None,
        ge=0,
        description="Held-out rows answered to measure the task's own metric; "
        f"None: {TASK_ROWS}, fewer in a short run, of a new model 0.",
    )
    measured: int | None = Field(
        None,
        gt=0,
        description="At most so many held-out examples are evaluated, spread evenly; None: all, fewer in a short run.",
    )
    samples: int = Field(3, ge=0, description="Samples shown side by side in the report.")
    prompts: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Texts to show the model instead: to continue, to fill ([MASK] or the tokenizer's), to translate.",
    )
    max_tokens: int | None = Field(
        None,
        gt=0,
        description=f"Longest answer and longest sample; None: {OPENED_MAX_TOKENS}, of a new model {NEW_MAX_TOKENS}.",
    )
    reuse: bool = Field(
        True,
        description="An opened model is not evaluated again before training where an earlier run did so on this "
        "machine with the same weights, rows and settings.",
    )
    temperature: float = Field(0.8, ge=0, description="Of continued texts; 0: the likeliest token each time.")
    top_k: int = Field(50, ge=0, description="Continued with one of so many tokens; 0: of all.")
    general: str | None = Field(
        None,
        description="A text file never trained on, to measure forgetting, and of a new model how well it predicts "
        "other texts; none: Python's documentation topics.",
    )
    general_bytes: int | None = Field(
        None,
        ge=0,
        description="How much of it is read; 0: forgetting is not measured; "
        f"None: {GENERAL_BYTES}, less in a short run, of a new model 0 unless evaluate.general names a file.",
    )

    def resolve(self, new: bool, fraction: float = 1.0) -> None:
        """Fill in what was left open.

        Args:
            new: whether the model begins with weights drawn at random, so that it has nothing to forget.
            fraction: of the default numbers of answers and of bytes of the general text; below 1 in a short run.
        """
        if self.task_rows is None:
            self.task_rows = 0 if new else round(TASK_ROWS * fraction)
        if self.max_tokens is None:
            self.max_tokens = NEW_MAX_TOKENS if new else OPENED_MAX_TOKENS
        if self.general_bytes is None:
            is_read = not new or self.general is not None
            # less text would have too few parts for a confidence interval
            self.general_bytes = round(GENERAL_BYTES * max(fraction, 0.5)) if is_read else 0

    @property
    def longest(self) -> int:
        """Tokens of the longest answer."""
        return self.max_tokens or OPENED_MAX_TOKENS
