"""Signatures are texts that can be read back, and say in what two scores differ."""

from __future__ import annotations

import json

import pytest

from lmworks.evaluate.metric_score import MetricScore, Signature

BLEU = Signature("bleu", "sacrebleu", "2.6.0", (("nrefs", "1"), ("case", "mixed"), ("tok", "13a")))


def test_a_signature_is_its_text() -> None:
    assert str(BLEU) == "bleu|nrefs:1|case:mixed|tok:13a|sacrebleu:2.6.0"
    assert Signature.parse(str(BLEU)) == BLEU
    assert str(Signature("accuracy")) == "accuracy|lmworks:1"
    assert Signature.parse("accuracy|lmworks:1") == Signature("accuracy")


def test_a_value_may_hold_a_colon() -> None:
    signature = BLEU.with_settings(template="hub:owner/name")
    assert Signature.parse(str(signature)) == signature


def test_settings_are_added_and_replaced_in_place() -> None:
    signature = BLEU.with_settings(tok="intl", shots=0, chat=True, template=None)
    assert str(signature) == "bleu|nrefs:1|case:mixed|tok:intl|shots:0|chat:yes|sacrebleu:2.6.0"
    assert signature.settings[0] == ("nrefs", "1")


def test_differences_are_named() -> None:
    assert BLEU.differences(BLEU) == []
    other = Signature("bleu", "sacrebleu", "2.4.0", (("nrefs", "1"), ("case", "lc"), ("shots", "5")))
    assert BLEU.differences(other) == [
        "case: mixed / lc",
        "tok: 13a / not said",
        "shots: not said / 5",
        "computed by: sacrebleu 2.6.0 / sacrebleu 2.4.0",
    ]


@pytest.mark.parametrize("text", ["bleu", "", "bleu|tok", "|sacrebleu:2"])
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        Signature.parse(text)


@pytest.mark.parametrize("value", ["a|b", "two\nlines", ""])
def test_a_value_that_could_not_be_read_back_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="signature"):
        BLEU.with_settings(template=value)


def test_a_score_goes_through_json() -> None:
    score = MetricScore("BLEU", 31.5, BLEU, 40, interval=(28.0, 35.25), details={"brevity_penalty": 0.9}, notes=("n",))
    assert MetricScore.from_json(json.loads(json.dumps(score.as_json()))) == score
    bare = MetricScore("Pearson", None, Signature("pearson", "scipy", "1.11"), 3)
    assert MetricScore.from_json(json.loads(json.dumps(bare.as_json()))) == bare
