"""A language model -> a GGUF file, its adapter merged."""

from __future__ import annotations

import re
from pathlib import Path

from lmworks.adapt import adapters
from lmworks.base.errors import InputError
from lmworks.families.gguf_writer import WrittenGGUF, write_gguf
from lmworks.language_model.model import LanguageModel
from lmworks.language_model.ngram import NgramLanguageModel, refuse

PRECISIONS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
QUANTIZED = {"q8": "Q8_0", "q4": "Q4_0", "q4_1": "Q4_1", "tq1": "TQ1_0", "tq2": "TQ2_0"}
"""What ``lmworks quantize`` calls them -> llama.cpp's formats."""


def export_gguf(model: LanguageModel, path: str | Path, to: str = "float16", *, overwrite: bool = False) -> WrittenGGUF:
    """Write a model as a GGUF file, which llama.cpp opens; the active adapter is merged in float32 before rounding.

    Nothing is left half-written. A model that came in blocks of the same format (opened with ``storage="stored"``)
    keeps them, byte for byte.

    Args:
        model: a decoder of a family that llama.cpp knows: GPT-2, Llama, Mistral without windows, Qwen2, Qwen3, Phi-3,
            StarCoder2, Gemma 2, Gemma 3.
        path: the file; its name ends in ``.gguf``.
        to: "float32", "float16" or "bfloat16"; or "q8" (8.5 bits a weight), "q4" (4.5), "q4_1" (5), "tq1" (1.7), "tq2"
            (2.1), where token embeddings and the head have 8.5 and norms and biases 32. The last two are for models
            that were trained with ternary weights.
        overwrite: replace a GGUF file that is there.

    Returns:
        the file, its size, the formats in it and what is to be known about it.

    Raises:
        InputError: the place is taken or has no room, the model is of another family, or its tokenizer, template or
            stop tokens would not survive in the file: names what.
    """
    formats = PRECISIONS | QUANTIZED
    if to not in formats:
        raise InputError(f"{to!r} is not a format that is written", "to", f"one of {', '.join(formats)}")
    if isinstance(model, NgramLanguageModel):
        refuse(model.source)
    with adapters.merged(model.network):
        file = write_gguf(
            path,
            model.network,
            model.config,
            model.family,
            model.own_tokenizer,
            formats[to],
            re.split(r"[/:]", model.source.rstrip("/"))[-1].removesuffix(".gguf"),
            overwrite,
        )
    if model.input_format is not None or model.few_shot is not None:
        file.notes.append(
            "the form of prompts in the run that trained it (lmworks.json) is not in the file: whoever uses it writes "
            "prompts in that form"
        )
    return file
