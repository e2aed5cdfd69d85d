"""How likely texts are to a network: nats, tokens, bits per byte; loss on held-out examples.

Whatever the task, a score is the nats of the tokens of an example that carry loss: a decoder's next tokens, an
encoder's masked tokens, a decoder's tokens given a source; and of each label of a classification head. Documents are
packed without padding, hidden states are computed once, and the language head runs only where a token is scored, a few
hundred places at a time: a tensor of tokens x vocabulary never exists. Packed, batched and single documents give the
same figures.

Which tokens of a text are scored: evaluate/text_windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lmworks.data.batch import CONTRASTIVE, Batch, Example, count_labels
from lmworks.data.packing import collate
from lmworks.evaluate import progress
from lmworks.evaluate.text_windows import Score, bits_per_byte, scores_of, windows_of
from lmworks.generate.prefix_length import shared_length
from lmworks.generate.prefixes import groups_after_prefix, keeps_keys, pad_rows, read_prefix
from lmworks.model.chunks import EVALUATED_LOGITS, EVALUATED_TOKENS
from lmworks.model.contrastive import TextVectors, contrastive_losses, text_vectors
from lmworks.model.forward import hidden_states
from lmworks.model.heads import head_losses
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Losses:
    """What one head's predictions cost in several examples, by example.

    Attributes:
        nats: (n,) float64, -log p of each example's targets, summed.
        targets: (n,) int64, how many those are.
        correct: (n,) int64, at how many of them the likeliest class (or token) is the right one.
    """

    nats: np.ndarray
    targets: np.ndarray
    correct: np.ndarray

    @classmethod
    def zeros(cls, count: int) -> Losses:
        """The losses of examples that are still to be evaluated."""
        return cls(np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))

    @classmethod
    def of(cls, nats: torch.Tensor, correct: torch.Tensor, document: torch.Tensor, documents: int) -> Losses:
        """Sums by document of (N,) nats and correct predictions, each in the document of this number."""
        number = document.numpy()
        sums = np.bincount(number, weights=nats.double().numpy(), minlength=documents)
        right = np.bincount(number, weights=correct.numpy(), minlength=documents)
        return cls(sums, np.bincount(number, minlength=documents), right.astype(np.int64))

    def put(self, rows: list[int], part: Losses) -> None:
        """Fill in what these rows gave."""
        self.nats[rows], self.targets[rows], self.correct[rows] = part.nats, part.targets, part.correct

    @property
    def loss(self) -> float:
        """Mean nats over all targets; NaN without any."""
        count = int(self.targets.sum())
        return float(self.nats.sum()) / count if count else math.nan

    @property
    def accuracy(self) -> float:
        """Fraction of targets whose prediction is right; NaN without any."""
        count = int(self.targets.sum())
        return int(self.correct.sum()) / count if count else math.nan


@dataclass(frozen=True)
class ExampleLosses:
    """Losses of several examples.

    Attributes:
        language: of the language head, over tokens.
        heads: of each classification head that has labels in these examples, by its name.
    """

    language: Losses
    heads: dict[str, Losses] = field(default_factory=dict)

    @property
    def of_heads(self) -> Losses:
        """The sums over all classification heads; there is at least one."""
        parts = list(self.heads.values())
        return Losses(
            sum((part.nats for part in parts), np.zeros(1)),
            sum((part.targets for part in parts), np.zeros(1, dtype=np.int64)),
            sum((part.correct for part in parts), np.zeros(1, dtype=np.int64)),
        )


@torch.no_grad()
def row_losses(network: Transformer, examples: Sequence[Example], row_tokens: int = EVALUATED_TOKENS) -> ExampleLosses:
    """What each example costs a network, for instance rows that it was not trained on.

    Args:
        network: of any architecture; its mode (training or not) is the same afterwards, dropout is off meanwhile.
        examples: documents as tokens; ``loss`` says which tokens count.
        row_tokens: tokens that pass through at a time; a longer example passes alone.
    """
    count = len(examples)
    losses = ExampleLosses(Losses.zeros(count), {name: Losses.zeros(count) for name in count_labels(examples)})
    training = network.training
    network.eval()
    try:
        if CONTRASTIVE in losses.heads:
            return replace(losses, heads={CONTRASTIVE: _pair_losses(network, examples, row_tokens)})
        if begin := _shared_tokens(network, examples):
            return replace(losses, language=_losses_after(network, examples, begin, row_tokens))
        for rows in groups_by_length(examples, row_tokens):
            part = _batch_losses(network, collate([examples[row] for row in rows]), len(rows))
            losses.language.put(rows, part.language)
            for name, of_head in part.heads.items():
                losses.heads[name].put(rows, of_head)
            progress.report(len(rows))
    finally:
        network.train(training)
    return losses


def _shared_tokens(network: Transformer, examples: Sequence[Example]) -> int:
    """Tokens without loss with which all examples begin, where those are most of their tokens, as examples in a prompt
    are: worth to be read once. 0: they are not, or what is cached of them depends on what follows."""
    for example in examples:
        if example.targets is not None or example.labels or example.lengths or not example.num_targets:
            return 0
    if not keeps_keys(network):
        return 0
    begin = shared_length([example.ids[: 1 + int(example.loss[1:].argmax())].tolist() for example in examples])
    return begin if 2 * begin * len(examples) > sum(map(len, examples)) else 0


def _losses_after(network: Transformer, examples: Sequence[Example], begin: int, row_tokens: int) -> Losses:
    """Losses of documents of which the first ``begin`` tokens, without loss, are the same: read once for all."""
    prefix = read_prefix(network, examples[0].ids[:begin].tolist())
    losses, device = Losses.zeros(len(examples)), network.device
    for rows in groups_after_prefix(network.config, [len(example) for example in examples], begin, row_tokens):
        part = [examples[row] for row in rows]
        ids, positions, segments = pad_rows([example.ids[begin:] for example in part], [begin] * len(part))
        is_target = pad_rows([example.loss[begin:].astype(np.int64) for example in part], [0] * len(part))[0]
        documents, places = is_target.nonzero(as_tuple=True)
        cache = prefix.of_rows(torch.zeros(len(part), dtype=torch.int64, device=device), ids.shape[1])
        states = network.hidden_states(
            ids.to(device), positions=positions.to(device), segments=segments.to(device), cache=cache
        )
        nats, correct = token_losses(network, states[documents, places - 1], ids[documents, places])
        losses.put(rows, Losses.of(nats, correct, documents, len(part)))
        progress.report(len(rows))
    return losses


def token_losses(
    network: Transformer, states: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What expected tokens cost after hidden states, the logits of a few hundred at a time.

    Args:
        network: gives logits.
        states: (N, E).
        targets: (N,) expected ids.

    Returns:
        (N,) nats; and (N,) bool, whether the expected id is the likeliest.
    """
    nats, correct = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    for begin in range(0, len(states), EVALUATED_LOGITS):
        logits = network.head(states[begin : begin + EVALUATED_LOGITS]).float()
        expected = targets[begin : begin + EVALUATED_LOGITS].to(logits.device)
        nats.append(functional.cross_entropy(logits, expected, reduction="none").cpu())
        correct.append((logits.argmax(1) == expected).cpu())
    return torch.cat(nats), torch.cat(correct)


