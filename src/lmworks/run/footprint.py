"""What a run holds in memory at its worst moment, by parts and by stages, from a config, settings and lengths.

    training    library + weights + what the optimizer remembers + the larger of two moments: the end of forward (all
                activations, one chunk of logits), and the end of backward (all gradients, one block's activations).
                Where a step has several rows, gradients of the first stand beside activations of the next.
    evaluation  library + weights + what passes through without being saved.

Knows no machine, no method and opens no model. The library part is measured in a run itself; the rest is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lmworks.kernels.library import library as kernels
from lmworks.model import chunks, sizes
from lmworks.model.activation_memory import saved_activation_bytes, saves_scores
from lmworks.model.config import ModelConfig
from lmworks.model.storage import PART
from lmworks.model.trained_parameters import TrainedParameters
from lmworks.model.training_cost import frozen_layers
from lmworks.run.largest_row import LargestRow
from lmworks.train.settings import STATE_BYTES, TrainSettings

# Interpreter, torch, tokenizers and Arrow before a model is opened; a run measures its own.
LIBRARY_BYTES = 260_000_000
# What the first passes add that no later one does: code that is loaded then, buffers of the matrix products, as far as
# there are big ones. And of activations, what lies unused between blocks of other sizes that were freed.
RUNTIME_BYTES, BUFFER_BYTES, ACTIVATION_SLACK = 80_000_000, 130_000_000, 0.2
# Tensors of scores that exist at once where attention writes them out: with bias, mask, softmax, gradients.
SCORE_TENSORS = 6
NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
ROW_SETTINGS = {"batch_size", "row_tokens", "packing", "seed", "epochs", "steps"}  # that decide the largest row


@dataclass(frozen=True)
class DataStatistics:
    """What passes through the network.

    Attributes:
        lengths: tokens of each training document; those of the decoder, where there are two stacks.
        sources: tokens that the encoder of an encoder-decoder reads, for each document; else empty.
        loss_tokens: how many of ``lengths`` carry loss, so that logits are made there; None: all.
        labels: places that each classification head reads, by its name.
        evaluation_tokens: that pass through without training in the measurement before training, as in that after it,
            sources too. held_out_tokens: those of them that an evaluation during training has.
        answer_rows: answers that are written at once in evaluation. answer_steps: tokens written for each group of
            them in one measurement, where every answer is as long as it may be.
    """

    lengths: Sequence[int]
    sources: Sequence[int] = ()
    loss_tokens: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    evaluation_tokens: int = 0
    held_out_tokens: int = 0
    answer_rows: int = 0
    answer_steps: int = 0


@dataclass(frozen=True)
class WeightFormat:
    """How the model's own weights are held.

    Attributes:
        precision: as ``train.base_precision`` calls it.
        size: bytes of all of them; None: 4 each.
        dtype_names: data types or quantized formats, for people.
        is_mapped: they are mapped from a file, so that the system takes them while copies in bfloat16 are used.
    """

    precision: str = "float32"
    size: int | None = None
    dtype_names: str = "float32"
    is_mapped: bool = False


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of this process, and those that it may have.

    Attributes:
        library: held beside the weights: interpreter, libraries, data.
        opened: the peak until now, when model and data are opened.
        free: that it may hold in all; None: what this machine has now.
    """

    library: int = LIBRARY_BYTES
    opened: int = 0
    free: int | None = None


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained, how, on which documents.

    Attributes:
        config: the model.
        trained: its parameters that are trained, and those added to it.
        train: settings, among them how many blocks are recomputed.
        precision: of the products.
        documents: all of them.
        process: what the process holds beside.
        row: the largest row of the documents.
        parameters: of the base model.
        saved_inputs: the matrices whose input is saved for the backward pass; None: of all, since all is trained.
        frozen: by stack prefix, the lowest layers that the backward pass does not reach.
        weights: how the model's own weights are held.
    """

    config: ModelConfig
    trained: TrainedParameters
    train: TrainSettings
    precision: str
    documents: DataStatistics
    process: ProcessMemory
    row: LargestRow
    parameters: int
    saved_inputs: Sequence[sizes.Linear] | None
    frozen: Mapping[str, int]
    weights: WeightFormat = WeightFormat()

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        trained: TrainedParameters,
        train: TrainSettings,
        precision: str,
        documents: DataStatistics,
        process: ProcessMemory,
    ) -> TrainingSetup:
        """With the largest row found."""
        return cls(
            config,
            trained,
            train,
            precision,
            documents,
            process,
            row=LargestRow.of(documents.lengths, documents.sources, train),
            parameters=sizes.parameters(config)["total"],
            saved_inputs=None if trained.is_whole else trained.linears(config),
            frozen=frozen_layers(config, trained),
        )

    def changed(self, **settings: object) -> TrainingSetup:
        """The same with other settings of training."""
        train = self.train.model_copy(update=settings)
        row = self.row
        if ROW_SETTINGS & settings.keys():
            row = LargestRow.of(self.documents.lengths, self.documents.sources, train)
        return replace(self, train=train, row=row)

    def in_precision(self, precision: str) -> TrainingSetup:
        """The same with products made in another precision."""
        return replace(self, precision=precision)

    def with_weights(self, weights: WeightFormat) -> TrainingSetup:
        """The same with the model's own weights held in another way."""
        return replace(self, weights=weights)

    @property
    def weight_bytes(self) -> int:
        """Of the model's own weights, and of the matrix that is dequantized for a product at any time."""
        if self.weights.size is None:
            return 4 * self.parameters
        largest = max(linear.weights for linear in sizes.linears(self.config))
        return self.weights.size + 4 * max(PART, largest) + NUMBER_BYTES[self.precision] * largest

    @property
    def activation_size(self) -> int:
        """Bytes of one number that passes through."""
        return NUMBER_BYTES[self.precision]

    @property
    def reached(self) -> list[bool]:
        """For each layer of all stacks, the encoder's first: whether the backward pass reaches it."""
        stacks = sizes.stacks(self.config)
        return [layer >= self.frozen[stack.prefix] for stack in stacks for layer in range(stack.layers)]

    @property
    def recomputed(self) -> int:
        """Layers whose forward pass runs once more in the backward pass."""
        return sum(self.reached[: self.train.recompute])

    @property
    def total(self) -> int:
        """Bytes at the worst moment."""
        return parts(self)["total"]


