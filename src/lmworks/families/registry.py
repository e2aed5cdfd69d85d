"""model_type -> family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.json_file import wrong_kind
from lmworks.families.albert import ALBERT
from lmworks.families.bart import BART
from lmworks.families.bert import BERT
from lmworks.families.distilbert import DISTILBERT
from lmworks.families.family import Family
from lmworks.families.gemma import GEMMA2, GEMMA3
from lmworks.families.gpt2 import GPT2
from lmworks.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from lmworks.families.marian import MARIAN
from lmworks.families.own import CONVOLUTIONAL, RECURRENT, TRANSFORMER
from lmworks.families.phi3 import PHI3
from lmworks.families.roberta import ROBERTA, XLM_ROBERTA
from lmworks.families.starcoder2 import STARCODER2
from lmworks.families.t5 import T5

DECODERS = (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, STARCODER2)
ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, DISTILBERT, ALBERT)
ENCODER_DECODERS = (BART, MARIAN, T5)
OWN = (RECURRENT, CONVOLUTIONAL, TRANSFORMER)  # which transformers does not have
FAMILIES: dict[str, Family] = {family.name: family for family in (*DECODERS, *ENCODERS, *ENCODER_DECODERS, *OWN)}
# Models that people will try and that read more than text.
PICTURES = {"gemma3": "gemma3_text", "gemma3n": "gemma3_text", "phi3_v": "phi3", "phi4_multimodal": "phi3"}


def family_of(hf_config: Mapping[str, Any], place: str = "config.json") -> Family:
    """The family that a config.json belongs to, by its ``model_type``.

    Raises:
        InputError: there is no model_type, or none of ours; those known are listed.
    """
    name = hf_config.get("model_type")
    known = "known: " + ", ".join(sorted(FAMILIES))
    if name is None or not isinstance(name, str):
        if name is not None:
            raise wrong_kind("model_type", name, place, str)
        raise InputError("model_type is missing, so this is not a model's config", place, known)
    if name in PICTURES:
        hint = f"take a model that reads text alone: its config says {PICTURES[name]!r}"
        raise InputError(
            f"model_type {name!r} reads pictures or sound beside text, which lmworks does not", place, hint
        )
    if name not in FAMILIES:
        raise InputError(f"model_type {name!r} is not a family that lmworks has", place, known)
    return FAMILIES[name]