def _pair_losses(network: Transformer, examples: Sequence[Example], row_tokens: int) -> Losses:
    """The contrastive loss of pairs of texts, each compared with the texts of all examples."""
    order: list[int] = []
    parts: list[TextVectors] = []
    scale = 1.0
    for rows in groups_by_length(examples, row_tokens):
        batch = collate([examples[row] for row in rows]).to(network.device)
        labels = batch.labels[CONTRASTIVE]
        parts.append(text_vectors(hidden_states(network, batch).flatten(0, 1), batch, labels))
        order, scale = order + rows, labels.scale
        progress.report(len(rows))
    nats, correct = contrastive_losses(TextVectors(*map(torch.cat, zip(*parts, strict=True))), scale)
    losses = Losses.zeros(len(examples))
    documents = torch.arange(len(order))
    losses.put(order, Losses.of(nats.cpu(), correct.cpu(), documents, len(order)))
    return losses


def summary(losses: ExampleLosses, sizes: Sequence[int]) -> dict[str, Any]:
    """Figures over all rows.

    ``loss`` is nats per token, ``perplexity`` its exponential, ``accuracy`` the fraction of tokens that were likeliest;
    ``bits_per_byte`` only where the rows' bytes were counted. Each classification head adds ``<head>_loss`` (nats per
    label) and ``<head>_accuracy``. Where no token carries loss, ``loss`` is the sum of the heads' losses.

    Args:
        losses: of the rows.
        sizes: bytes of each row's scored text (Example.bytes); 0: not counted.
    """
    language = losses.language
    nats, tokens, size = float(language.nats.sum()), int(language.targets.sum()), int(sum(sizes))
    figures: dict[str, Any] = {}
    if tokens or not losses.heads:
        figures["loss"] = language.loss
        if size:
            figures["bits_per_byte"] = bits_per_byte(nats, size)
        figures |= {"perplexity": perplexity(language.loss), "accuracy": language.accuracy}
    else:
        figures["loss"] = sum(of_head.loss for of_head in losses.heads.values())
    for name, of_head in losses.heads.items():
        figures |= {f"{name}_loss": of_head.loss, f"{name}_accuracy": of_head.accuracy}
    return {**figures, "tokens": tokens}


