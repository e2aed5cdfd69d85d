"""What a model is trained to do from scratch. Imports no torch, knows no tokenizer and no model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lmworks.base.settings import Settings

Name = Literal["causal", "masked", "spans", "denoising", "seq2seq"]

ARCHITECTURES: dict[str, str] = {
    "causal": "decoder",
    "masked": "encoder",
    "spans": "encoder-decoder",
    "denoising": "encoder-decoder",
    "seq2seq": "encoder-decoder",
}
"""The architecture that each objective trains."""

RATES = {"masked": 0.15, "spans": 0.15, "denoising": 0.3}
"""Share of the tokens that is hidden, as published (BERT, T5, BART)."""


class ObjectiveSettings(Settings):
    """What is predicted from what. A rate left open is the published one of the objective."""

    name: Name = Field("causal", description="causal: next token; masked: BERT; spans: T5; denoising: BART; seq2seq.")
    windows: Literal["chunks", "random"] = Field(
        "chunks", description="Texts longer than a context: one chunk after another, or from a random token each time."
    )
    mask_rate: float | None = Field(
        None, gt=0, lt=1, description="Share of words or tokens hidden; default 0.15, denoising 0.3."
    )
    whole_words: bool = Field(False, description="masked: all pieces of a word are hidden together.")
    next_sentence: bool = Field(False, description="masked: pairs of sentences; does the second follow the first?")
    mean_span: float = Field(3.0, ge=1, description="spans, denoising: mean number of tokens of a hidden span.")
    permute_sentences: bool = Field(True, description="denoising: the sentences of the source stand in random order.")
    prefix: str = Field("", description='seq2seq: stands before each source ("translate English to French: ").')
    decoder_start: Literal["auto", "pad", "bos", "eos"] = Field(
        "auto", description="What a decoder reads first; auto: pad (T5, Marian), for denoising eos (BART)."
    )

    @model_validator(mode="after")
    def _serve_the_objective(self) -> Self:
        uses = {
            "whole_words": {"masked"},
            "next_sentence": {"masked"},
            "mask_rate": set(RATES),
            "windows": {"causal", "masked", "spans", "denoising"},
            "mean_span": {"spans", "denoising"},
            "permute_sentences": {"denoising"},
            "prefix": {"seq2seq"},
            "decoder_start": {"spans", "denoising", "seq2seq"},
        }
        for field, names in uses.items():
            if self.name not in names and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} says nothing to objective {self.name}, only to {', '.join(sorted(names))}")
        if self.next_sentence and self.windows == "random":
            raise ValueError("windows random says nothing to next_sentence, whose pairs are drawn anew each time")
        return self

    @property
    def rate(self) -> float:
        """Share of the words or tokens that is hidden."""
        return self.mask_rate if self.mask_rate is not None else RATES.get(self.name, 0.0)

    @property
    def architecture(self) -> str:
        """What a model must be for this objective: decoder, encoder or encoder-decoder."""
        return ARCHITECTURES[self.name]

    @property
    def start_role(self) -> str:
        """Role of the token that the decoder reads first."""
        if self.decoder_start != "auto":
            return self.decoder_start
        return "eos" if self.name == "denoising" else "pad"
