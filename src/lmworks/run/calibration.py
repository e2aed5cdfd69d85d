"""A model quantized by what its inputs on a user's rows are: the rows as the model reads them, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from lmworks.adapt import adapters
from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.calibrate.network import Progress, check_decoder, quantize_blocks
from lmworks.data.batch import Example
from lmworks.data.examples import Examples
from lmworks.data.packing import pack
from lmworks.language_model.model import LanguageModel
from lmworks.model.four_bit_blocks import FourBitKind
from lmworks.model.stored_layers import stored_layers, weight_bytes, widen
from lmworks.run.evaluation import spread
from lmworks.run.requantization import QuantizationLoss, measure_loss
from lmworks.tasks.registry import TASKS
from lmworks.tasks.settings import TaskSettings
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Table

CalibratedKind = Literal["q4-calibrated"]
CALIBRATED_KINDS: tuple[CalibratedKind, ...] = get_args(CalibratedKind)
CALIBRATION_TOKENS = 32_768
"""Tokens that a calibration reads at most: rows at equal intervals of the file. GPTQ's paper takes 262,144."""
FEWEST_TOKENS = 128  # fewer say nothing of what a linear reads
ROW_TOKENS = 512  # of a longer text, a chunk each
BATCH_TOKENS = 1024  # that pass through a block at a time


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration did to a model.

    Attributes:
        rows: examples that were read.
        tokens: of them.
        matrices: linears that were quantized.
        bytes_before, bytes_after: of all weights.
        loss: bits per byte before and after; None where it was not measured.
    """

    rows: int
    tokens: int
    matrices: int
    bytes_before: int
    bytes_after: int
    loss: QuantizationLoss | None


def quantize_model(
    model: LanguageModel,
    kind: CalibratedKind,
    data: Any,
    *,
    block_kind: FourBitKind = "Q4_1",
    scaling: bool = True,
    settings: DataSettings | None = None,
    tokens: int = CALIBRATION_TOKENS,
    progress: Progress | None = None,
    measure: bool = True,
) -> CalibrationReport:
    """Merge a model's adapter and quantize the linears of its blocks, in place, by GPTQ on a user's rows.

    Args:
        model: a decoder, on the CPU.
        kind: "q4-calibrated": four bits in llama.cpp's blocks.
        data: a file, a folder or a named data set, as ``lmworks tune`` takes it, or rows given in Python. The model
            reads the rows as it would in training.
        block_kind: Q4_1, with a minimum for each group of 32 weights, or Q4_0, without.
        scaling: scale channels by the size of their inputs first (AWQ).
        settings: how the rows are read; ``max_tokens`` is the length of a chunk of a longer text.
        tokens: the most that are read.
        progress: told after every block.
        measure: whether bits per byte are measured before and after.

    Raises:
        InputError: there is no such kind, the model cannot be calibrated (a matrix is named), or the data have no text.
    """
    if kind not in CALIBRATED_KINDS:
        raise InputError(f"there is no calibrated kind {kind!r}", "kind", f"one of: {list_names(CALIBRATED_KINDS)}")
    check_decoder(model.config)
    examples = calibration_examples(model, data, settings, tokens)
    batches = pack(examples, BATCH_TOKENS)
    adapters.merge(model.network)
    before = weight_bytes(model.network)
    widen(model.network)
    loss = None
    quantize = partial(quantize_blocks, model.network, batches, block_kind, scaling=scaling, progress=progress)
    if measure:
        loss = measure_loss(model, quantize)
    else:
        quantize()
    read = sum(example.size for example in examples)
    matrices = sum(linear.storage.dtype_name == block_kind for _, linear in stored_layers(model.network))
    return CalibrationReport(len(examples), read, matrices, before, weight_bytes(model.network), loss)


def calibration_examples(
    model: LanguageModel, data: Any, settings: DataSettings | None = None, tokens: int = CALIBRATION_TOKENS
) -> list[Example]:
    """The rows of a calibration as the model reads them, at equal intervals of the data.

    Arguments are those of :func:`quantize_model`.

    Raises:
        InputError: the data have no text, or too little of it.
    """
    settings = settings or DataSettings()
    context = model.config.max_position_embeddings
    if settings.max_tokens is None:
        settings = settings.model_copy(update={"max_tokens": min(ROW_TOKENS, context)})
    table = corpus.read(data, settings)
    examples = _examples(model, table, settings, context).items
    total = sum(example.size for example in examples)
    if total < FEWEST_TOKENS:
        fault = f"its rows have {total} tokens of text, and a calibration needs {FEWEST_TOKENS} at least"
        raise InputError(fault, table.name, "give text like that which the model will read, some pages of it")
    most = max(1, len(examples) * tokens // total)
    return spread(examples, most)


def _examples(model: LanguageModel, table: Table, settings: DataSettings, context: int) -> Examples:
    """The rows as the first task makes examples of them that trains the language head of such a model.

    Raises:
        InputError: a decoder reads no rows of this kind by itself.
    """
    usable = [task for task in TASKS.values() if model.architecture in task.architectures and task.needs_language_head]
    task = next((task for task in usable if table.kind in task.default_for), None)
    if task is None:
        kinds = list_names(list(dict.fromkeys(kind for own in usable for kind in own.default_for)))
        fault = f"a decoder reads no rows of kind {table.kind} without a head for them"
        raise InputError(fault, table.name, f"give a text file, or rows of one of these kinds: {kinds}")
    return task(TaskSettings(name=task.name), model.tokenizer, model.config).examples(table, settings, context)
