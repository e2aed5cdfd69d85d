"""Which continuation of a text a model finds likeliest: by the likelihood per byte of a decoder, by the
pseudo-likelihood per byte of a masked encoder, by the nearest vector of an encoder without a language head.

Likelihoods are divided by the bytes of the choice, so that long choices are not unlikely for their length, and models
with different tokenizers are compared alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.documents import frame_of
from lmworks.evaluate.choices import choice_likelihoods
from lmworks.evaluate.pseudo_likelihood import choice_pseudo_likelihoods
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.embed import text_ids, vectors_of
from lmworks.generate.text_vectors import pooling_of
from lmworks.model.transformer import Transformer
from lmworks.text.multiple_choice import ChoiceQuestion
from lmworks.text.tokenizer import Tokenizer


def likeliest_choices(network: Transformer, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]) -> list[int]:
    """Of each question the index of the choice that is likeliest after its prompt, by log p / bytes.

    Args:
        network: a decoder, or an encoder with a language head.
        tokenizer: its own.
        questions: a prompt that is too long for the context loses its beginning.

    Raises:
        InputError: a choice is longer than the context, or the model is of another kind.
    """
    if not network.config.language_head or network.config.architecture == "encoder-decoder":
        hint = "take a decoder or a masked encoder with its language head"
        raise InputError("the model gives no likelihood of a continuation", "model", hint)
    scores = _decoder_scores if network.config.architecture == "decoder" else _encoder_scores
    return [
        int(np.argmax(nats / [len(choice.encode()) for choice in question.choices]))
        for nats, question in zip(scores(network, tokenizer, questions), questions, strict=True)
    ]


def nearest_choices(
    network: Transformer, tokenizer: Tokenizer, pooling: SentencePooling | None, questions: Sequence[ChoiceQuestion]
) -> list[int]:
    """Of each question the index of the choice whose vector has the largest cosine with that of the prompt.

    Args:
        network: an encoder.
        tokenizer: its own.
        pooling: how the encoder makes vectors; None: the mean.
        questions: their texts are cut where the encoder's own longest text is shorter.

    Raises:
        InputError: a text is longer than the context.
    """
    texts = [text for question in questions for text in (question.prompt, *question.choices)]
    ids, _ = text_ids(network, tokenizer, texts, way := pooling_of(normalize=True, own=pooling))
    vectors = vectors_of(network, ids, way)
    answers, begin = [], 0
    for question in questions:
        end = begin + 1 + len(question.choices)
        answers.append(int((vectors[begin + 1 : end] @ vectors[begin]).argmax()))
        begin = end
    return answers


def _decoder_scores(
    network: Transformer, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]
) -> list[np.ndarray]:
    """log p of each choice after its prompt."""
    context = network.max_text_tokens
    prompts, choices = [], []
    for question in questions:
        listed = [tokenizer.encode(choice, after=question.prompt) for choice in question.choices]
        room = _room(context - max(map(len, listed)) - len(tokenizer.opening), question)
        prompts.append([*tokenizer.opening, *tokenizer.encode(question.prompt)[-room:]])
        choices.append(listed)
    return choice_likelihoods(network, prompts, choices)


def _encoder_scores(
    network: Transformer, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]
) -> list[np.ndarray]:
    """Pseudo-log-likelihood of each choice after its prompt."""
    room = network.max_text_tokens - len(frame_of(tokenizer))
    prompts, choices = [], []
    for question in questions:
        listed = [tokenizer.encode(choice, after=question.prompt) for choice in question.choices]
        prompts.append(tokenizer.encode(question.prompt)[-_room(room - max(map(len, listed)), question) :])
        choices.append(listed)
    return choice_pseudo_likelihoods(network, tokenizer, prompts, choices)


def _room(tokens: int, question: ChoiceQuestion) -> int:
    if tokens < 1:
        raise InputError("a choice leaves no room for its prompt in the context", question.place, "shorten the choices")
    return tokens
