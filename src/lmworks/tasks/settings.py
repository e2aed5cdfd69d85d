"""What can be said about a task. Imports no torch, knows no tokenizer and no model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmworks.base.settings import Settings

MASK_RATE, DENOISING_MASK_RATE = 0.15, 0.3
"""Published fractions of hidden tokens: of BERT's and T5's tasks, and of BART's."""


class TaskSettings(Settings):
    """What is learned from the rows. Each task uses some of these settings; the others must stay as they are."""

    name: str = Field("auto", description="What is learned; auto: what suits the rows and the model.")
    windows: Literal["chunks", "random"] = Field(
        "chunks", description="Texts longer than a context: one chunk after another, or from a random token each time."
    )
    mask_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"Fraction of words or tokens hidden; default {MASK_RATE}, denoising {DENOISING_MASK_RATE}.",
    )
    whole_words: bool = Field(False, description="masked: all tokens of a word are hidden together.")
    next_sentence: bool = Field(False, description="masked: pairs of sentences; does the second follow the first?")
    mean_span: float = Field(3.0, ge=1, description="spans, denoising: mean number of tokens of a hidden span.")
    permute_sentences: bool = Field(True, description="denoising: the sentences of the source stand in random order.")
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto",
        description="contrastive: a text's vector: the mean of its tokens, its first or its last token; auto: of a "
        "decoder the last, which alone has read the whole text, else the mean.",
    )
    scale: float = Field(20.0, gt=0, description="contrastive: factor of the cosines; 1 / temperature.")
    mined_negatives: int = Field(
        0,
        ge=0,
        le=100,
        description="contrastive: hard negatives of each row. Before training the model finds them among the "
        "targets of the rows: near texts that are not the row's own target.",
    )
    mining_range_min: int = Field(0, ge=0, description="contrastive: how many of the nearest texts are left out.")
    mining_range_max: int = Field(100, gt=0, description="contrastive: ranks that may give negatives end here.")
    mining_margin: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="contrastive: a negative's cosine is at most (1 - margin) times that of the target; nearer texts "
        "are likely to answer too.",
    )
    mining_max_score: float | None = Field(
        None, ge=-1, le=1, description="contrastive: the largest cosine of a mined negative."
    )
    prefix: str = Field("", description='seq2seq: stands before each source ("translate English to French: ").')
    decoder_start: Literal["auto", "pad", "bos", "eos"] = Field(
        "auto", description="What a decoder reads first; auto: as the model says, else pad (T5, Marian), denoising eos."
    )

    stride: int = Field(
        128, ge=0, description="extract: tokens that two windows over a long context share; 0: refuse long contexts."
    )
    max_answer_tokens: int = Field(30, gt=0, description="extract: tokens of the longest answer.")

    def changed(self) -> list[str]:
        """The settings that are not at their defaults, without the name."""
        fields = type(self).model_fields
        return [name for name in fields if name != "name" and getattr(self, name) != fields[name].default]
