"""Tiny random models of ``transformers`` with the head of a task, and how to ask them and ours the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from tiny_families import ALBERT, BART, DISTILBERT, GEMMA, GPT2, MISTRAL, QWEN3, SIZES, T5

from lmworks.data.batch import Example, Labels
from lmworks.data.packing import collate
from lmworks.families.opened import Opened
from lmworks.families.registry import FAMILIES, OWN
from lmworks.model.forward import hidden_states
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS

TINY: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "mistral": SIZES | MISTRAL,
    "qwen2": SIZES | MISTRAL,
    "qwen3": SIZES | QWEN3,
    "gemma2": SIZES | GEMMA,
    "gemma3_text": SIZES | GEMMA,
    "distilbert": DISTILBERT,
    "albert": SIZES | ALBERT,
    "bart": BART,
    "t5": T5,
}
CASES = [(name, head) for name, family in FAMILIES.items() if family not in OWN for head in family.heads]
LENGTHS = (9, 12)
SIZE = 3


def make(family: str, head: str, **changes: Any) -> Any:
    """A tiny random model of the class, in float32."""
    torch.manual_seed(5)
    kind = getattr(transformers, FAMILIES[family].heads[head].architecture)
    known = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "num_labels": SIZE}
    config = kind.config_class(**(known | TINY.get(family, SIZES) | changes))
    config.architectures = [kind.__name__]
    if head == SPANS:
        config.num_labels = 2
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    return model.float().eval()


def texts() -> list[np.ndarray]:
    """Ids that end with EOS, none other special."""
    rng = np.random.default_rng(3)
    return [np.append(rng.integers(3, 101, length - 1), 2).astype(np.int32) for length in LENGTHS]


def example(ids: np.ndarray, ours: Opened, labels: dict[str, Labels]) -> Example:
    """A text as our tasks put it to a model of this architecture."""
    source = None
    if ours.config.architecture == "encoder-decoder":
        start = ours.generation.get("decoder_start_token_id", 0)
        source, ids = ids, np.append([start], ids[:-1]).astype(np.int32)
    return Example(ids, np.zeros(len(ids), bool), targets=np.zeros(len(ids), np.int32), source=source, labels=labels)


def labels_of(head: str, ids: np.ndarray, ours: Opened, number: int) -> Labels:
    """Labels of a text; of single-label, token or span heads."""
    if head == SEQUENCE:
        return Labels.of_text(number % SIZE, ours.config.heads[0].places(len(ids))[0])
    places = np.arange(len(ids))
    return Labels.of_tokens(places, ids % SIZE) if head == TOKENS else Labels.of_span(places, 1 + number, 3)


def theirs(model: Any, head: str, ids: np.ndarray, number: int) -> Any:
    """Their output for one text, with its loss."""
    known = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
    if head == SEQUENCE:
        return model(**known, labels=torch.tensor([number % SIZE]))
    if head == TOKENS:
        return model(**known, labels=torch.from_numpy((ids % SIZE).astype(np.int64))[None])
    return model(**known, start_positions=torch.tensor([1 + number]), end_positions=torch.tensor([3]))


def logits(ours: Opened, head: str, ids: np.ndarray) -> torch.Tensor:
    """Our (N, C) logits of one text."""
    batch = collate([example(ids, ours, {head: labels_of(head, ids, ours, 0)})])
    hidden = hidden_states(ours.network, batch).flatten(0, 1)
    return ours.network.head_logits(head, hidden[batch.labels[head].places])


def their_logits(output: Any, head: str) -> torch.Tensor:
    """Theirs in our shape."""
    if head == SPANS:
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)
    return output.logits if head == SEQUENCE else output.logits[0]


def difference(model: Any, ours: Opened, head: str) -> float:
    """The largest difference of any logit over all texts."""
    with torch.no_grad():
        pairs = [(logits(ours, head, ids), their_logits(theirs(model, head, ids, 0), head)) for ids in texts()]
    return max(float((here - there).abs().max()) for here, there in pairs)
