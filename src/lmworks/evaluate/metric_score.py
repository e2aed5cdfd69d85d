"""A score of a metric with what makes it comparable: its signature, its interval, its rows. Knows no metric.

A signature has the form that sacrebleu gave it (Post 2018): the metric, ``key:value`` settings, and last what computed
it in which version, as ``bleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|sacrebleu:2.6.0``. Two scores may stand in
one table where their signatures are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

OWN = "lmworks"
UNSAID = "not said"
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Signature:
    """How a score was computed.

    Attributes:
        metric: its name, as ``bleu``.
        implementation: what computed it: the distribution of a library, or ``lmworks``.
        version: of the library; of a definition in lmworks its number, which rises whenever a score would change.
        settings: pairs of key and value in the order in which they are written: tokenization, case, smoothing, number
            of references; of a model's answers also the prompt's template and the number of examples (shots).
    """

    metric: str
    implementation: str = OWN
    version: str = "1"
    settings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        parts = [self.metric, self.implementation, self.version, *(word for pair in self.settings for word in pair)]
        if any(not part or "|" in part or "\n" in part for part in parts) or ":" in self.metric:
            raise ValueError(f"a part of a signature is empty, or holds a | or a line end: {parts}")

    @classmethod
    def of_library(cls, library: str, metric: str, /, **settings: object) -> Signature:
        """The signature of a metric that an installed distribution computes; settings as in :meth:`with_settings`."""
        from importlib.metadata import version

        return cls(metric, library, version(library)).with_settings(**settings)

    @classmethod
    def parse(cls, text: str) -> Signature:
        """The signature that was written as this text.

        Raises:
            ValueError: it is none.
        """
        metric, *pairs = text.split("|")
        parts = [tuple(pair.partition(":")[::2]) for pair in pairs]
        if not parts:
            raise ValueError(f"{text!r} is no signature: it does not say what computed the score")
        *settings, (implementation, version) = parts
        return cls(metric, implementation, version, tuple((key, value) for key, value in settings))

    def with_settings(self, **settings: object) -> Signature:
        """The same with further settings behind those that it has, or with other values of these.

        Args:
            settings: key and value; True and False become yes and no; None is left out. A text that is long or holds
                several lines, such as a template, stands for itself by a name or a digest.
        """
        known = dict(self.settings)
        for key, value in settings.items():
            if value is not None:
                known[key] = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        return replace(self, settings=tuple(known.items()))

    def differences(self, other: Signature) -> list[str]:
        """In what two signatures differ, a text each: ``tok: 13a / intl``; empty where scores are comparable."""
        sides = [{"metric": side.metric, **dict(side.settings)} for side in (self, other)]
        keys = dict.fromkeys([*sides[0], *sides[1], "computed by"])
        for side, signature in zip(sides, (self, other), strict=True):
            side["computed by"] = f"{signature.implementation} {signature.version}"
        pairs = {key: [side.get(key, UNSAID) for side in sides] for key in keys}
        return [f"{key}: {ours} / {theirs}" for key, (ours, theirs) in pairs.items() if ours != theirs]

    def __str__(self) -> str:
        pairs = [*self.settings, (self.implementation, self.version)]
        return "|".join([self.metric, *(f"{key}:{value}" for key, value in pairs)])


@dataclass(frozen=True)
class MetricScore:
    """What a metric came to on some rows.

    Attributes:
        title: the metric's name as a person reads it.
        value: in the unit of the reference implementation (BLEU up to 100, ROUGE up to 1); None where the rows have
            none, as a correlation of equal numbers.
        signature: how it was computed.
        rows: how many rows it is of.
        better: whether higher or lower is better; None: neither is, as of how varied texts are.
        interval: ends of the confidence interval for other rows of the same source; None where it was not computed.
        level: of the interval.
        details: what it consists of, by name, as JSON: n-gram precisions, bins of calibration, classes.
        notes: what a reader must know of these rows, such as texts that the metric cannot read.
    """

    title: str
    value: float | None
    signature: Signature
    rows: int
    better: Better | None = "higher"
    interval: tuple[float, float] | None = None
    level: float = 0.95
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The score as a JSON object; its signature is a text."""
        return {
            "metric": self.signature.metric,
            "title": self.title,
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            "level": self.level,
            "rows": self.rows,
            "better": self.better,
            "signature": str(self.signature),
            "details": dict(self.details),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MetricScore:
        """The score of such an object.

        Raises:
            KeyError, ValueError: it is none.
        """
        ends = value["interval"]
        return cls(
            value["title"],
            value["value"],
            Signature.parse(value["signature"]),
            value["rows"],
            value["better"],
            (ends[0], ends[1]) if ends else None,
            value["level"],
            value["details"],
            tuple(value["notes"]),
        )
