"""Metrics of texts are those of sacrebleu, rouge-score and nltk, over all rows and over resampled ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from damaged_texts import damaged, sentences
from sacrebleu.metrics import BLEU, CHRF, TER

from lmworks.base.errors import InputError
from lmworks.evaluate import question_answering, text_metrics
from lmworks.evaluate.metric_registry import METRICS
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows

COUNT = 40
GIVEN = {name: os.environ.get(f"LMWORKS_METRIC_{name}") for name in ("PREDICTIONS", "REFERENCES")}
"""Text files with one real output, and one reference, a line."""


def made(references: int = 1, count: int = COUNT) -> PredictedRows:
    right = sentences(count)
    assert len(right) == count
    others = [damaged(right, 100 + number, 0.1) for number in range(references - 1)]
    listed = [[text, *(each for each in more if each)] for text, *more in zip(right, *others, strict=True)]
    return PredictedRows(damaged(right, 1), listed)


def streams(rows: PredictedRows) -> list[list[str | None]]:
    """References as sacrebleu takes them."""
    width = max(map(len, rows.references))
    return [[listed[n] if n < len(listed) else None for listed in rows.references] for n in range(width)]


def measured(name: str, rows: PredictedRows, **options) -> Measurement:
    return METRICS[name].measure(rows, MetricOptions(**options))


SCORERS = {
    "bleu": (BLEU, {}, {}),
    "chrf": (CHRF, {}, {}),
    "chrf++": (CHRF, {"word_order": 2}, {}),
    "ter": (TER, {}, {}),
}


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("name", SCORERS)
def test_scores_and_signatures_are_sacrebleus(name: str, references: int) -> None:
    rows = made(references)
    scorer = SCORERS[name][0](**SCORERS[name][1])
    expected = scorer.corpus_score(list(rows.predicted), streams(rows))
    result = measured(name, rows)
    assert result.value == expected.score
    theirs = dict(part.split(":") for part in scorer.get_signature().format().split("|"))
    assert result.signature.version == theirs.pop("version") == sacrebleu.__version__
    assert dict(result.signature.settings) == theirs
    assert Signature.parse(str(result.signature)) == result.signature


@pytest.mark.parametrize("options", [{"lowercase": True}, {"tokenize": "intl"}, {"tokenize": "char"}])
def test_options_of_bleu(options: dict) -> None:
    rows = made()
    expected = BLEU(**options).corpus_score(list(rows.predicted), streams(rows))
    result = measured("bleu", rows, **options)
    assert result.value == expected.score
    assert result.signature != measured("bleu", rows).signature
    assert result.details["precisions"] == expected.precisions
    assert result.details["brevity_penalty"] == expected.bp < 1
    assert (result.details["predicted_tokens"], result.details["reference_tokens"]) == (
        expected.sys_len,
        expected.ref_len,
    )


@pytest.mark.parametrize("name", [*SCORERS, "rouge1", "exact_match", "token_f1"])
def test_resampled_rows_have_the_score_of_these_rows(name: str) -> None:
    rows = made(2, 12)
    dice = np.random.default_rng(0)
    figure = measured(name, rows).figure
    for _ in range(3):
        chosen = dice.integers(0, 12, 12)
        again = PredictedRows([rows.predicted[row] for row in chosen], [rows.references[row] for row in chosen])
        weights = np.bincount(chosen, minlength=12)[None].astype(float)
        assert figure.resampled(weights)[0] == pytest.approx(measured(name, again).value)
    assert figure.value == pytest.approx(measured(name, rows).value)


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_rouge_scores(name: str, stem: bool) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([name], use_stemmer=stem)
    rows = made(2, 12)
    rows = PredictedRows(
        [text.replace(", ", ",\n") for text in rows.predicted],
        [[text.replace(", ", ",\n") for text in listed] for listed in rows.references],
    )
    result = measured(name, rows, stem=stem)
    each = [
        scorer.score_multi(listed, text)[name] for text, listed in zip(rows.predicted, rows.references, strict=True)
    ]
    assert result.value == pytest.approx(np.mean([score.fmeasure for score in each]))
    assert result.details["recall"] == pytest.approx(np.mean([score.recall for score in each]))
    assert dict(result.signature.settings)["stem"] == ("yes" if stem else "no")


def test_rouge_says_what_it_cannot_read() -> None:
    pytest.importorskip("rouge_score")
    with pytest.raises(InputError, match="no reference has any"):
        measured("rouge1", PredictedRows(["это дом"], [["это дом"]]))
    result = measured("rouge1", PredictedRows(["это дом", "a house"], [["это дом"], ["a house"]]))
    assert result.value == 0.5
    assert any(note.startswith("1 of 2 rows without a letter from a to z") for note in result.notes)
    assert any("rougeL without" in note for note in measured("rougeLsum", made(1, 3)).notes)


def test_meteor_is_nltks_and_says_whether_it_knows_synonyms() -> None:
    meteor_score = pytest.importorskip("nltk.translate.meteor_score").meteor_score
    rows = made(2, 12)
    result = measured("meteor", rows)
    split = text_metrics.tokenizer("13a")
    wordnet, name = text_metrics._wordnet()
    expected = [
        meteor_score([split(reference) for reference in listed], split(text), wordnet=wordnet)
        for text, listed in zip(rows.predicted, rows.references, strict=True)
    ]
    assert result.value == pytest.approx(np.mean(expected))
    assert dict(result.signature.settings)["match"] == ("exact+stem" + (f"+{name}" if name else ""))
    assert bool(result.notes) is not bool(name)


def test_meteor_of_a_known_pair() -> None:
    """Worked by hand: 5 of 6 words match, one of them by its stem, in one chunk; P = R = 5/6, penalty (1/5)^3 / 2."""
    pytest.importorskip("nltk")
    rows = PredictedRows(["The cats sat on the xyzzy"], [["the cat sat on the qwerty"]])
    assert measured("meteor", rows).value == pytest.approx(5 / 6 * (1 - 0.5 * (1 / 5) ** 3))


def test_matches_and_f1_take_the_best_reference() -> None:
    rows = PredictedRows(["The answer.", "no", " 4 "], [["answer", "reply"], ["yes"], ["5", "4"]])
    assert measured("exact_match", rows).value == pytest.approx(1 / 3)
    assert measured("squad_exact_match", rows).value == pytest.approx(2 / 3)
    expected = [
        question_answering.scores(text, listed)[1] for text, listed in zip(rows.predicted, rows.references, strict=True)
    ]
    assert measured("token_f1", rows).value == pytest.approx(np.mean(expected))
    assert dict(measured("token_f1", rows).signature.settings)["nrefs"] == "var"
    upper = PredictedRows(["YES"], [["yes"]])
    assert measured("exact_match", upper).value == 0.0
    assert measured("exact_match", upper, lowercase=True).value == 1.0


def test_bleu_says_when_it_can_be_nothing_but_zero() -> None:
    assert any("four tokens" in note for note in measured("bleu", PredictedRows(["a b"], [["a b"]])).notes)
    tokenized = PredictedRows(["it is so ."] * 100, [["it is so."]] * 100)
    assert any("full stop after a space" in note for note in measured("bleu", tokenized).notes)


def test_unknown_tokenizers_are_refused() -> None:
    with pytest.raises(InputError, match="no tokenizer 'flores200'"):
        text_metrics.tokenizer("flores200")


@pytest.mark.slow
@pytest.mark.skipif(
    None in GIVEN.values(), reason="LMWORKS_METRIC_PREDICTIONS and LMWORKS_METRIC_REFERENCES name files"
)
def test_real_outputs_have_the_scores_of_the_reference_implementations() -> None:
    texts, right = (Path(GIVEN[name] or "").read_text(encoding="utf-8").splitlines() for name in GIVEN)
    rows = PredictedRows(texts, [[text] for text in right])
    for name, (kind, settings, _) in SCORERS.items():
        assert measured(name, rows).value == kind(**settings).corpus_score(texts, [right]).score
    from rouge_score.rouge_scorer import RougeScorer

    for name in ("rouge1", "rouge2", "rougeL"):
        scores = [RougeScorer([name]).score(one, text)[name].fmeasure for one, text in zip(right, texts, strict=True)]
        assert measured(name, rows).value == pytest.approx(np.mean(scores))
