"""A model merged with its adapter and quantized, in memory or into a GGUF file, and what the quantization changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmworks.adapt import adapters
from lmworks.evaluate import progress, scoring
from lmworks.evaluate.settings import GENERAL_BYTES
from lmworks.evaluate.text_windows import bits_per_byte
from lmworks.families.gguf_writer import WrittenGGUF, check_gguf_place
from lmworks.language_model.export import export_gguf
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.opening import open_saved_model
from lmworks.model.quant_types import QuantType
from lmworks.model.quantization import quantize
from lmworks.model.stored_layers import widen
from lmworks.run.evaluation import general_pieces


@dataclass(frozen=True)
class QuantizationLoss:
    """Bits per byte of the same text before a model was quantized and after.

    Attributes:
        text: name of the text.
        before: of the merged model.
        after: of the same, quantized.
    """

    text: str
    before: float
    after: float


def merge_and_quantize(model: LanguageModel, quant_type: QuantType) -> QuantizationLoss | None:
    """Merge a model's adapter into the dequantized weights of its base and quantize the sum, in place.

    Rounding the sum removes a part of what was trained, often more than it does to the base: an update may be smaller
    than half the distance between two levels.

    Returns:
        The loss before and after; None of a model that gives no likelihood of a text by itself.
    """
    adapters.merge(model.network)
    widen(model.network)
    return measure_loss(model, lambda: quantize(model.network, quant_type))


def measure_loss(model: LanguageModel, change: Callable[[], object]) -> QuantizationLoss | None:
    """Bits per byte of a text on which nothing is tuned, before a model is quantized and after.

    Args:
        model: without adapters.
        change: quantizes it in place.

    Returns:
        The loss before and after; None of a model that gives no likelihood of a text by itself.
    """
    name, texts = general_pieces(None, GENERAL_BYTES)
    before = _bits_per_byte(model, texts)
    change()
    after = _bits_per_byte(model, texts)
    return None if before is None or after is None else QuantizationLoss(name, before, after)


def export_and_measure(
    model: LanguageModel, path: str | Path, to: str, overwrite: bool = False
) -> tuple[WrittenGGUF, QuantizationLoss | None]:
    """Write a model as a GGUF file (language_model/export), and measure the model and the file on the same text.

    Args:
        model, path, to, overwrite: as those of :func:`export_gguf`.

    Returns:
        the file, and its loss beside that of the model; None of a model that gives no likelihood of a text by itself.

    Raises:
        InputError: as :func:`export_gguf` does.
    """
    check_gguf_place(Path(path), overwrite)  # before what takes long
    name, texts = general_pieces(None, GENERAL_BYTES)
    file = export_gguf(model, path, to, overwrite=overwrite)
    before = _bits_per_byte(model, texts)
    after = _bits_per_byte(open_saved_model(file.path), texts)
    return file, None if before is None or after is None else QuantizationLoss(name, before, after)


def _bits_per_byte(model: LanguageModel, texts: list[str]) -> float | None:
    if model.architecture != "decoder" or not model.config.language_head:
        return None
    progress.begin("texts", len(texts))
    scores = scoring.score_texts(model.network.eval(), model.tokenizer, texts)
    return bits_per_byte(sum(score.nats for score in scores), sum(score.bytes for score in scores))
