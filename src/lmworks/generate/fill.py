"""Models that read a text whole fill its blanks, and judge whether a sentence follows another.

A blank may be written as the tokenizer's own mask token, as [MASK], as <mask> or as three underscores or more. Models
with a mask token predict one token for each blank, all at once; models with sentinels (T5's <extra_id_0>) write what
each blank hides, however long it is, one blank after another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from lmworks.base.errors import InputError
from lmworks.data.batch import NEXT_SENTENCE
from lmworks.data.spans import sentinels
from lmworks.generate import text_vectors
from lmworks.generate.beam import search
from lmworks.generate.encode import context_of, encode_texts
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.transformer import Transformer
from lmworks.text.plain_text import check_text
from lmworks.text.tokenizer import Tokenizer

BLANKS = (r"\[MASK\]", "<mask>", "_{3,}")
SPAN_TOKENS = 16  # of what a model with sentinels writes into one blank


class Filled(list[list[tuple[str, float]]]):
    """For each blank its likeliest pieces with their probabilities, the likeliest first.

    Attributes:
        text: the text with the likeliest piece in each blank.
    """

    def __init__(self, blanks: list[list[tuple[str, float]]], text: str) -> None:
        super().__init__(blanks)
        self.text = text


def fill(network: Transformer, tokenizer: Tokenizer, text: str, top: int = 5, rules: Rules | None = None) -> Filled:
    """Guess what stands in the blanks of a text.

    Args:
        network: an encoder with a language head, or an encoder-decoder.
        tokenizer: its own; has a mask token or sentinels.
        text: with blanks.
        top: pieces for each blank.
        rules: of an encoder-decoder: what its decoder starts with.

    Returns:
        Probabilities are of one token where the model has a mask token: each blank's on its own, the others hidden.
        Of a model with sentinels they are of the whole span and its end; each blank's given the best of those before.

    Raises:
        InputError: the text has no blank or is too long; the model fills none.
    """
    architecture, marks = network.config.architecture, sentinels(tokenizer).tolist()
    if architecture == "decoder":
        hint = "lmworks next shows what follows a text; take an encoder (as BERT) or an encoder-decoder (as T5) to fill"
        raise InputError("a decoder reads from left to right and fills no blanks", hint=hint)
    if not network.config.language_head:
        hint = "take the model as it was trained on masked tokens (a ...ForMaskedLM)"
        raise InputError("the model has no language head, so it cannot fill blanks", hint=hint)
    if tokenizer.mask_id is None and not (architecture == "encoder-decoder" and marks):
        hint = "lmworks next or lmworks generate continue a text; to fill blanks, take a model with a mask token"
        raise InputError("the tokenizer has no mask token, so the model cannot fill blanks", hint=hint)
    if top < 1:
        raise InputError(f"top must be at least 1, not {top}", "top", "ask for one piece or more")
    parts = _parts(tokenizer, text)
    with torch.inference_mode():
        if tokenizer.mask_id is None:
            return _spans(network, tokenizer, parts, marks, top, rules or Rules())
        return _masked(network, tokenizer, parts, top, rules or Rules())


def next_sentence(network: Transformer, tokenizer: Tokenizer, first: str, second: str) -> float:
    """The probability that the second sentence follows the first (Devlin et al. 2019, section 3.1).

    Raises:
        InputError: the model was not trained on pairs of sentences, or both together are too long.
    """
    head = network.config.head(NEXT_SENTENCE)
    if head is None:
        hint = "take one that has it (a BertForPreTraining); lmworks score compares sentences by a decoder"
        raise InputError(f"the model has no head {NEXT_SENTENCE}: whether a sentence follows another", hint=hint)
    for text in (first, second):
        check_text(text, "the text")
    pair = tokenizer.core.encode(first, second, add_special_tokens=True)
    check_length(network, pair.ids, "the two sentences")
    device = network.device
    types = torch.tensor([pair.type_ids], device=device) if network.config.type_vocab_size > 1 else None
    with torch.inference_mode():
        hidden = network.hidden_states(torch.tensor([pair.ids], device=device), types=types)
        read = hidden[0, list(head.places(len(pair.ids)))]
        return float(network.head_logits(head.name, read).float().softmax(-1)[0, 0])


def _parts(tokenizer: Tokenizer, text: str) -> list[str]:
    """What stands before, between and after the blanks."""
    own = [] if tokenizer.mask_id is None else [re.escape(_token(tokenizer, tokenizer.mask_id))]
    parts = re.split("|".join([*own, *BLANKS]), text)
    if len(parts) == 1:
        raise InputError("the text has no blank", repr(text), 'write one as [MASK] or ___: "I love eating ___"')
    return parts


def _masked(network: Transformer, tokenizer: Tokenizer, parts: list[str], top: int, rules: Rules) -> Filled:
    mask = tokenizer.mask_id
    assert mask is not None
    token = _token(tokenizer, mask)
    ids = tokenizer.encode(token.join(parts), special=True)
    positions = [place for place, token_id in enumerate(ids) if token_id == mask]
    if len(positions) != len(parts) - 1:
        raise InputError(f"the tokenizer does not keep its mask token {token} whole", hint="repair its tokenizer.json")
    check_length(network, ids, "the text")
    device = network.device
    memory, decoder_ids = None, ids
    if network.config.architecture == "encoder-decoder":  # BART: the decoder reads the same text, one place later
        memory, decoder_ids = encode_texts(network, [ids])[0][None], [rules.decoder_start_id, *ids[:-1]]
    indices = torch.tensor(positions, device=device)
    logits = network(torch.tensor([decoder_ids], device=device), memory=memory, logits_to_keep=indices).logits
    best = logits.float().softmax(-1).topk(min(top, logits.shape[-1]))
    filled = list(ids)
    text = parts[0]
    for place, token_id, part in zip(positions, best.indices[:, 0].tolist(), parts[1:], strict=True):
        filled[place] = token_id
        text = _joined(text, _written(tokenizer, filled[:place], token_id)) + part
    blanks = [
        [(tokenizer.piece(token), value) for token, value in zip(*pair, strict=True)]
        for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return Filled(blanks, text)


def _spans(
    network: Transformer, tokenizer: Tokenizer, parts: list[str], marks: list[int], top: int, rules: Rules
) -> Filled:
    if len(parts) > len(marks):
        fault = f"the text has {len(parts) - 1} blanks, the model knows {len(marks) - 1} sentinels"
        raise InputError(fault, "the text", "leave fewer blanks at a time")
    tokens = [_token(tokenizer, mark) for mark in marks]
    source = parts[0] + "".join(token + part for token, part in zip(tokens, parts[1:], strict=False))
    ids = tokenizer.encode(source, special=True)
    check_length(network, ids, "the text")
    # the likeliest spans themselves: no penalty of lengths, and on until nothing likelier can come
    settings = SamplingSettings(
        num_beams=max(2 * top, 4), max_tokens=SPAN_TOKENS, length_penalty=0.0, early_stopping="never"
    )
    stepper, prefix = TorchStepper(network), list[int]()
    blanks, text = [], parts[0]
    for number, part in enumerate(parts[1:]):
        prefix.append(marks[number])
        ends = {marks[number + 1]} | tokenizer.end_ids
        never = tuple((token,) for token in tokenizer.specials.values() if token not in ends)
        span_rules = Rules(decoder_start_token_id=rules.decoder_start_token_id, bad_words_ids=never)
        best = search(stepper, [ids], settings, ends, span_rules, [prefix])[0]
        best = [
            hypothesis for hypothesis in best if hypothesis.ids[-1] in ends
        ] or best  # rather whole spans than cut ones
        likely: dict[tuple[int, ...], float] = {}
        for hypothesis in best:  # a span may end in two ways
            whole = hypothesis.ids[-1] in ends
            span = tuple(hypothesis.ids[:-1] if whole else hypothesis.ids)
            likely[span] = likely.get(span, 0.0) + math.exp(hypothesis.log_probability)
        spans = sorted(likely, key=lambda span: -likely[span])[:top]
        blanks.append([(tokenizer.decode(span), likely[span]) for span in spans])
        prefix += spans[0]
        text = _joined(text, " " + blanks[-1][0][0].strip()) + part
    return Filled(blanks, text)


def _token(tokenizer: Tokenizer, token_id: int) -> str:
    token = tokenizer.core.id_to_token(token_id)
    assert token is not None
    return token


def _written(tokenizer: Tokenizer, before: list[int], token: int) -> str:
    """A token's text as it stands after others: with its space, where it has one."""
    if not before or before[-1] in tokenizer.specials.values():
        return " " + tokenizer.decode([token]).lstrip()
    return tokenizer.decode([before[-1], token])[len(tokenizer.decode([before[-1]])) :]


def _joined(text: str, piece: str) -> str:
    """A text and what fills the blank after it: spaces as the person wrote them, none before a part of a word."""
    return text + piece.lstrip() if piece[:1].isspace() else text.rstrip() + piece


def check_length(network: Transformer, ids: Sequence[int], name: str) -> None:
    text_vectors.check_length(context_of(network), len(ids), name)
