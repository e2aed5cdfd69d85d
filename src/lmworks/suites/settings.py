"""Settings of an evaluation on suites: imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmworks.base.seeds import Seed
from lmworks.base.settings import Settings

Choice = Literal["auto", "on", "off"]


class SuiteSettings(Settings):
    """How the benchmarks are run."""

    limit: int | None = Field(None, ge=1, description="Most rows of each benchmark, drawn at random; default: all.")
    split: str | None = Field(None, description="Split in place of the published one, such as train.")
    shots: int | None = Field(None, ge=0, description="Examples before each question; default: as the benchmark says.")
    shots_from: Literal["fixed", "nearest"] = Field(
        "fixed", description="The same examples before all questions, or those most similar to each."
    )
    encoder: str = Field("minilm-l6", description="Sentence encoder that finds the nearest examples.")
    template: Choice = Field(
        "auto",
        description="The model's chat template; auto: for texts that it writes, where it has one, not for likelihoods.",
    )
    bos: Choice = Field("auto", description="A BOS token before prompts without template; auto: as its tokenizer does.")
    letters: bool | None = Field(
        None, description="List the options in the prompt and ask for a letter; default: as the benchmark says."
    )
    rotation: int = Field(0, ge=0, description="Places by which listed options are moved on.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of a text; default: as the benchmark says.")
    seed: Seed = Field(0, description="Of the rows and examples that are drawn.")