def parts(setup: TrainingSetup) -> dict[str, int]:
    """Bytes by part at the worst moment, and their ``total``.

    Where evaluation or opening is the worst moment, ``evaluation`` or ``opening`` is what it takes above the rest.
    """
    trained, parameters = setup.trained, setup.parameters
    copied = setup.precision == "bfloat16" and setup.weights.size is None  # frozen weights are cast once
    copies = 2 * trained.frozen if copied else 0
    released = 4 * _cast_weights(setup) if copied and setup.weights.is_mapped else 0
    activations, gradients = _training_peak(setup)
    by_part = {
        "library": setup.process.library + RUNTIME_BYTES + min(BUFFER_BYTES, 4 * parameters),
        "weights": setup.weight_bytes + 4 * trained.count_added + copies - released,
        "gradients": gradients,
        "optimizer": round(STATE_BYTES[setup.train.optimizer_state] * trained.count),
        "rate finder": 4 * trained.count if setup.train.find_learning_rate else 0,  # the weights as they were
        "activations": activations,
        "head": _head(setup),
    }
    training = sum(by_part.values())
    evaluation = (
        by_part["library"] + setup.weight_bytes + _evaluation(setup) if setup.documents.evaluation_tokens else 0
    )
    by_part["evaluation"] = max(0, evaluation - training)
    by_part["opening"] = max(0, setup.process.opened - training - by_part["evaluation"])
    return {**by_part, "total": sum(by_part.values())}


def _cast_weights(setup: TrainingSetup) -> int:
    """Numbers of frozen weights that training casts as they are; an adapted one is summed with its update first."""
    own, linears = setup.trained.own, setup.saved_inputs or ()
    return setup.trained.frozen - sum(linear.weights for linear in linears if f"{linear.name}.weight" not in own)


def _training_peak(setup: TrainingSetup) -> tuple[int, int]:
    """Bytes of activations and of gradients at the worst moment of a step."""
    activations, gradients = _activations(setup), 4 * setup.trained.count
    if setup.row.rows_per_step > 1:
        return activations, gradients
    late = gradients - 4 * _head_gradient(setup)  # of the blocks, made one by one as their activations are freed
    one_block = _saved(setup) // max(1, sum(setup.reached)) + _passing(setup)
    return max(activations, one_block), gradients - min(late, max(0, activations + _head(setup)))


