"""Labels of texts, or their values, by a model with a head that reads a whole text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.evaluate.outputs import head_logits, probabilities
from lmworks.evaluate.prediction import PredictedValue, Prediction, multi_label_predictions, single_label_predictions
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.model.config import HeadConfig
from lmworks.model.head_requests import SEQUENCE, labels_of
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

Texts = Sequence[Sequence[str]]
"""Inputs of a head: one text each, or two."""


def classify_texts(
    network: Transformer, tokenizer: Tokenizer, decoder_start: int | None, texts: Texts, source: str
) -> list[Prediction] | list[PredictedValue]:
    """The label of each text, or of each pair of texts, with all probabilities; its value, of a regression.

    Args:
        network: with a head that classifies texts.
        tokenizer: the model's.
        decoder_start: of an encoder-decoder, where the model's files say it.
        texts: one or two each.
        source: of the model, for errors.

    Raises:
        InputError: the model has no head that classifies texts, or one for several values at once, or a text has no
            token.
    """
    config = network.config
    head = config.head(SEQUENCE)
    if head is None:
        hint = f"train one: lmworks tune {source} FILE, with texts and labels"
        raise InputError("the model has no head that classifies texts", source, hint)
    if head.problem == "regression" and head.size > 1:
        fault = f"the head gives {head.size} values of a text, and one is read"
        raise InputError(fault, source, "set problem_type in config.json if they are labels; or tune a head for one")
    inputs = HeadInputs.of(tokenizer, config, decoder_start, network.max_text_tokens)
    examples = _encode(tokenizer, inputs, head, texts)
    of_head = [logits[0] for logits in head_logits(network, examples, head.name)]
    rows = np.stack(of_head) if of_head else np.zeros((0, head.size), dtype=np.float32)
    if head.problem == "regression":
        values = zip(rows[:, 0].tolist(), examples, strict=True)
        return [PredictedValue(value, example.dropped) for value, example in values]
    make_predictions = multi_label_predictions if head.problem == "multi_label" else single_label_predictions
    listed = make_predictions(probabilities(rows, head), labels_of(head))
    return [
        prediction._replace(cut_tokens=example.dropped) for prediction, example in zip(listed, examples, strict=True)
    ]


def _encode(tokenizer: Tokenizer, inputs: HeadInputs, head: HeadConfig, texts: Texts) -> list[Example]:
    """Texts as the head reads them. Their labels are placeholders: prediction needs the place that the head reads."""
    examples = []
    for number, parts in enumerate(inputs.encode(tokenizer, texts), 1):
        example = inputs.example(parts, f"text {number}")
        if not len(example.ids):
            raise InputError("is empty, and the tokenizer adds nothing to it", f"text {number}", "leave it out")
        nothing = 0 if head.problem == "single_label" else np.zeros(head.size, dtype=np.float32)
        examples.append(inputs.with_label(example, head, nothing))
    return examples
