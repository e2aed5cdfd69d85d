"""The peak memory of a run, by parts and stages, computed from a config, settings and lengths of documents.

    training    library + weights + optimizer state + the larger of two peaks: the end of the forward pass (all
                activations, one chunk of logits), and the end of the backward pass (all gradients, one block's
                activations). If a step has several rows, gradients of the first exist together with activations of the
                next.
    evaluation  library + weights + tensors of the forward pass, which are not saved.

Opens no model. A run measures the library part; the rest is computed, for the kernels that are available here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from lmworks.data.mixture import Mixture
from lmworks.kernels.native_module import native_module as kernels
from lmworks.model import chunks, sizes
from lmworks.model.activation_memory import prefix_bytes, saved_activation_bytes, saves_scores
from lmworks.model.config import ModelConfig
from lmworks.model.fusion import is_fusable
from lmworks.model.quant_types import QUANT_TYPES
from lmworks.model.sparse_gradients import is_sparse
from lmworks.model.storage import PART
from lmworks.model.trained_parameters import TrainedParameters
from lmworks.model.training_cost import frozen_layers
from lmworks.run.base_weights import WeightFormat
from lmworks.run.largest_row import LargestRow
from lmworks.train.settings import PORTION_BYTES, STATE_BYTES, TrainSettings

# Interpreter, torch, tokenizers and Arrow before a model is opened; a run measures the real number.
LIBRARY_BYTES = 260_000_000
# Memory that the first passes add once: code that is loaded then, and buffers of large matrix products. Slack: the
# fraction of activations lost to fragmentation of freed memory.
RUNTIME_BYTES, BUFFER_BYTES, ACTIVATION_SLACK = 80_000_000, 130_000_000, 0.2
# Tensors of scores that exist at a time in unfused attention: bias, mask, softmax, gradients.
SCORE_TENSORS = 6
NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
ROW_SETTINGS = {"batch_size", "row_tokens", "packing", "seed", "epochs", "steps"}  # these determine the largest row


@dataclass(frozen=True)
class DataStatistics:
    """The documents that pass through the network.

    Attributes:
        lengths: tokens of each training document (of the decoder, in an encoder-decoder).
        sources: tokens of each document's source in an encoder-decoder; else empty.
        loss_tokens: number of tokens with loss, whose logits are computed; None: all.
        labels: number of tokens that each classification head reads, by its name.
        evaluation_tokens: tokens of the evaluation before training, and of that after it, sources included.
        held_out_tokens: tokens of an evaluation during training.
        answer_rows: answers generated at a time in evaluation.
        answer_steps: decoding steps of one evaluation, if all answers have the maximum length.
        answer_cache_bytes: largest KV cache of the answers.
        mixture: the tasks that the training documents are of; None: they are of one.
    """

    lengths: Sequence[int]
    sources: Sequence[int] = ()
    loss_tokens: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    evaluation_tokens: int = 0
    held_out_tokens: int = 0
    answer_rows: int = 0
    answer_steps: int = 0
    answer_cache_bytes: int = 0
    mixture: Mixture | None = None

    @property
    def total_loss_tokens(self) -> int:
        """Number of tokens with loss."""
        return sum(self.lengths) if self.loss_tokens is None else self.loss_tokens


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of this process.

    Attributes:
        library_bytes: bytes of everything except the weights: interpreter, libraries, data.
        opening_peak: peak bytes up to now, when model and data have been opened.
        available: bytes that the process may use in total; None: as many as this machine has now.
    """

    library_bytes: int = LIBRARY_BYTES
    opening_peak: int = 0
    available: int | None = None


