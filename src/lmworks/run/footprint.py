"""What a run holds in memory at its worst moment, told by parts and by stages, from a config, settings and lengths.

    training    library + weights + what the optimizer remembers + the larger of two moments: the end of forward (all
                activations, one chunk of logits), and the end of backward (all gradients, one block's activations).
                Where a step has several rows, gradients of the first stand beside activations of the next.
    evaluation  library + weights + what passes through without being kept.

Knows no machine and opens no model. The library part is measured in a run itself; what is beside it is arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmworks.data.sampler import BatchSampler
from lmworks.kernels.library import library as kernels
from lmworks.model import sizes
from lmworks.model.activation_memory import saved_activation_bytes, saves_scores
from lmworks.model.config import ModelConfig
from lmworks.train.settings import STATE_BYTES, TrainSettings

# Interpreter, torch, tokenizers and Arrow before a model is opened; a run measures its own.
LIBRARY_BYTES = 260_000_000
# What the first passes add that no later one does: code that is loaded then, buffers of the matrix products, as far as
# there are big ones. And of activations, what lies unused between blocks of other sizes that were freed.
RUNTIME_BYTES, BUFFER_BYTES, SLACK = 80_000_000, 130_000_000, 0.2
# Logits exist for so many places at a time, or for so many numbers where the vocabulary is small (train/losses).
HEAD_PLACES, HEAD_NUMBERS = 128, 1 << 20
EVALUATED_TOKENS = 1024  # that pass through at a time without training
SCORES = 6  # tensors of scores that exist at once where attention writes them out: with bias, mask, softmax, gradients
TRIED = 50_000  # documents of the steps to come that are laid into rows to find the largest; else the worst is taken
_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Rows:
    """The rows that pass through a network.

    Attributes:
        lengths, sources: tokens of the documents of the largest row, and of their sources where they have any.
        each: rows of a step.
        longest: tokens of the longest document with its source: no row can be smaller.
    """

    lengths: list[int]
    sources: list[int]
    each: int
    longest: int = 0

    @classmethod
    def of(cls, lengths: Sequence[int], sources: Sequence[int], train: TrainSettings) -> Rows:
        """The rows of documents laid as the settings say."""
        whole = [own + read for own, read in zip(lengths, sources or [0] * len(lengths), strict=True)]
        chosen = _largest_seen(whole, train)
        own, read = ([of[index] for index in chosen] for of in (lengths, sources or [0] * len(lengths)))
        if not train.packing:  # all as long as the longest
            own, read = [max(own)] * len(own), [max(read)] * len(read)
        step = sum(whole) / len(whole) * (train.batch_size if train.steps else min(train.batch_size, len(whole)))
        each = math.ceil(step / train.room) if train.packing else 1
        return cls(own, read if sources else [], each, max(whole))


def _largest_seen(lengths: Sequence[int], train: TrainSettings) -> list[int]:
    """The largest row of all steps to come, where these are few enough to be looked at."""
    epochs = train.epochs if train.steps is None else None
    stream = BatchSampler(len(lengths), train.batch_size, train.seed, epochs, train.steps)
    if len(stream) * min(train.batch_size, len(lengths) * stream.repeats) > TRIED:
        return largest_row(lengths, train)
    best: list[int] = []
    for chosen in stream:
        row = _fill(sorted(chosen, key=lambda index: -lengths[index]), lengths, train)
        if _tokens(row, lengths, train) > _tokens(best, lengths, train):
            best = row
    return best


def _tokens(row: list[int], lengths: Sequence[int], train: TrainSettings) -> int:
    found = [lengths[index] for index in row] or [0]
    return sum(found) if train.packing else max(found) * len(found)


def largest_row(lengths: Sequence[int], train: TrainSettings) -> list[int]:
    """Indices of the documents in the largest row that may pass through at once: as many as a step has, within
    row_tokens; the longest of all alone where it is longer.

    Args:
        lengths: of each document, with its source where it has one.
        train: how rows are laid.
    """
    again = -(-train.batch_size // len(lengths)) if train.steps else 1
    everyone = [index for index in range(len(lengths)) for _ in range(again)]
    return _fill(sorted(everyone, key=lambda index: -lengths[index])[: train.batch_size], lengths, train)


def _fill(falling: list[int], lengths: Sequence[int], train: TrainSettings) -> list[int]:
    """One row of documents that come in falling order of length."""
    if not train.packing:
        return falling
    row, room = [falling[0]], train.room - lengths[falling[0]]
    for index in falling[1:]:
        if lengths[index] <= room:
            row.append(index)
            room -= lengths[index]
    return row


@dataclass(frozen=True)
class Job:
    """What is trained, how, on which rows.

    Attributes:
        config: the model.
        train: its settings, among them how many blocks are computed again.
        adapted: matrices with adapters beside them, all else frozen; None: every weight is trained.
        rank: of the adapters.
        precision: of the products.
        rows: the largest of them.
        library: bytes that the process holds beside the weights.
        evaluated: whether it is measured too.
        opened: bytes that the process held at most until now, when model and data are opened.
    """

    config: ModelConfig
    train: TrainSettings
    adapted: list[sizes.Linear] | None
    rank: int
    precision: str
    rows: Rows
    library: int = LIBRARY_BYTES
    evaluated: bool = True
    opened: int = 0

    def changed(self, **settings: object) -> Job:
        """The same with other settings of training."""
        return replace(self, train=self.train.model_copy(update=settings))

    @property
    def parameters(self) -> int:
        """Of the base model."""
        return sizes.parameters(self.config)["total"]

    @property
    def trainable(self) -> int:
        """Weights that are trained."""
        return self.parameters if self.adapted is None else sizes.lora_parameters(self.adapted, self.rank)


def parts(job: Job) -> dict[str, int]:
    """Bytes by part at the worst moment, and their ``total``.

    Where evaluation or opening is the worst moment, ``evaluation`` or ``opening`` is what it takes above the rest.
    """
    train, half = job.train, job.precision == "bfloat16"
    parameters, trainable = job.parameters, job.trainable
    table = job.config.vocab_size * job.config.embedding_width  # whose gradient is there from the head's backward on
    gradients = 4 * trainable
    activations, head = _activations(job), _head(job, half)
    if job.rows.each == 1:
        late = gradients - (4 * min(table, trainable) if job.adapted is None else 0)  # of the blocks, made one by one
        activations, gradients = max(activations, _one_block(job)), gradients - min(late, max(0, activations + head))
    found = {
        "library": job.library + RUNTIME_BYTES + min(BUFFER_BYTES, 4 * parameters),
        # frozen weights are held once more in half width; trained ones stay float32
        "weights": 4 * (parameters + (trainable if job.adapted is not None else 0))
        + (2 * parameters if half and job.adapted is not None else 0),
        "gradients": gradients,
        "optimizer": round(STATE_BYTES[train.optimizer_state] * trainable),
        "rate finder": 4 * trainable if train.find_learning_rate else 0,  # the weights as they were
        "activations": activations,
        "head": head,
    }
    training = sum(found.values())
    measured = found["library"] + 4 * parameters + _evaluation(job) if job.evaluated else 0
    found["evaluation"] = max(0, measured - training)
    found["opening"] = max(0, job.opened - training - found["evaluation"])
    return {**found, "total": sum(found.values())}


def _head(job: Job, half: bool) -> int:
    """A chunk of logits, which becomes its own gradient; in half width it stands beside the float32 one."""
    numbers = max(HEAD_PLACES * job.config.vocab_size, HEAD_NUMBERS)
    size = numbers * (8 if half else 4) * (1 if kernels() is not None else 3)
    return size + (2 * job.config.vocab_size * job.config.embedding_width if half and job.adapted is None else 0)


def _evaluation(job: Job) -> int:
    """Of rows that pass through without being kept: one block's tensors, a chunk of logits three times over."""
    config = job.config
    tokens = max(EVALUATED_TOKENS, job.rows.longest)
    wide = (3 * config.intermediate_size + 8 * config.hidden_size) * 4
    return tokens * wide + 3 * HEAD_PLACES * config.vocab_size * 4


