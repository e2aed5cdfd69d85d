"""Seeds of parts of a run, each from the run's seed and the part's name or number alone."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed in settings: what the generators of torch and of NumPy both take."""


def derived_seed(seed: int, part: str | int) -> int:
    """A seed in [0, 2^63) for one part of a run: a module's first weights, or the dropout of one step.

    Args:
        seed: of the run.
        part: which one; the same part of the same run gets the same seed on every machine.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {part}".encode()).digest()[:8], "little") >> 1
