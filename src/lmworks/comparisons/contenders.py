"""The contenders of a comparison: the ways to adapt a model, and the simple ones that they must beat."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.base.settings import nearest, spelled

Kind = Literal["classical", "baseline", "before", "prompted", "trained"]
RECOMMENDED = "recommended"
"""In a comparison's folder: a link to the run of the recommended contender."""
SIMPLE = ("classical", "baseline", "before")
"""Kinds that need no training of the model."""
PROMPTED = ("labels", "completion", "pairs", "chat")


@dataclass(frozen=True)
class Contender:
    """One way to solve the task.

    Attributes:
        name: on the command line, and of its folder.
        title: as tables show it.
        kind: classical: a classifier by counts of words; baseline: copies answers of the training rows; before: what
            the card of every run has before training, which is a simple rule where a new head knows nothing yet;
            prompted: a method that trains nothing; trained: a method whose learning rate and length are searched.
        settings: groups of its recipe: of a classical one ``model`` is its preset.
        rows: kinds of rows that it can be compared on; empty: all that the model can learn.
    """

    name: str
    title: str
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()


CLASSICAL = {
    "majority": "majority class",
    "tfidf-nb": "TF-IDF, naive Bayes",
    "tfidf-logreg": "TF-IDF, logistic regression",
    "tfidf-svm": "TF-IDF, linear SVM",
}
"""Presets of classifiers by counts of words, with their titles."""


def _of_method(name: str, method: str, options: dict[str, Any]) -> Contender:
    """A contender that a method makes, with settings of the method."""
    kind: Kind = "trained" if METHODS[method].trains else "prompted"
    settings = {"method": method, **({method: options} if options else {})}
    return Contender(name, name, kind, settings, () if kind == "trained" else PROMPTED)


def _of_methods() -> list[Contender]:
    """The variants of every method that is compared."""
    return [
        _of_method(name, method.name, options)
        for method in METHODS.values()
        if method.is_compared
        for name, options in (method.variants or {method.name.replace("_", "-"): {}}).items()
    ]


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        *(Contender(name, title, "classical", {"model": name}, ("labels",)) for name, title in CLASSICAL.items()),
        Contender("before", "before training", "before", {}, ("text", "tags", "questions", "values", "multi_labels")),
        Contender("nearest-answer", "answer of the nearest training row", "baseline", {}, ("completion", "pairs")),
        *_of_methods(),
    )
}
"""Name -> contender: what must be beaten, then the methods in their order."""


def choose(names: list[str], changes: dict[str, dict[str, Any]], kind: str) -> list[Contender]:
    """The contenders of a comparison, in their order.

    Args:
        names: of the contenders; empty: all.
        changes: changes of their recipes, and recipes of new ones, by name.
        kind: of the rows.

    Raises:
        InputError: a name is none, or a contender that was named cannot be compared on such rows.
    """
    names, changes = (
        [known_name(name, changes) for name in names],
        {known_name(name, changes): groups for name, groups in changes.items()},
    )
    known = {**CONTENDERS, **{name: _new(name, groups) for name, groups in changes.items() if name not in CONTENDERS}}
    for name in names:
        if known[name].rows and kind not in known[name].rows:
            fault = f"{known[name].title} takes rows of kind {' or '.join(known[name].rows)}, and these are {kind}"
            raise InputError(fault, f"methods, {name}", "leave it out")
    return [
        contender
        for contender in known.values()
        if (contender.name in names if names else not contender.rows or kind in contender.rows)
    ]


def known_name(name: str, changes: dict[str, dict[str, Any]]) -> str:
    """A contender's own name.

    Args:
        name: of it, in which hyphens count as underscores.
        changes: changes of recipes, and recipes of new contenders, by name.

    Raises:
        InputError: there is no such contender.
    """
    known = [*CONTENDERS, *(new_name for new_name, values in changes.items() if "method" in values)]
    if (word := spelled(name, known)) in known:
        return word
    near = nearest(name, known)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(known)}"
    if name in changes:
        hint = f"{hint}; a new one needs a method: --contender.{name}.method lora"
    raise InputError(f"there is no contender {name!r}", "methods", hint)


def _new(name: str, settings: dict[str, Any]) -> Contender:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name) or name == RECOMMENDED:
        hint = f"letters, digits and hyphens, and not {RECOMMENDED}: it names a folder"
        raise InputError("is no name for a contender", f"contender.{name}", hint)
    method = spelled(str(settings["method"]), METHODS)
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}", f"contender.{name}", f"one of: {', '.join(METHODS)}")
    return _of_method(name, method, {})
