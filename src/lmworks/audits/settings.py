"""Settings of an audit. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from lmworks.base.settings import Settings, nearest, spelled

KINDS = {
    "bias": "CrowS-Pairs and Winogender as published; terms exchanged in your own rows",
    "memorisation": "canaries, completions written word for word, membership by loss",
    "personal-data": "e-mail addresses, phone numbers, IBANs, cards ... in training rows and in outputs",
    "toxicity": "listed words, and a classifier trained on your labels, in outputs and rows",
    "hallucination": "questions without an answer, agreement of several answers, support in the source",
    "robustness": "typos, case, paraphrases, the order of labels",
    "contamination": "n-grams of the held-out rows and of suites in the training rows",
}
"""The kinds of an audit, in their order, with what each measures."""


class AuditSettings(Settings):
    """What is measured, and on what."""

    kinds: tuple[str, ...] = Field(tuple(KINDS), min_length=1, description=f"Any of {', '.join(KINDS)}.")
    suite_data: str | None = Field(
        None, description="A folder with crows_pairs_anonymized.csv and all_sentences.tsv, or one of the two."
    )
    rows: int = Field(200, gt=0, description="The most rows of your own that a measurement takes, drawn at random.")
    suite_rows: int | None = Field(None, gt=0, description="The most sentences or pairs of a suite; None: all.")
    samples: int = Field(4, gt=1, description="Outputs for each prompt.")
    max_tokens: int = Field(48, gt=0, description="Tokens of the longest output.")
    temperature: float = Field(1.0, gt=0, description="Of outputs of which there are several.")
    seed: int = Field(0, ge=0, description="Of what is drawn at random.")
    terms: str | None = Field(None, description="bias: a file of pairs of terms, two columns; None: English gender.")
    prompts: str | None = Field(None, description="toxicity, personal-data: a file of prompts; None: the rows'.")
    words: str | None = Field(None, description="toxicity: a file of words, one a line; None: a small English list.")
    labelled: str | None = Field(None, description="toxicity: a file of texts and labels to train a classifier on.")
    toxic_label: str | None = Field(None, description="toxicity: the label of toxic texts in that file.")
    questions: str | None = Field(
        None, description="hallucination: a file of questions, contexts and answers, as SQuAD's; None: the rows."
    )
    entailment: str | None = Field(
        None, description="hallucination: a model that gives a pair of texts the label entailment."
    )
    paraphrases: str | None = Field(None, description="robustness: a file with the columns text and paraphrase.")

    @field_validator("kinds", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """``bias,toxicity`` is a list; unknown kinds are refused, and the nearest is named."""
        names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        for name in names:
            if not isinstance(name, str) or spelled(name, KINDS) not in KINDS:
                near = nearest(str(name), list(KINDS))
                raise ValueError(f"no kind {name!r}: {f'did you mean {near[0]}?' if near else ', '.join(KINDS)}")
        return tuple(kind for kind in KINDS if kind in {spelled(name, KINDS) for name in names})