@dataclass(frozen=True)
class TrainingSetup:
    """A training run: model, trained parameters, settings and documents.

    Attributes:
        config: the model.
        trained: the trained parameters, of the model itself and of adapters.
        train: settings, including the number of recomputed blocks.
        precision: of the matrix products.
        documents: statistics of all documents.
        process: memory of the process without the model.
        row: the largest row of the documents.
        parameters: number of parameters of the base model.
        saved_inputs: the matrices whose input is saved for the backward pass; None: all, in full training.
        frozen: by stack prefix, the number of lowest layers that the backward pass does not reach.
        weights: how the model's own weights are stored.
    """

    config: ModelConfig
    trained: TrainedParameters
    train: TrainSettings
    precision: str
    documents: DataStatistics
    process: ProcessMemory
    row: LargestRow
    parameters: int
    saved_inputs: Sequence[sizes.LinearShape] | None
    frozen: Mapping[str, int]
    weights: WeightFormat = field(default_factory=WeightFormat)

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
        """The setup, with everything derived from these arguments."""
        return cls(
            config,
            trained,
            train,
            precision,
            documents,
            process,
            row=_largest_row(documents, train, trained),
            parameters=sizes.parameters(config)["total"],
            saved_inputs=None if trained.is_whole else trained.linears(config),
            frozen=frozen_layers(config, trained),
        )

    def with_settings(self, **settings: object) -> TrainingSetup:
        """The setup with other training settings."""
        train = self.train.model_copy(update=settings)
        row = self.row
        if ROW_SETTINGS & settings.keys():
            row = _largest_row(self.documents, train, self.trained)
        return replace(self, train=train, row=row)

    def in_precision(self, precision: str) -> TrainingSetup:
        """The setup with matrix products in another precision."""
        return replace(self, precision=precision)

    def with_weights(self, weights: WeightFormat) -> TrainingSetup:
        """The setup with the model's own weights stored in another format."""
        return replace(self, weights=weights)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the model's own weights, and of the one matrix that is dequantized at a time."""
        if self.weights.size is None:
            return 4 * self.parameters
        largest = max(linear.weights for linear in sizes.linears(self.config))
        return self.weights.size + 4 * max(PART, largest) + NUMBER_BYTES[self.precision] * largest

    @property
    def state_bytes(self) -> int:
        """Bytes of all of the optimizer's moments."""
        return round(STATE_BYTES[self.train.optimizer_state] * self.trained.count)

    @property
    def activation_size(self) -> int:
        """Bytes of one element of an activation."""
        return NUMBER_BYTES[self.precision]

    @property
    def saves_bfloat16(self) -> bool:
        """Whether float32 activations are saved in bfloat16 (model/fused)."""
        fused = is_fusable(self.config) and self.config.architecture != "encoder-decoder" and kernels() is not None
        return fused and self.precision == "float32" and self.weights.precision in QUANT_TYPES

    @property
    def in_backward(self) -> list[bool]:
        """For each layer of all stacks, the encoder's first: whether the backward pass reaches it."""
        stacks = sizes.stacks(self.config)
        return [layer >= self.frozen[stack.prefix] for stack in stacks for layer in range(stack.layers)]

    @property
    def recomputed(self) -> int:
        """Layers whose forward pass runs once more in the backward pass."""
        return sum(self.in_backward[: self.train.recompute])

    @property
    def total(self) -> int:
        """Peak bytes."""
        return parts(self)["total"]


def _largest_row(documents: DataStatistics, train: TrainSettings, trained: TrainedParameters) -> LargestRow:
    """The largest row, with a soft prompt before each document."""
    lengths = [length + trained.soft_prompt for length in documents.lengths]
    return LargestRow.of(lengths, documents.sources, train)


