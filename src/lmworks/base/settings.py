"""Typed settings: one schema for YAML recipes, command-line overrides, help texts and JSON Schema."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings. Unknown keys are errors; values are checked when set."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())
