"""How far scores depend on the form of the prompt: with and without BOS, with and without chat template, with listed
options in another order. The same rows are asked again, and the headline's spread is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmworks.language_model.few_shot import Embed
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.evaluation import BenchmarkResult, Prepared, asked_again, run_benchmark
from lmworks.suites.form import MAIN, Answer
from lmworks.suites.settings import SuiteSettings
from lmworks.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Variant:
    """The same benchmark, asked in another way.

    Attributes:
        name: as a person reads it.
        value: of the headline.
        changed: the share of rows with another answer than the base.
        signature: of the headline.
    """

    name: str
    value: float | None
    changed: float
    signature: str


@dataclass(frozen=True)
class Sensitivity:
    """How far a benchmark's headline depends on the form of the prompt.

    Attributes:
        benchmark, title: whose it is, and the metric.
        value: of the base.
        variants: the others.
        left_out: variants that there are none of, with the reason.
    """

    benchmark: str
    title: str
    value: float | None
    variants: list[Variant] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def spread(self) -> float | None:
        """The largest minus the smallest value; None with fewer than two."""
        values = [value for value in (self.value, *(variant.value for variant in self.variants)) if value is not None]
        return max(values) - min(values) if len(values) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "benchmark": self.benchmark,
            "metric": self.title,
            "value": self.value,
            "spread": self.spread,
            "variants": [vars(variant) for variant in self.variants],
            "left_out": self.left_out,
        }


def measure_sensitivity(
    prepared: Prepared,
    base: BenchmarkResult,
    model: EvaluatedModel,
    settings: SuiteSettings,
    embed_by: Callable[[str], Embed],
    folder: Path | None = None,
) -> Sensitivity:
    """Ask a benchmark again in other forms.

    Args:
        prepared: the benchmark.
        base: its result.
        model: that is asked.
        settings: of the base.
        embed_by: the source of an encoder -> what gives its vectors.
        folder: where the requests are kept, each variant's in a folder of its own; None: nowhere.
    """
    headline = base.scores[0]
    variants, left_out = variants_of(base, settings, model.tokenizer)
    measured = Sensitivity(base.name, headline.title, headline.value, left_out=left_out)
    for name, changed in variants.items():
        place = None if folder is None else folder / name.replace(" ", "-")
        result = run_benchmark(asked_again(prepared, changed), model, changed, embed_by, place)
        assert base.answers is not None
        assert result.answers is not None
        pairs = list(zip(base.answers.rows, result.answers.rows, strict=True))
        share = sum(_answer(before) != _answer(after) for before, after in pairs) / len(pairs)
        score = result.scores[0]
        measured.variants.append(Variant(name, score.value, share, str(score.signature)))
    return measured


def variants_of(
    base: BenchmarkResult, settings: SuiteSettings, tokenizer: Tokenizer
) -> tuple[dict[str, SuiteSettings], list[str]]:
    """The other forms of a benchmark's prompts, by name, and those that there are none of."""
    assert base.answers is not None
    described = base.answers.described
    if "template" not in described:
        return {}, [f"asked by {base.by}, which has no prompt"]
    variants: dict[str, SuiteSettings] = {}
    left_out = []
    if described["template"]:
        variants["without chat template"] = settings.model_copy(update={"template": "off"})
        left_out.append("BOS: the chat template decides")
    else:
        if tokenizer.chat_template is not None and _has_prompt(base):
            variants["with chat template"] = settings.model_copy(update={"template": "on"})
        else:
            left_out.append("chat template: " + ("there is no prompt" if not _has_prompt(base) else "it has none"))
        if tokenizer.bos_id is None or "bos" not in described:
            left_out.append("BOS: the tokenizer has none")
        else:
            has_bos = tokenizer.opening[:1] == [tokenizer.bos_id] or not _has_prompt(base)
            has_bos = has_bos if settings.bos == "auto" else settings.bos == "on"
            name, value = ("without BOS", "off") if has_bos else ("with BOS", "on")
            variants[name] = settings.model_copy(update={"bos": value})
    if described.get("letters"):
        variants["options in another order"] = settings.model_copy(update={"rotation": settings.rotation + 1})
    elif "letters" in described:
        left_out.append("order of options: they do not stand in the prompt")
    return variants, left_out


def _has_prompt(base: BenchmarkResult) -> bool:
    assert base.answers is not None
    return any(prompt.strip() for answer in base.answers.rows for prompt in answer.question.prompts)


def _answer(answer: Answer) -> Any:
    """What was answered: of an option its name, as numbers change with the order."""
    prediction = answer.predictions[MAIN]
    return answer.question.names[prediction] if answer.question.names else prediction