def parts(setup: TrainingSetup) -> dict[str, int]:
    """Bytes by part at the peak, and their ``total``.

    If the peak is in evaluation or while the model is opened, ``evaluation`` or ``opening`` has the bytes that it needs
    in addition to training.
    """
    trained, parameters = setup.trained, setup.parameters
    copied = setup.precision == "bfloat16" and setup.weights.size is None  # frozen weights are cast once
    copies = 2 * trained.frozen if copied else 0
    released = 4 * _num_cast_weights(setup) if copied and setup.weights.is_restorable else 0
    activations, gradients = _training_peak(setup)
    by_part = {
        "library": setup.process.library_bytes + RUNTIME_BYTES + min(BUFFER_BYTES, 4 * parameters),
        "weights": setup.weight_bytes + 4 * trained.count_added + copies - released,
        "gradients": gradients,
        "optimizer": min(setup.state_bytes, _portion_bytes(setup))
        if setup.train.paged_optimizer
        else setup.state_bytes,
        "rate finder": 4 * trained.count if setup.train.find_learning_rate else 0,  # a copy of the initial weights
        "activations": activations,
        "head": _logit_bytes(setup),
    }
    training = sum(by_part.values())
    evaluation = (
        by_part["library"] + setup.weight_bytes + _evaluation_bytes(setup) if setup.documents.evaluation_tokens else 0
    )
    by_part["evaluation"] = max(0, evaluation - training)
    by_part["opening"] = max(0, setup.process.opening_peak - training - by_part["evaluation"])
    return {**by_part, "total": sum(by_part.values())}


def _portion_bytes(setup: TrainingSetup) -> int:
    """Bytes of the moments of a paged optimizer that are in memory at a time."""
    shapes = (*setup.trained.own.values(), *setup.trained.added.values())
    largest = max(map(prod, shapes), default=0)
    return PORTION_BYTES + round(STATE_BYTES[setup.train.optimizer_state] * largest)


def _num_cast_weights(setup: TrainingSetup) -> int:
    """Number of frozen weights of which training holds copies in bfloat16: not the adapted ones, which are added to
    their updates before they are cast."""
    own, linears = setup.trained.own, setup.saved_inputs or ()
    return setup.trained.frozen - sum(linear.weights for linear in linears if linear.weight_name not in own)


def _training_peak(setup: TrainingSetup) -> tuple[int, int]:
    """Bytes of activations and of gradients at the peak of a step."""
    activations, gradients = _activation_bytes(setup), 4 * setup.trained.count - _sparse_gradient_savings(setup)
    if setup.row.rows_per_step > 1:
        return activations, gradients
    # Gradients of the blocks are allocated one by one while the activations of these blocks are freed.
    block_gradients = gradients - 4 * _head_gradient_size(setup)
    one_block = _saved_bytes(setup) // max(1, sum(setup.in_backward)) + _activation_gradient_bytes(setup)
    return max(activations, one_block), gradients - min(block_gradients, max(0, activations + _logit_bytes(setup)))


def _sparse_gradient_savings(setup: TrainingSetup) -> int:
    """Bytes that the gradient of the embeddings does not need because it has only the rows that a step reads, once as
    they came and once added up (model/accumulation): where the language head, which reads all, has no loss."""
    rows, read = setup.config.vocab_size, setup.row.rows_per_step * setup.row.tokens
    size = rows * setup.config.embedding_width
    if setup.documents.total_loss_tokens or "embed_tokens.weight" not in setup.trained.own:
        return 0
    if not is_sparse(rows, setup.config.embedding_width, setup.row.tokens):
        return 0
    return max(0, 4 * (size - 2 * read * setup.config.embedding_width))


def _head_gradient_size(setup: TrainingSetup) -> int:
    """Elements of the gradient that the head's backward pass allocates: of the embeddings, or of lm_head."""
    is_trained = {"embed_tokens.weight", "lm_head.weight"} & setup.trained.own.keys()
    if not is_trained or not setup.documents.total_loss_tokens:
        return 0
    return setup.config.vocab_size * setup.config.embedding_width


def _logit_bytes(setup: TrainingSetup) -> int:
    """Bytes of a chunk of logits, which becomes its own gradient; with a softcap, also of its float32 copy."""
    if not setup.documents.total_loss_tokens:
        return 0
    config, native, is_half = setup.config, kernels() is not None, setup.precision == "bfloat16"
    numbers = chunks.trained_logits(config.vocab_size, setup.precision) * config.vocab_size
    each = setup.activation_size * (1 if native else 3)
    if is_half and (config.logit_softcap is not None or not native):
        each += 4
    return numbers * each + (2 * _head_gradient_size(setup) if is_half else 0)


