"""Figures of models that tag words: precision, recall and F1 of whole entities, as ``seqeval`` gives them.

An entity counts as found where its type, its first and its last word are right (Tjong Kim Sang and De Meulder 2003).
Knows no model and no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmworks.data.word_pieces import Words
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.prediction import SHOWN_MISTAKES
from lmworks.evaluate.tagging import characters_of, mark_entities
from lmworks.text.tags import Span, Tags, entities, have_scheme, strict_entities


def scores(right: int, predicted: int, expected: int) -> dict[str, float]:
    """Precision, recall and F1 from counts of entities; 0 where there is nothing to divide by."""
    precision, recall = right / predicted if predicted else 0.0, right / expected if expected else 0.0
    return {"precision": precision, "recall": recall, "f1": 2 * right / (predicted + expected) if right else 0.0}


def signatures(has_scheme: bool) -> dict[str, str]:
    """How the figures are computed, by name.

    Args:
        has_scheme: whether tags say where an entity begins; else each word is one.
    """
    match = {"match": "span and type", "scheme": "IOB2" if has_scheme else "none"}
    f1 = Signature("entity_f1")
    settings = {"f1": {"average": "micro"}, "macro_f1": {"average": "macro"}}
    named = {name: f1.with_settings(**own, **match) for name, own in settings.items()}
    named["strict_f1"] = named["f1"].with_settings(mode="strict")
    named |= {name: Signature(f"entity_{name}").with_settings(**match) for name in ("precision", "recall")}
    named["accuracy"] = Signature("tag_accuracy")
    return {name: str(signature) for name, signature in named.items()}


def entity_figures(expected: Sequence[Tags], predicted: Sequence[Tags]) -> dict[str, Any]:
    """Figures of predicted tags, as a JSON object.

    Args:
        expected, predicted: tags of each word of each sentence.

    Returns:
        ``precision``, ``recall`` and ``f1`` of all entities (micro), ``macro_f1``, the mean of the types',
        ``strict_f1``, where only what B begins is an entity, ``accuracy``, the share of words with the right tag,
        ``types``: of each type its scores and the numbers ``expected``, ``predicted`` and ``right``; by row
        ``row_right``, twice the entities that are right, and ``row_entities``, those expected and those predicted:
        their quotient is F1; ``signatures`` of the figures.
    """
    pairs, strict_pairs = (_span_sets(expected, predicted, find) for find in (entities, strict_entities))
    rows = [(len(right & found), len(right) + len(found)) for right, found in pairs]
    counts = {name: Counter[str]() for name in ("expected", "predicted", "right")}
    for right, found in pairs:
        for name, spans in (("expected", right), ("predicted", found), ("right", right & found)):
            counts[name].update(span.kind for span in spans)
    kinds = sorted(counts["expected"] | counts["predicted"])
    types = {
        kind: {
            **scores(counts["right"][kind], counts["predicted"][kind], counts["expected"][kind]),
            **{name: of_kind[kind] for name, of_kind in counts.items()},
        }
        for kind in kinds
    }
    sentences = zip(expected, predicted, strict=True)
    words = [pair for right, found in sentences for pair in zip(right, found, strict=True)]
    strict = scores(
        sum(len(right & found) for right, found in strict_pairs),
        sum(len(found) for _, found in strict_pairs),
        sum(len(right) for right, _ in strict_pairs),
    )
    total = scores(*(counts[name].total() for name in ("right", "predicted", "expected")))
    is_iob = have_scheme(tag for pair in words for tag in pair)
    return {
        "rows": len(rows),
        "words": len(words),
        "signatures": signatures(is_iob),
        "scheme": "IOB2" if is_iob else "",
        **total,
        "macro_f1": float(np.mean([types[kind]["f1"] for kind in kinds])) if kinds else 0.0,
        "strict_f1": strict["f1"],
        "accuracy": sum(right == found for right, found in words) / len(words) if words else 0.0,
        "types": types,
        "row_right": [2.0 * right for right, _ in rows],
        "row_entities": [float(both) for _, both in rows],
    }


SpanSets = tuple[set[Span], set[Span]]


def _span_sets(
    expected: Sequence[Tags], predicted: Sequence[Tags], find: Callable[[Tags], list[Span]]
) -> list[SpanSets]:
    """For each sentence the spans that its expected and its predicted tags make."""
    return [(set(find(right)), set(find(found))) for right, found in zip(expected, predicted, strict=True)]


def with_sentences(
    figures: dict[str, Any],
    expected: Sequence[Tags],
    predicted: Sequence[Tags],
    probabilities: Sequence[np.ndarray],
    words: Sequence[Words],
    places: Sequence[str],
) -> dict[str, Any]:
    """The figures with ``mistakes``, as the journal keeps them: sentences with the wrong entities that the model is
    surest of, each an object of ``place``, ``expected`` and ``predicted`` (the text with its entities in brackets),
    ``wrong`` (what was predicted there) and ``probability``.

    Args:
        figures: of :func:`entity_figures`.
        expected, predicted: tags of each word of each of N sentences.
        probabilities: (W,) of each predicted tag, by sentence.
        words, places: of the N sentences.
    """
    mistakes: list[dict[str, Any]] = []
    for row, (right, found) in enumerate(_span_sets(expected, predicted, entities)):
        wrong = [(float(probabilities[row][span.first : span.end].mean()), span) for span in found - right]
        missed = [(float(probabilities[row][span.first : span.end].mean()), span) for span in right - found]
        if not wrong and not missed:
            continue
        probability, span = max(wrong or missed)
        begin, end = characters_of(words[row], span)
        kind = span.kind if wrong else "no entity"
        mistakes.append(
            {
                "place": places[row],
                "expected": mark_entities(words[row], expected[row]),
                "predicted": mark_entities(words[row], predicted[row]),
                "wrong": f"{words[row].text[begin:end]}: {kind}",
                "probability": probability,
            }
        )
    mistakes.sort(key=lambda mistake: -mistake["probability"])
    return {**figures, "mistakes": mistakes[:SHOWN_MISTAKES]}
