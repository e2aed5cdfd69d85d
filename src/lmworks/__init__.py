"""lmworks: language models on the machine you have.

The public names, each imported when it is first used: load opens any model (a LanguageModel, or a classifier of texts),
export_gguf writes a model as a GGUF file, plan estimates what a run will need, tune adapts a model to a file of yours,
pretrain trains one from scratch, resume goes on with a run that was stopped, report gives a run's card, compare
measures which way to adapt a model is worth it, measure scores predictions by the usual metrics, evaluate_suite runs a
model on published benchmarks, audit measures what a model does beyond its task, ladder compares the models of history
within a time, share publishes the model of a run with its card, word_vectors opens a file of word vectors, a Grammar is
what a generated text must look like. What a person can correct is raised as InputError.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmworks.audits.api import audit as audit
    from lmworks.base.errors import InputError as InputError
    from lmworks.baselines.word_vectors import WordVectors as WordVectors
    from lmworks.baselines.word_vectors import open_vectors as word_vectors
    from lmworks.comparisons.comparison_api import compare as compare
    from lmworks.comparisons.ladder_api import ladder as ladder
    from lmworks.evaluate.metric_report import measure as measure
    from lmworks.generate.grammar import Grammar as Grammar
    from lmworks.language_model.export import export_gguf as export_gguf
    from lmworks.language_model.model import LanguageModel as LanguageModel
    from lmworks.reports.card import build as report
    from lmworks.run.api import plan as plan
    from lmworks.run.api import pretrain as pretrain
    from lmworks.run.api import resume as resume
    from lmworks.run.api import tune as tune
    from lmworks.run.load import load as load
    from lmworks.sharing.share import share as share
    from lmworks.suites.api import evaluate_suite as evaluate_suite

__all__ = [
    "Grammar",
    "InputError",
    "LanguageModel",
    "WordVectors",
    "__version__",
    "audit",
    "compare",
    "evaluate_suite",
    "export_gguf",
    "ladder",
    "load",
    "measure",
    "plan",
    "pretrain",
    "report",
    "resume",
    "share",
    "tune",
    "word_vectors",
]

# For each shape of a bfloat16 product, oneDNN keeps compiled code and descriptors, and PyTorch the same again. By
# default both keep many shapes, and each new row length has several, so memory would grow by hundreds of MB. A row
# needs only its own shapes, and oneDNN's cache alone serves it. Both read these limits at their first product.
for _name, _shapes in (("LRU_CACHE_CAPACITY", 1), ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", 64)):
    os.environ.setdefault(_name, str(_shapes))

_HOMES = {
    "Grammar": ("lmworks.generate.grammar", "Grammar"),
    "InputError": ("lmworks.base.errors", "InputError"),
    "LanguageModel": ("lmworks.language_model.model", "LanguageModel"),
    "WordVectors": ("lmworks.baselines.word_vectors", "WordVectors"),
    "audit": ("lmworks.audits.api", "audit"),
    "compare": ("lmworks.comparisons.comparison_api", "compare"),
    "evaluate_suite": ("lmworks.suites.api", "evaluate_suite"),
    "export_gguf": ("lmworks.language_model.export", "export_gguf"),
    "ladder": ("lmworks.comparisons.ladder_api", "ladder"),
    "load": ("lmworks.run.load", "load"),
    "measure": ("lmworks.evaluate.metric_report", "measure"),
    "plan": ("lmworks.run.api", "plan"),
    "pretrain": ("lmworks.run.api", "pretrain"),
    "report": ("lmworks.reports.card", "build"),
    "resume": ("lmworks.run.api", "resume"),
    "share": ("lmworks.sharing.share", "share"),
    "tune": ("lmworks.run.api", "tune"),
    "word_vectors": ("lmworks.baselines.word_vectors", "open_vectors"),
}
"""Public name -> the module that has it, and its name there."""


def __getattr__(name: str) -> Any:
    """The public names, and the version of the installed distribution."""
    if name == "__version__":
        from importlib.metadata import version

        return version("lmworks")
    if name in _HOMES:
        from importlib import import_module

        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'lmworks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
