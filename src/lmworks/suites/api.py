"""Suites as a Python call."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmworks.base.settings import build
from lmworks.suites.evaluated_model import EvaluatedModel
from lmworks.suites.settings import SuiteSettings
from lmworks.suites.suite_run import Evaluation, Say, run_suites

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


def evaluate_suite(
    model: LanguageModel | str | Path,
    suite: str,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    sensitivity: bool = False,
    offline: bool | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Evaluation:
    """Run a model on published benchmarks.

    Args:
        model: opened, or its source; a source is prepared for the native engine.
        suite: names of suites or benchmarks, or files of suites, with commas between them.
        data: the folder below which the files lie; None: they are fetched from the hub.
        out: new, for evaluation.json and the token ids that are sent; None: nothing is kept.
        sensitivity: ask each benchmark again in other forms of the prompt.
        offline: fetch nothing; default: as LMWORKS_OFFLINE says.
        say: gets a line when a benchmark begins.
        **settings: of SuiteSettings: limit, shots, shots_from, template, bos, letters, seed ...

    Returns:
        ``results``, each with its ``scores``, which have a signature and an interval; ``left_out``, with reasons.

    Raises:
        InputError: there is no such suite, a row cannot be used, or nothing could be run.
    """
    from lmworks.language_model.opening import embed_by
    from lmworks.run.load import load

    def open_model() -> EvaluatedModel:
        opened = load(model, offline=offline).prepare("float32") if isinstance(model, str | Path) else model
        return EvaluatedModel(opened)

    chosen = build(SuiteSettings, settings, "evaluate_suite")
    embed = partial(embed_by, offline=offline)
    return run_suites(suite, open_model, embed, data, chosen, out, sensitivity, offline, say)
