"""What can be said about an adapter. Imports no torch, so that recipes and help texts cost nothing."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, field_validator

from lmworks.base.settings import Settings

ALL_LINEAR = "all-linear"
HEAD = "lm_head"


class LoRASettings(Settings):
    """Low-rank adaptation: small trainable matrices beside frozen linears (Hu et al. 2021)."""

    rank: int = Field(16, gt=0, description="Rank r of the update B A; parameters grow with it.")
    alpha: float = Field(32.0, gt=0, description="The update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Part of the adapter's input set to zero while training.")
    targets: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj"],
        description=f"Linears to adapt: names, patterns (layers.1?.mlp.*), or {ALL_LINEAR}: all but the head.",
    )
    use_rslora: bool = Field(False, description="Multiply by alpha / sqrt(rank) instead (Kalajdzievski 2023).")

    @field_validator("targets", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        """A command line may give the names as one word with commas."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("targets")
    @classmethod
    def _not_empty(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("names no linear; for instance q_proj,v_proj or all-linear")
        return value

    @property
    def scale(self) -> float:
        """What the product B A is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


def targeted(name: str, target: str) -> bool:
    """Whether a module's dotted name is meant by one target: its last names, a pattern, or all-linear."""
    if target == ALL_LINEAR:
        return name.rpartition(".")[2] != HEAD
    return fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")