def _evaluation_bytes(setup: TrainingSetup) -> int:
    """Bytes of a forward pass in evaluation."""
    return evaluation_bytes(setup.config, setup.row.longest, setup.documents.answer_cache_bytes)


def evaluation_bytes(config: ModelConfig, longest: int, cache_bytes: int) -> int:
    """Bytes of a forward pass in evaluation: one block's tensors, and three chunks of logits or a KV cache.

    Args:
        config: of the model.
        longest: tokens of the longest document.
        cache_bytes: of the largest KV cache.
    """
    tokens = max(chunks.EVALUATED_TOKENS, longest)
    block = (3 * config.intermediate_size + 8 * config.hidden_size) * 4
    logits = 3 * chunks.EVALUATED_LOGITS * config.vocab_size * 4
    return tokens * block + max(logits, cache_bytes)


def _saved_bytes(setup: TrainingSetup) -> int:
    """Bytes that autograd saves for the largest row without recomputation."""
    config, row, native = setup.config, setup.row, kernels() is not None
    saved = saved_activation_bytes(
        config,
        row.lengths,
        row.sources,
        setup.saved_inputs,
        setup.trained.saved,
        NUMBER_BYTES["bfloat16"] if setup.saves_bfloat16 else setup.activation_size,
        native,
        setup.frozen,
    )
    virtual = setup.trained.prefix * len(row.lengths)
    saved += sum(setup.in_backward) * prefix_bytes(config, virtual, setup.activation_size, native)
    if not native:
        return saved + _dropout_bytes(setup)
    # where no kernel computes attention, dropout saves its output, the attention weights
    if config.attention_dropout and saves_scores(config, not setup.trained.is_whole)[0]:
        saved += sum(_score_bytes(setup, own) * (own.layers - setup.frozen[own.prefix]) for own in sizes.stacks(config))
    return saved


def _activation_gradient_bytes(setup: TrainingSetup) -> int:
    """Bytes of the gradients inside one block, whose activations are still saved, and of those of the final norm."""
    config = setup.config
    each = (4 * config.intermediate_size + 7 * config.hidden_size) * setup.activation_size
    if not saves_scores(config, not setup.trained.is_whole)[0]:
        return setup.row.tokens * each
    return setup.row.tokens * each + SCORE_TENSORS * max(_score_bytes(setup, stack) for stack in sizes.stacks(config))


def _score_bytes(setup: TrainingSetup, stack: sizes.StackShape) -> int:
    """Bytes of one tensor of scores, (H, T, T) for each document, in one block's self-attention."""
    lengths = setup.row.lengths if stack.reads == "own" else setup.row.sources
    return setup.config.num_attention_heads * sum(length**2 for length in lengths) * setup.activation_size


def _activation_bytes(setup: TrainingSetup) -> int:
    """Bytes that autograd saves for the largest row, and of the gradients inside one block in the backward pass.

    A recomputed block saves only its input; its backward pass, when the activations of the blocks above are freed,
    recomputes its own.
    """
    saved, recomputed = _saved_bytes(setup), setup.recomputed
    widened = 2 * saved // max(1, sum(setup.in_backward)) if setup.saves_bfloat16 else 0  # of one block, in float32
    if recomputed:
        count = sum(setup.in_backward)
        inputs = recomputed * setup.row.tokens * setup.config.hidden_size * setup.activation_size
        saved = inputs + max(saved * (count - recomputed) // count, saved // count)
    return round(saved * (1 + ACTIVATION_SLACK)) + widened + _activation_gradient_bytes(setup)


def _dropout_bytes(setup: TrainingSetup) -> int:
    """Bytes that dropout saves without native kernels: its factors. With dropout of attention weights, attention is not
    fused and saves scores, softmax, factors, and the weights after dropout."""
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