def _kept(job: Job) -> int:
    """Bytes that autograd keeps of the largest row when nothing is computed again."""
    each, native = _BYTES[job.precision], kernels() is not None
    kept = saved_activation_bytes(job.config, job.rows.lengths, job.rows.sources, job.adapted, job.rank, each, native)
    if not native:
        return kept + _dropped(job.config, job.rows, each)
    # of weights that no kernel makes, dropout keeps what it left of them
    written = job.config.attention_dropout and saves_scores(job.config, job.adapted is not None)[0]
    return kept + (sum(_scores(job, stack) * stack.layers for stack in sizes.stacks(job.config)) if written else 0)


def _passing(job: Job) -> int:
    """Gradients that run through one block while its activations are still held, and the last norm with its input."""
    each = (4 * job.config.intermediate_size + 7 * job.config.hidden_size) * _BYTES[job.precision]
    own = max(sum(job.rows.lengths), sum(job.rows.sources)) * each
    if not saves_scores(job.config, job.adapted is not None)[0]:
        return own
    return own + SCORES * max(_scores(job, stack) for stack in sizes.stacks(job.config))


def _scores(job: Job, stack: sizes.StackShape) -> int:
    """Bytes of a weight for each pair of tokens and head, in one block's self-attention."""
    lengths = job.rows.lengths if stack.reads == "own" else job.rows.sources
    return job.config.num_attention_heads * sum(one**2 for one in lengths) * _BYTES[job.precision]


def _one_block(job: Job) -> int:
    return _kept(job) // layers(job.config) + _passing(job)


def layers(config: ModelConfig) -> int:
    """Blocks of all stacks."""
    return sum(stack.layers for stack in sizes.stacks(config))


def _activations(job: Job) -> int:
    """Bytes that autograd keeps of the largest row, and those that pass through one block on the way back.

    A block that is computed again keeps its input, and on the way back, when those above it are gone, all of its own.
    """
    kept, count = _kept(job), layers(job.config)
    again = min(job.train.recompute, count)
    if again:
        tokens = max(sum(job.rows.lengths), sum(job.rows.sources))
        inputs = again * tokens * job.config.hidden_size * _BYTES[job.precision]
        kept = inputs + max(kept * (count - again) // count, kept // count)
    return round(kept * (1 + SLACK)) + _passing(job)


def _dropped(config: ModelConfig, rows: Rows, each: int) -> int:
    """Bytes that dropout keeps where no kernel makes it anew: its factors; where it falls on attention, the scores are
    written out: they, their softmax, the factors, and what is left of the weights."""
    kept = 0
    for stack in sizes.stacks(config):
        own = rows.lengths if stack.reads == "own" else rows.sources
        wide = (2 + stack.cross) * config.hidden_size * bool(config.hidden_dropout)
        wide += config.intermediate_size * bool(config.mlp_dropout)
        seen = sum(length**2 for length in own)
        if stack.cross:
            seen += sum(length * source for length, source in zip(own, rows.sources, strict=True))
        scores = 4 * config.num_attention_heads * seen * bool(config.attention_dropout)
        kept += stack.layers * (sum(own) * wide + scores) * each
    return kept
