"""The metrics of the published table: perplexity, BLEU with its n-gram precisions and ROUGE of what a model predicts.

What is scored is no answer of the model's own: at every place it is shown the text up to there (teacher forcing), and
its likeliest next tokens, one after the other, are compared with the text itself. The tutorial filled its texts with
end-of-text tokens to one length and scored those too; both ways are computed here from the same predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lmworks.evaluate.metric_registry import METRICS
from lmworks.evaluate.predicted_rows import MetricOptions, PredictedRows

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.text.tokenizer import Tokenizer

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TEXTS_AT_ONCE = 4


@dataclass(frozen=True)
class Predicted:
    """What a model predicts of one text, from its second token on.

    Attributes:
        nats: -log p of the text's tokens, summed.
        tokens: how many were predicted.
        text: the likeliest tokens, decoded.
        reference: the text's own.
    """

    nats: float
    tokens: int
    text: str
    reference: str


@torch.inference_mode()
def predict(
    model: LanguageModel, texts: Sequence[Sequence[int]], width: int
) -> tuple[list[Predicted], list[Predicted]]:
    """What a decoder predicts of texts.

    Args:
        model: a decoder with an end-of-text token.
        texts: token ids; none longer than ``width``.
        width: tokens to which texts are padded, with the end-of-text token.

    Returns:
        the predictions of each text: of its own tokens, and of all ``width`` tokens with the padding.
    """
    network, tokenizer = model.network.eval(), model.tokenizer
    plain: list[Predicted] = []
    padded: list[Predicted] = []
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[begin : begin + TEXTS_AT_ONCE]
        ids = torch.tensor([[*text, *[tokenizer.eos_id] * (width - len(text))] for text in some])
        logits = network.head(network.hidden_states(ids[:, :-1])).float()
        best, targets = logits.argmax(-1), ids[:, 1:]
        nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        for row, text in enumerate(some):
            for results, end, skip in ((plain, len(text) - 1, True), (padded, width - 1, False)):
                sides = [tokenizer.decode(side[row, :end].tolist(), skip_special=skip) for side in (best, targets)]
                results.append(Predicted(float(nats[row, :end].double().sum()), end, *sides))
    return plain, padded


def text_figures(predictions: Sequence[Predicted]) -> dict[str, float]:
    """All metrics of some texts: perplexity, and BLEU and ROUGE in 0..1."""
    texts, references = [item.text for item in predictions], [item.reference for item in predictions]
    return {"perplexity": perplexity(predictions), **bleu(texts, references), **rouge(texts, references)}


def late_figures(tokenizer: Tokenizer, texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """BLEU and ROUGE of what predicts nothing: each text's tokens one place late, as if the next token were always the
    last one again. Both metrics ignore where a word stands, so its figures say how little a high one means."""
    late, references = ([tokenizer.decode(ids[part]) for ids in texts] for part in (slice(-1), slice(1, None)))
    return {**bleu(late, references), **rouge(late, references)}


def perplexity(predictions: Sequence[Predicted]) -> float:
    """exp of the mean nats of a token, over all texts together."""
    return math.exp(sum(item.nats for item in predictions) / sum(item.tokens for item in predictions))


def bleu(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU of all texts together and its n-gram precisions (Papineni et al. 2002), by sacrebleu with tokenizer 13a."""
    measured = METRICS["bleu"].measure(_rows(texts, references), MetricOptions())
    precisions = {f"bleu{n}": value / 100 for n, value in enumerate(measured.details["precisions"], 1)}
    return {"bleu": measured.value / 100} | precisions


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2, -L and -Lsum (Lin 2004): F-measures by rouge-score without stemming, the mean over texts."""
    rows = _rows(texts, references)
    return {name: METRICS[name].measure(rows, MetricOptions()).value for name in ROUGE}


def _rows(texts: Sequence[str], references: Sequence[str]) -> PredictedRows:
    return PredictedRows(texts, [[reference] for reference in references])
