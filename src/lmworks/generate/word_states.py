"""The hidden states of one word in its text, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.generate.fill import check_length
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer


@torch.no_grad()
def layer_states(network: Transformer, ids: Sequence[int]) -> torch.Tensor:
    """(layers + 1, T, E) float32: the input of the first block, then the output of each block; the last one after the
    final norm, as `transformers` counts hidden states; of virtual tokens there are none. Of an encoder-decoder those of
    its encoder."""
    stack = network if network.encoder is None else network.encoder
    inputs: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0][0, -len(ids) :].float().cpu()))
        for layer in stack.layers
    ]
    row = torch.tensor([list(ids)], device=network.device)
    try:
        last = network.hidden_states(row) if network.encoder is None else network.encode(row)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([*inputs, last[0].float().cpu()])


def word_states(
    network: Transformer, tokenizer: Tokenizer, text: str, word: str, name: str = "the text"
) -> torch.Tensor:
    """(layers + 1, E) states of a word: of its first place in the text, the mean over its tokens, as layer_states.

    Args:
        network: of any architecture.
        tokenizer: its own.
        text: in which the word stands, in any case of letters, not as a part of another word.
        word: a word, or several as they stand in the text.
        name: of the text, in errors.

    Raises:
        InputError: the word does not occur in the text, or the text is longer than the context.
    """
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) if word else None
    if match is None:
        raise InputError(f"the word {word!r} does not occur in it", name, "give texts that hold the word as it stands")
    encoding = tokenizer.core.encode(text, add_special_tokens=True)
    check_length(network, encoding.ids, name)
    begin, end = match.span()
    tokens = [
        place
        for place, (first, past) in enumerate(encoding.offsets)
        if first < end and past > begin and not encoding.special_tokens_mask[place]
    ]
    if not tokens:
        raise InputError(f"no token of it stands for the word {word!r}", name, "take another word")
    return layer_states(network, tokenizer.check_rows(encoding.ids, text))[:, tokens].mean(1)


def word_similarity(network: Transformer, tokenizer: Tokenizer, word: str, texts: tuple[str, str]) -> list[float]:
    """Cosine of a word's states in two texts: of the embedding layer, then of each block."""
    first, second = (
        word_states(network.eval(), tokenizer, text, word, f"text {number}") for number, text in enumerate(texts, 1)
    )
    return functional.cosine_similarity(first, second, dim=-1).tolist()
