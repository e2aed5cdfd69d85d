"""The settings of a training run. Imports no torch, so that recipes and help texts load fast."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from lmworks.adapt.registry import METHODS, default
from lmworks.base.figures import parse_byte_size
from lmworks.base.seeds import Seed
from lmworks.base.settings import Duration, Settings
from lmworks.model.activation_memory import DEFAULT_ROW_TOKENS, row_tokens
from lmworks.model.config import ModelConfig
from lmworks.model.quant_types import QUANT_TYPES

# Bytes of AdamW's state per weight: two moments; in 8 bits, also a float32 scale for each block of 256 elements.
STATE_BYTES = {"float32": 8.0, "int8": 2 * (1 + 4 / 256)}
PORTION_BYTES = 1 << 26  # of the moments of a paged optimizer that are in memory at a time, or those of one matrix
MOST_EVALUATIONS = 20  # of a run without evaluate_every

MOST_STEPS = 10**9  # of a run; also the most epochs
MOST_DOCUMENTS = 10**5  # of a step
TRIM = 0.9  # fraction of the memory budget above which freed pages are returned to the system


class OptimizerSettings(Settings):
    """AdamW (Loshchilov & Hutter 2019) and the schedule of its learning rate."""

    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak rate. None: the method's own: "
        + ", ".join(f"{name} {method.learning_rate:g}" for name, method in METHODS.items() if method.trains)
        + "; with a new head "
        + ", ".join(
            f"{name} {method.head_learning_rate:g}" for name, method in METHODS.items() if method.head_learning_rate
        )
        + f"; from scratch {default('new').pretraining_learning_rate:g}.",
    )
    find_learning_rate: bool = Field(
        False, description="Find the peak rate by a range test before training; learning_rate is then ignored."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls to zero after the warm-up; constant: it does not."
    )
    warmup: float = Field(
        0.05, ge=0, description="Steps in which the rate rises from zero; below 1: a fraction of all steps."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decay of the linears' matrices; nothing else decays.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of AdamW's running mean of gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of AdamW's running mean of squared gradients.")
    epsilon: float = Field(1e-8, gt=0, description="Added to AdamW's denominator.")
    optimizer_state: Literal["float32", "int8"] = Field(
        "float32", description="How AdamW keeps its two moments; int8: a quarter of the memory, rounded, a slower step."
    )
    paged_optimizer: bool | None = Field(
        None,
        description="Keep AdamW's moments in a file in the run's folder, a part of them in memory at a time: less "
        "memory, a slower step, the same results. None: where train.memory asks for it.",
    )
    max_grad_norm: float = Field(1.0, ge=0, description="Largest global norm of the gradient; 0: no clipping.")


class TrainSettings(OptimizerSettings):
    """A training run: its length, batches, precision, evaluations and checkpoints."""

    hints: ClassVar[dict[str, str]] = {
        "lr": "it is --train.learning_rate",
        "clip": "it is --train.max_grad_norm",
        "max_steps": "it is --train.steps",
        "num_train_epochs": "it is --train.epochs",
        "gradient_accumulation_steps": "batch_size counts the documents of a whole step, however they are packed",
    }

    epochs: float = Field(1.0, gt=0, le=MOST_STEPS, description="Passes over the data; the last may be part of one.")
    steps: int | None = Field(None, gt=0, le=MOST_STEPS, description="Optimizer steps in place of epochs.")
    max_time: Duration | None = Field(
        None,
        gt=0,
        description="Most that training may take, such as 90s, 10m or 1h: as many of its steps are planned as fit, and "
        "it stops when the time is over. None: as long as its steps take.",
    )
    batch_size: int = Field(8, gt=0, le=MOST_DOCUMENTS, description="Documents per optimizer step.")
    row_tokens: int | None = Field(
        None,
        gt=0,
        description="Tokens of one packed row; a step takes as many rows as it needs. Smaller: less memory. "
        f"None: {DEFAULT_ROW_TOKENS}, more in bfloat16, and more of a small model.",
    )
    packing: bool = Field(True, description="Lay whole documents end to end; false: pad them to the longest.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the matrix products; auto: whichever was measured to be faster on this machine."
    )
    base_precision: Literal["auto", "float32", "bfloat16", "stored", "nf4", "int8"] = Field(
        "auto",
        description="How frozen weights are held. bfloat16: rounded, half the memory. stored: as the file has them, "
        "4-bit blocks of a GGUF too. nf4, int8: linears quantized to 4 or 8 bits, as --method qlora holds them. "
        "auto: float32, and the blocks of a GGUF where memory asks for it.",
    )
    recompute: int = Field(
        0,
        ge=0,
        description="Activation checkpointing: lowest blocks that save only their input and recompute the rest: less "
        "memory, "
        "more time. A number above the layers means all.",
    )
    memory: str | None = Field(
        None,
        description="Most that the process may hold, such as 2GB or 1.5GiB: chooses what is recomputed, and "
        "smaller rows where that is not enough. None: as much as there is.",
    )
    evaluate_every: int | None = Field(
        None,
        gt=0,
        description="Steps between evaluations on held-out rows. None: at the end of each epoch, or of every few where "
        f"there are more than {MOST_EVALUATIONS}.",
    )
    patience: int | None = Field(
        None, gt=0, description="Stop after this many evaluations without a better one. None: never stop early."
    )
    checkpoint_every: int | None = Field(
        None, gt=0, description="Steps between checkpoints. None: by time, so that saving stays a small part of it."
    )
    keep_checkpoints: int = Field(2, gt=0, description="Newest checkpoints kept, besides the best one.")
    seed: Seed = Field(0, description="Of shuffling, of dropout, of adapters' start.")
    threads: int | None = Field(None, gt=0, description="Threads of the matrix products. None: one a core.")
    tensorboard: bool = Field(False, description="Also write TensorBoard events into the run's folder.")

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_byte_size(value)
        return value

    @model_serializer(mode="wrap")
    def _without_idle_epochs(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Steps replace epochs: only the one that decides is written."""
        values: dict[str, Any] = handler(self)
        if self.steps is not None:
            values.pop("epochs", None)
        return values

    def steps_per_epoch(self, documents: int) -> int:
        """Optimizer steps of one pass over ``documents``; the last step may have fewer."""
        return max(1, -(-documents // self.batch_size))

    @property
    def trim_above(self) -> int | None:
        """Bytes above which freed pages are returned to the system before each row; None without a memory budget."""
        return None if self.memory is None else round(TRIM * parse_byte_size(self.memory))

    @property
    def keeps_memory(self) -> bool:
        """Whether big blocks that were freed are kept for the next step, which is faster and takes a fifth more memory:
        not beside weights that are quantized to save it."""
        return self.base_precision not in QUANT_TYPES

    @property
    def row_capacity(self) -> int:
        """Tokens of a packed row; a default where neither the settings nor :func:`with_row_tokens` set it."""
        return self.row_tokens or DEFAULT_ROW_TOKENS


def with_row_tokens(settings: TrainSettings, config: ModelConfig, precision: str) -> TrainSettings:
    """The settings with ``row_tokens`` filled in where they leave it open: from the model's size and the precision.
    Over quantized weights rows are as in float32: the memory that smaller activations save stays free."""
    if settings.base_precision in QUANT_TYPES:
        precision = "float32"
    return settings.model_copy(update={"row_tokens": settings.row_tokens or row_tokens(config, precision)})
