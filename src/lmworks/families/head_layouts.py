"""Heads as Hugging Face's classes have them: ...ForSequenceClassification, ...ForTokenClassification,
...ForQuestionAnswering.

A family says of each such class which head of ours it is and how its tensors are called; this file reads and writes
what its config.json says of a head: the class, id2label, problem_type, the rate of dropout. Knows no family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.mapping import Rename, Row
from lmworks.model.config import Activation, HeadConfig, HeadKind, ProblemType
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS, default_labels, labels_of

PROBLEMS: dict[str, ProblemType] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
DEFAULT_LABELS = 2  # classes without id2label have so many


@dataclass(frozen=True)
class HeadLayout:
    """A class with a head.

    Attributes:
        architecture: the class.
        kind: what the head reads.
        linear, dense: names of its last linear, and of the one before it; no name: there is none.
        activation: after ``dense``.
        bias: whether the last linear has one.
        dropout: keys of the config that give the rate, the first that is set; none: nothing is dropped out.
        default_dropout: where no key is set.
        prefix: before the names of the backbone, where it is not the family's.
        encoder_alone: whether the class of an encoder-decoder has no decoder.
    """

    architecture: str
    kind: HeadKind
    linear: str
    dense: str = ""
    activation: Activation = "tanh"
    bias: bool = True
    dropout: tuple[str, ...] = ()
    default_dropout: float = 0.0
    prefix: str | None = None
    encoder_alone: bool = False

    def head(
        self, name: str, size: int, problem: ProblemType, labels: Sequence[str] = (), dropout: float | None = None
    ) -> HeadConfig:
        """The head as an entry of a ModelConfig."""
        return HeadConfig(
            name=name,
            kind=self.kind,
            size=size,
            problem=problem,
            labels=tuple(labels),
            bias=self.bias,
            dense=self.activation if self.dense else None,
            dropout=(self.default_dropout if dropout is None else dropout) if self.dropout else 0.0,
        )

    def rows(self, name: str) -> list[Row]:
        """The head's tensors, as rows of the family's table."""
        kinds = ["weight", "bias"] if self.bias else ["weight"]
        rows: list[Row] = [Rename(f"{self.linear}.{kind}", f"heads.{name}.{kind}") for kind in kinds]
        if self.dense:
            rows += [Rename(f"{self.dense}.{kind}", f"heads.{name}.dense.{kind}") for kind in ("weight", "bias")]
        return rows


HeadLayouts = Mapping[str, HeadLayout]


def decoder_heads(
    title: str, tokens: str | None = "score", has_spans: bool = False, span_prefix: str | None = None
) -> dict[str, HeadLayout]:
    """The classes of a decoder: the last token's hidden state classifies a text.

    Args:
        title: how the names of its classes begin.
        tokens: name of the linear of token classification; None: it has no such class.
        has_spans: whether it has a class for question answering.
        span_prefix: before the names of that class's backbone, where it is not the family's.
    """
    rates = ("classifier_dropout", "hidden_dropout")
    heads = {SEQUENCE: HeadLayout(f"{title}ForSequenceClassification", "last", "score", bias=False)}
    if tokens is not None:
        layout = HeadLayout(f"{title}ForTokenClassification", "tokens", tokens, dropout=rates, default_dropout=0.1)
        heads[TOKENS] = layout
    if has_spans:
        heads[SPANS] = HeadLayout(f"{title}ForQuestionAnswering", "tokens", "qa_outputs", prefix=span_prefix)
    return heads


def named_head(layouts: HeadLayouts, architectures: object) -> str | None:
    """The head of ours whose class ``architectures`` names; None: it names none of them."""
    named = architectures if isinstance(architectures, list) else []
    return next((name for name, layout in layouts.items() if layout.architecture in named), None)


def read_head(name: str, layout: HeadLayout, hf_config: Mapping[str, Any], place: str) -> HeadConfig:
    """What a config.json says of the head of its class.

    Raises:
        InputError: id2label is no table, or problem_type or the rate of dropout is none that is known.
    """
    labels = _labels(hf_config.get("id2label"), place)
    size = len(labels) or hf_config.get("num_labels") or DEFAULT_LABELS
    if not isinstance(size, int) or size < 1:
        raise InputError(f"num_labels is {size!r}", place, "repair it, or write id2label")
    problem_type = hf_config.get("problem_type")
    if problem_type is not None and problem_type not in PROBLEMS:
        raise InputError(f"problem_type is {problem_type!r}", place, f"one of: {', '.join(PROBLEMS)}")
    problem: ProblemType = "regression" if size == 1 else "single_label"
    if problem_type is not None and name == SEQUENCE:
        problem = PROBLEMS[problem_type]
    if name == SPANS:
        size, problem, labels = 2, "span", []
    rates = (hf_config.get(key) for key in layout.dropout)
    dropout = next((rate for rate in rates if rate is not None), None)
    if dropout is not None and not isinstance(dropout, int | float):
        raise InputError(f"{layout.dropout[0]} is {dropout!r}, no rate", place, "give a number from 0 to below 1")
    if labels == default_labels(len(labels)):
        labels = []
    return layout.head(name, size, problem, labels, dropout)


def write_head(head: HeadConfig, layout: HeadLayout) -> dict[str, Any]:
    """The keys of config.json that say it."""
    keys: dict[str, Any] = {}
    if head.problem != "span":
        labels = labels_of(head)
        keys["id2label"] = {str(number): label for number, label in enumerate(labels)}
        keys["label2id"] = {label: number for number, label in enumerate(labels)}
        keys["problem_type"] = next(key for key, problem in PROBLEMS.items() if problem == head.problem)
    if layout.dropout:
        keys[layout.dropout[0]] = head.dropout
    return keys


def _labels(value: object, place: str) -> list[str]:
    """The labels of id2label in the order of their numbers."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise InputError("id2label is no table of numbers and labels", place, "repair it, or leave it out")
    try:
        numbered = {int(number): str(label) for number, label in value.items()}
    except ValueError as error:
        raise InputError(f"id2label: {error}", place, "its keys are the numbers of the labels") from error
    if sorted(numbered) != list(range(len(numbered))):
        raise InputError("id2label does not number its labels 0, 1, 2 ...", place, "repair its keys")
    twice = next((label for label in numbered.values() if list(numbered.values()).count(label) > 1), None)
    if twice is not None:
        raise InputError(f"id2label has two labels {twice!r}", place, "give each label a name of its own")
    return [numbered[number] for number in range(len(numbered))]