def perplexity(loss: float) -> float:
    """exp of the mean nats per token, which compares only under one tokenizer; infinite where no number holds it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def score_texts(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    row_tokens: int = EVALUATED_TOKENS,
    context: int | None = None,
    stride: int | None = None,
    computed: str = "",
) -> list[Score]:
    """How likely each text is, in the order given.

    A text longer than the context is scored in windows, each token once (text_windows.windows_of: ``context``
    and ``stride``); ``computed`` begins the signature of each score.
    """
    windowed = windows_of(texts, tokenizer, network.max_text_tokens, context, stride)
    examples = [window for text in windowed for window in text.windows]
    return scores_of(windowed, row_losses(network, examples, row_tokens).language.nats, computed)


def groups_by_length(examples: Sequence[Example], row_tokens: int) -> list[list[int]]:
    """Examples with something to score, neighbours in length together, as many as a row holds."""
    groups: list[list[int]] = []
    free_tokens = 0
    for index in sorted(range(len(examples)), key=lambda place: (-examples[place].size, -len(examples[place]))):
        if not examples[index].num_targets and not examples[index].labels:
            continue
        size = examples[index].size
        if size > free_tokens or not groups:
            groups.append([])
            free_tokens = row_tokens
        groups[-1].append(index)
        free_tokens -= size
    return groups


def _batch_losses(network: Transformer, batch: Batch, documents: int) -> ExampleLosses:
    """Losses of each document of one batch."""
    device = network.device
    places = batch.weights.flatten().nonzero().squeeze(1)
    targets = batch.targets.flatten()[places].to(device)
    hidden = hidden_states(network, batch.to(device)).flatten(0, 1)
    nats, correct = token_losses(network, hidden.index_select(0, places.to(device)), targets)
    language = Losses.of(nats, correct, batch.document_of(places), documents)
    heads = {}
    for name, labels in batch.labels.items():
        logits = network.head_logits(name, hidden.index_select(0, labels.places.to(device))).float().cpu()
        of_head = head_losses(network.heads.configs[name], logits, labels, batch.document_of(labels.places))
        heads[name] = Losses.of(of_head.loss, of_head.correct, batch.document_of(of_head.places), documents)
    return ExampleLosses(language, heads)
