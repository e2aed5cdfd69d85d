"""Settings of a comparison. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from lmworks.base.settings import Duration, Settings
from lmworks.text.rows import DataSettings

BUDGET = 1200.0
DATA: dict[str, Any] = {"held_out": 0.2, "held_out_max": 1000}
"""Rows of the test part tell contenders apart, so that there are more of them than in a single run."""


class CompareSettings(Settings):
    """A comparison of ways to adapt a model to a data set."""

    model: str = Field(description="The model to adapt: any source of a model.")
    source: str = Field(description="A file, a named data set or hub:owner/name.")
    task: str = Field("auto", description="What is learned; auto: what suits rows and model.")
    methods: list[str] = Field(default_factory=list, description="Names of contenders; none: all that can be compared.")
    budget: Duration = Field(BUDGET, gt=0, description="Time of the whole comparison: 90s, 20m, 1h.")
    seeds: int = Field(1, gt=0, le=20, description="Final trainings of each contender, each with another seed.")
    validation: float = Field(
        0.1, gt=0, description="Share of the training rows (from 1 on: their number) that settings are chosen by."
    )
    rates: int = Field(3, gt=0, le=7, description="Learning rates that the search begins with; 1: no search.")
    canaries: int = Field(
        4,
        ge=0,
        le=100,
        description="Rows with a secret planted among rows with written answers, to measure memorisation.",
    )
    data: DataSettings = Field(default_factory=lambda: DataSettings.model_validate(DATA))
    train: dict[str, Any] = Field(default_factory=dict, description="Settings of training of every contender.")
    evaluate: dict[str, Any] = Field(default_factory=dict, description="Settings of every evaluation on the test part.")
    contender: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Changes of a contender's recipe, or a new one: --contender.small.method lora "
        "--contender.small.lora.rank 2",
    )

    @field_validator("methods", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        return [] if value in (["all"], None) else value

    @field_validator("data", mode="before")
    @classmethod
    def _more_held_out(cls, value: Any) -> Any:
        if isinstance(value, DataSettings):
            value = value.model_dump(exclude_unset=True)
        return {**DATA, **value} if isinstance(value, dict) else value