def _head_gradient(setup: TrainingSetup) -> int:
    """Numbers of the gradient that is there from the head's backward pass on: of the embeddings, or of the lm_head."""
    if not {"embed_tokens.weight", "lm_head.weight"} & setup.trained.own.keys():
        return 0
    return setup.config.vocab_size * setup.config.embedding_width


def _head(setup: TrainingSetup) -> int:
    """A chunk of logits, which becomes its own gradient; a capped one has a float32 copy."""
    config, native, is_half = setup.config, kernels() is not None, setup.precision == "bfloat16"
    numbers = chunks.trained_logits(config.vocab_size, setup.precision) * config.vocab_size
    each = setup.activation_size * (1 if native else 3)
    if is_half and (config.logit_softcap is not None or not native):
        each += 4
    return numbers * each + (2 * _head_gradient(setup) if is_half else 0)


def _evaluation(setup: TrainingSetup) -> int:
    """Of rows that pass through without being saved: one block's tensors, a chunk of logits three times over."""
    config = setup.config
    tokens = max(chunks.EVALUATED_TOKENS, setup.row.longest)
    block = (3 * config.intermediate_size + 8 * config.hidden_size) * 4
    return tokens * block + 3 * chunks.EVALUATED_LOGITS * config.vocab_size * 4


def _saved(setup: TrainingSetup) -> int:
    """Bytes that autograd saves of the largest row when nothing is recomputed."""
    config, row, native = setup.config, setup.row, kernels() is not None
    saved = saved_activation_bytes(
        config,
        row.lengths,
        row.sources,
        setup.saved_inputs,
        setup.trained.rank,
        setup.activation_size,
        native,
        setup.frozen,
    )
    if not native:
        return saved + _dropout(setup)
    # of attention weights that no kernel makes, dropout saves what it left of them
    if config.attention_dropout and saves_scores(config, not setup.trained.is_whole)[0]:
        saved += sum(_scores(setup, own) * (own.layers - setup.frozen[own.prefix]) for own in sizes.stacks(config))
    return saved


def _passing(setup: TrainingSetup) -> int:
    """Gradients that pass through one block while its activations are still saved, and the last norm with its input."""
    config = setup.config
    each = (4 * config.intermediate_size + 7 * config.hidden_size) * setup.activation_size
    if not saves_scores(config, not setup.trained.is_whole)[0]:
        return setup.row.tokens * each
    return setup.row.tokens * each + SCORE_TENSORS * max(_scores(setup, stack) for stack in sizes.stacks(config))


def _scores(setup: TrainingSetup, stack: sizes.StackShape) -> int:
    """Bytes of a number for each pair of tokens and head, in one block's self-attention."""
    lengths = setup.row.lengths if stack.reads == "own" else setup.row.sources
    return setup.config.num_attention_heads * sum(length**2 for length in lengths) * setup.activation_size


def _activations(setup: TrainingSetup) -> int:
    """Bytes that autograd saves of the largest row, and those that pass through one block in the backward pass.

    A recomputed block saves its input, and in the backward pass, when those above it are freed, all of its own.
    """
    saved, recomputed = _saved(setup), setup.recomputed
    if recomputed:
        count = sum(setup.reached)
        inputs = recomputed * setup.row.tokens * setup.config.hidden_size * setup.activation_size
        saved = inputs + max(saved * (count - recomputed) // count, saved // count)
    return round(saved * (1 + ACTIVATION_SLACK)) + _passing(setup)


def _dropout(setup: TrainingSetup) -> int:
    """Bytes that dropout saves where no kernel draws it anew: its factors; where it falls on attention, the scores are
    written out: they, their softmax, the factors, and what is left of the weights."""
    config, row, saved = setup.config, setup.row, 0
    for stack in sizes.stacks(config):
        lengths = row.lengths if stack.reads == "own" else row.sources
        each = (2 + stack.cross) * config.hidden_size * bool(config.hidden_dropout)
        each += config.intermediate_size * bool(config.mlp_dropout)
        pairs = sum(length**2 for length in lengths)
        if stack.cross:
            pairs += sum(length * source for length, source in zip(lengths, row.sources, strict=True))
        scores = 4 * config.num_attention_heads * pairs * bool(config.attention_dropout)
        saved += (stack.layers - setup.frozen[stack.prefix]) * (sum(lengths) * each + scores) * setup.activation_size
    return saved
