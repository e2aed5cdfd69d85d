"""Distinct-n and repetition by their definitions; self-BLEU by sacrebleu's sentence BLEU with all other texts."""

from __future__ import annotations

import numpy as np
import pytest
from damaged_texts import damaged, sentences
from sacrebleu.metrics import BLEU

from lmworks.base.errors import InputError
from lmworks.evaluate.metric_registry import METRICS, score
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows


def measured(name: str, texts: list[str], **options) -> Measurement:
    return METRICS[name].measure(PredictedRows(texts), MetricOptions(**options))


def test_distinct_is_its_definition() -> None:
    result = measured("distinct1", ["a b a", "b c", ""])
    assert result.value == 3 / 5
    assert result.details == {"different": 3, "ngrams": 5}
    assert measured("distinct2", ["a b a b", "b a"]).value == 2 / 4
    assert measured("distinct1", ["A a"]).value == 1.0
    assert measured("distinct1", ["A a"], lowercase=True).value == 0.5
    with pytest.raises(InputError, match="none has as many"):
        measured("distinct2", ["a", "b"])


def test_the_interval_of_distinct_is_the_jackknifes() -> None:
    texts = damaged(sentences(60), 3)
    figure = measured("distinct2", texts).figure
    value = figure.value
    assert value == pytest.approx(measured("distinct2", texts).value)
    without = np.array([measured("distinct2", texts[:row] + texts[row + 1 :]).value for row in range(60)])
    jackknife = np.sqrt(59 / 60 * ((without - without.mean()) ** 2).sum())
    low, high = score("distinct2", PredictedRows(texts)).interval or (0, 0)
    assert low < value < high
    assert (high - low) / (2 * 1.96) == pytest.approx(jackknife, rel=0.1)


@pytest.mark.parametrize("count", [2, 15])
def test_self_bleu_is_sacrebleus(count: int) -> None:
    texts = [*damaged(sentences(count - 1), 5), sentences(1)[0]]
    scorer = BLEU(effective_order=True)
    expected = [scorer.sentence_score(text, texts[:row] + texts[row + 1 :]).score for row, text in enumerate(texts)]
    assert measured("self_bleu", texts).value == pytest.approx(np.mean(expected))
    with pytest.raises(InputError, match="there is one"):
        measured("self_bleu", ["alone"])


def test_equal_texts_have_a_self_bleu_of_100() -> None:
    assert measured("self_bleu", ["one and the same text"] * 3).value == pytest.approx(100)


def test_repetition_leaves_short_texts_out_and_says_so() -> None:
    result = measured("repetition", ["a b c d a b c d", "e f g h", "short"])
    assert result.value == pytest.approx((1 / 5 + 0) / 2)
    assert result.notes == ["1 text of fewer than 4 tokens did not count"]
    with pytest.raises(InputError, match="no text has 4 tokens"):
        measured("repetition", ["a"])
