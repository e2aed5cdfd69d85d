"""The settings of a blind test."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from lmworks.base.seeds import Seed
from lmworks.base.settings import Settings

CRITERIA = ("quality", "coherence", "factual accuracy", "helpfulness")
MOST_MODELS = 9
"""Answers side by side are chosen by the keys 1 to 9."""


class BlindTestSettings(Settings):
    """What is compared, and how."""

    models: list[str] = Field(description="Names of the models, 2 to 9.")
    by: Literal["choice", "scores"] = Field("choice", description="Choose the best answer, or score each one.")
    criteria: list[str] = Field(list(CRITERIA), min_length=1, description="What answers are scored by, from 1 to 5.")
    seed: Seed = Field(0, description="Of the order of answers and prompts.")
    max_tokens: int = Field(256, ge=1, description="Tokens of an answer at most.")
    temperature: float = Field(0.0, ge=0, le=2, description="0: the likeliest token each time.")
    top_p: float = Field(1.0, gt=0, le=1, description="Tokens are drawn from the likeliest of this probability.")
    source: str = Field("", description="Where the prompts come from.")

    @field_validator("models")
    @classmethod
    def _are_several(cls, names: list[str]) -> list[str]:
        if not 2 <= len(set(names)) == len(names) <= MOST_MODELS:
            raise ValueError(f"give 2 to {MOST_MODELS} different models")
        return names

    @field_validator("criteria")
    @classmethod
    def _differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("give criteria of different names")
        return names
